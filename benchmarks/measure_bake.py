"""How near the page of a baked face comes to the renderer, how large it is, and how fast it draws.

    python benchmarks/measure_bake.py [--checkpoint portraits] [--seeds 0-19] [--no-browser]
        [--no-times]

Each seed is baked as `export --bake` does; the page's picture at 256 x 256 is compared with the
renderer's (view direction frontal in both). Without --no-browser the page itself draws, in headless
Chromium under software rendering, also as it draws a head that moves; otherwise its reference in
PyTorch does. --no-times leaves out what a busy machine spoils.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from semfaceedit.baking.bake import bake, looks_of
from semfaceedit.baking.gltf import glb
from semfaceedit.baking.page import page as page_of
from semfaceedit.baking.sampling import draw
from semfaceedit.baking.surfaces import surfaces_of
from semfaceedit.cli import parse_seeds
from semfaceedit.export import ExportOptions
from semfaceedit.machine import cpu_name
from semfaceedit.metrics.pictures import psnr
from semfaceedit.model.checkpoint import locate_weights
from semfaceedit.model.generator import Generator, seed_codes
from semfaceedit.model.labels import PALETTE
from semfaceedit.model.renderer import RenderOutput, render

SIZE = 256
POSES = {
    "yaw within 0.4": [(-0.4, 0.0), (-0.2, 0.1), (0.0, 0.0), (0.2, -0.1), (0.4, 0.0)],
    "yaw 0.7": [(-0.7, 0.0), (0.7, 0.0)],
}
WHOLE = 3  # faces written as `export` does, for their size
PREVIEW = 96  # texels along an edge
FRAMES = """new Promise((done) => {
  const start = performance.now();
  let count = 0, counted = 0;
  const step = (now) => {
    if (now - start > 6000) return done((1000 * count) / (now - counted));
    if (now - start > 3000) { counted ||= now; count++; }  // once the number of rays has settled
    face.turn(0.6 * Math.sin(now / 700), 0);
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""
FIXED = """(() => {{
  const start = performance.now(), {{ gl }} = face.renderer, byte = new Uint8Array(4);
  let count = 0;
  do {{
    face.renderer.draw({{ yaw: 0.5 * Math.sin(count++ / 5), size: {size}, coarse: true }});
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, byte);
  }} while (performance.now() - start < 3000);
  return (1000 * count) / (performance.now() - start);
}})()"""


def timed_bake(generator: Generator, size: int) -> float:
    """The least of three times, in seconds, without other looks."""
    codes, times = seed_codes(generator, 0), []
    for _ in range(3):
        start = time.perf_counter()
        bake(generator, codes, size=size)
        times.append(time.perf_counter() - start)
    return min(times)


def differences(true: RenderOutput, image: torch.Tensor, labels: torch.Tensor) -> list[float]:
    return [float(psnr(image, true.image)), float((labels == true.labels).float().mean())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="procedural")
    parser.add_argument("--seeds", default="0-19")
    parser.add_argument("--browser", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--times", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    generator = Generator.from_checkpoint(locate_weights(Path(arguments.checkpoint)))
    surfaces_of(generator)
    report: dict[str, object] = {"weights": arguments.checkpoint, "cpu": cpu_name()}
    if arguments.times:
        report["seconds to bake"] = {
            f"{size} texels": round(timed_bake(generator, size), 2)
            for size in (PREVIEW, ExportOptions.texture_size)
        }
    looks = looks_of(generator)
    ways = ("", ", moving") if arguments.browser else ("",)
    found: dict[str, list[list[float]]] = {f"{name}{way}": [] for name in POSES for way in ways}
    sizes: dict[str, list[int]] = {"face.html": [], "face.glb": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in parse_seeds(arguments.seeds):
            codes = seed_codes(generator, seed)
            # The first faces alone have other looks: they change the size of the file only.
            whole = len(sizes["face.html"]) < WHOLE
            size, others = ExportOptions.texture_size, looks if whole else None
            face = bake(generator, codes, size=size, looks=others)
            path = folder / f"{seed}.html"
            path.write_text(page_of(face, title=f"Face {seed}"))
            if whole:
                sizes["face.html"].append(path.stat().st_size)
                mesh_size = ExportOptions.mesh_size
                sizes["face.glb"].append(len(glb(face, title="face", mesh_size=mesh_size)))
            shown = draws_of(path, folder / f"browser-{seed}") if arguments.browser else None
            for group, poses in POSES.items():
                for pose in poses:
                    where = torch.tensor([pose])
                    true = render(generator, codes, where, SIZE, lock_view=True)
                    if shown is None:
                        drawn = draw(face, pose, SIZE)
                        found[group].append(differences(true, drawn.image, drawn.labels))
                    else:
                        for way, drawing in zip(ways, shown[pose], strict=True):
                            found[group + way].append(differences(true, *drawing))
            done = {name: np.mean(values, 0).round(4).tolist() for name, values in found.items()}
            print(f"seed {seed}, means so far: {done}", file=sys.stderr, flush=True)
        for group, values in found.items():
            ratio, agree = np.array(values).T
            report[group] = {
                "PSNR, dB, mean and least": [round(float(ratio.mean()), 1), round(min(ratio), 1)],
                "labels that agree, %": round(100 * float(agree.mean()), 2),
            }
        report["bytes, mean and most"] = {
            name: [round(float(np.mean(values))), max(values)] for name, values in sizes.items()
        }
        if arguments.browser and arguments.times:
            report |= speed_of(path, folder / "browser-speed")
    print(json.dumps(report, indent=2))


Drawing = tuple[torch.Tensor, torch.Tensor]  # image (1, 3, H, H) in [-1, 1], labels (1, H, H)


def draws_of(path: Path, profile: Path) -> dict[tuple[float, float], list[Drawing]]:
    """What a page draws from every pose of a head that stands still, and of one that moves."""
    from baked import drawn
    from browser import open_page

    ids = {tuple(color): index for index, color in enumerate(PALETTE.tolist())}
    found: dict[tuple[float, float], list[Drawing]] = {}
    profile.mkdir()
    with open_page(path.as_uri(), profile, (600, 800)) as page:
        page.wait("!!globalThis.face", 300)
        for pose in (pose for poses in POSES.values() for pose in poses):
            found[pose] = []
            for coarse in (False, True):
                picture = drawn(page, *pose, SIZE, coarse=coarse)
                labels = drawn(page, *pose, SIZE, "labels", coarse=coarse).reshape(-1, 3)
                colors, places = np.unique(labels, axis=0, return_inverse=True)
                values = np.array([ids[tuple(c)] for c in colors.tolist()])[places.reshape(-1)]
                image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1
                found[pose].append((image, torch.from_numpy(values).view(1, SIZE, SIZE)))
    return found


def speed_of(path: Path, profile: Path) -> dict[str, object]:
    """Frames a second of a page whose picture has 1024 pixels along an edge."""
    from browser import open_page

    profile.mkdir()
    with open_page(path.as_uri(), profile, (1500, 1056)) as page:
        page.wait("!!globalThis.face")
        width = page.run("document.querySelector('#picture').clientWidth")
        turning = page.run(FRAMES)
        share = page.run("face.pace.share")
        fixed = {
            str(size): round(page.run(FIXED.format(size=size)), 1) for size in (256, 512, 1024)
        }
    return {
        "picture, pixels": width,
        "frames a second while it turns": round(turning, 1),
        "rays along an edge then": round(width * share),
        "frames a second with as many rays along an edge": fixed,
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
    main()
