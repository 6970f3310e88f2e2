"""The waits that a person feels in the web editor, in headless Chromium under software rendering.

    python benchmarks/measure_editor.py [--checkpoint procedural] [--parts turn,...] [--repeats 5]

The editor runs as the command does, in a process of its own, and the page is driven by its own
functions. Times are medians over `--repeats`, in milliseconds; `load` is the machine's before and
after. Processor time is that of the editor and the browser together (Linux): on a machine that does
other things it says more than the time that went by.
"""

import argparse
import base64
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from semfaceedit.api import load
from semfaceedit.machine import cpu_name
from semfaceedit.web_editor.session import EditingSession

SEED = 1
SIZE = 128  # pixels along an edge at which pictures are compared
POSES = [(0.4, 0.0), (-0.3, 0.1), (0.0, 0.2), (0.7, 0.0)]
# Resolves once the layers of the face at hand are there, with as many texels.
BAKED = """import('./state.js').then(({{ page }}) => new Promise((done) => {{
  const {{ head }} = page.viewer;
  const look = () => {{
    const there = head.ready(page.viewer.pose) && head.baked.texels >= {texels};
    there ? done(true) : setTimeout(look, 20);
  }};
  look();
}}))"""
# From a new face to the layers that turn it: the wait for quiet, the bake, and their taking up.
FIRST = """import('./state.js').then(({{ page, send }}) => new Promise((done) => {{
  const {{ head }} = page.viewer, {{ ask }} = head, start = performance.now();
  let asked = 0, came = 0;
  head.ask = (...face) => {{ asked ||= performance.now(); return ask(...face); }};
  const take = head.take.bind(head);
  head.take = (...layers) => {{ came ||= performance.now(); return take(...layers); }};
  const {{ loaded }} = head;
  head.loaded = () => {{
    Object.assign(head, {{ ask, loaded, take }});
    loaded();
    const end = performance.now();
    done({{ bake: came - asked, load: end - came, all: end - start }});
  }};
  send({{ type: "choose", seed: {seed} }});
}}))"""
TURN = """import('./state.js').then(({ page }) => new Promise((done) => {
  const { viewer } = page, { head } = viewer, { draw } = head, { ask } = viewer;
  const start = performance.now();
  let frames = 0, all = 0, counted = 0, asked = 0;
  head.draw = (...how) => {
    all++;
    if (counted) frames++;
    return draw.apply(head, how);
  };
  viewer.ask = (view) => { asked++; return ask(view); };
  const step = (now) => {
    if (now - start > 6000) {
      head.draw = draw;
      viewer.ask = ask;
      const rays = viewer.picture.width, fps = (1000 * frames) / (now - counted);
      return done({ fps, rays, edge: viewer.edge, asked, frames: all });
    }
    if (now - start > 2000) counted ||= now;
    viewer.look({ yaw: 0.6 * Math.sin(now / 700), pitch: 0.1 * Math.sin(now / 900) });
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}))"""
DRAWN = """import('./state.js').then(({{ page }}) => {{
  const {{ renderer }} = page.viewer.head;
  renderer.draw({{ yaw: {yaw}, pitch: {pitch}, size: {size}, coarse: {coarse} }});
  return btoa(Array.from(renderer.pixels(), (byte) => String.fromCharCode(byte)).join(""));
}})"""


def processor_seconds() -> float:
    """What all processes that this one has started have used, as far as they are still there."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            pid = int(stat.parent.name)
            parents[pid] = int(fields[1])
            used[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    found, inside = 0.0, {os.getpid()}
    for _ in range(8):  # generations
        children = {pid for pid, parent in parents.items() if parent in inside} - inside
        found += sum(used[pid] for pid in children)
        inside |= children
    return found


def turned(page) -> dict[str, float]:
    """While the head is turned for six seconds, of which the last four count."""
    before = processor_seconds()
    found = page.run(TURN)
    used = processor_seconds() - before
    found["processor, ms a frame"] = round(1000 * used / max(found.pop("frames"), 1), 1)
    return found


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.median([one[name] for one in found])), 1) for name in found[0]}


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one / 255.0 - other / 255.0) ** 2)))


def turning(page, session: EditingSession, repeats: int) -> dict[str, object]:
    first = []
    for number in range(repeats):
        before = processor_seconds()
        found = page.run(FIRST.format(seed=SEED + 1 + number))
        first.append(found | {"processor": 1000 * (processor_seconds() - before)})
    page.run(FIRST.format(seed=SEED))
    report: dict[str, object] = {"new face to turnable, ms": medians(first)}
    report["PSNR to the editor's render, dB"] = near = {}
    session.choose(SEED)
    report["while it turns"] = turned(page)
    for texels in (96, 224):
        page.run(BAKED.format(texels=texels))
        for coarse in ("false", "true"):
            near[f"{texels} texels, {'moving' if coarse == 'true' else 'still'}"] = [
                round(psnr(drawn(page, pose, coarse), session.view("image", pose)), 1)
                for pose in POSES
            ]
    report["while it turns, finer"] = turned(page)
    return report


def drawn(page, pose: tuple[float, float], coarse: str) -> np.ndarray:
    script = DRAWN.format(yaw=pose[0], pitch=pose[1], size=SIZE, coarse=coarse)
    data = np.frombuffer(base64.b64decode(page.run(script)), np.uint8)
    return data.reshape(SIZE, SIZE, 4)[..., :3]


PAINT = """import('./state.js').then(({{ page }}) => new Promise((done) => {{
  const {{ painter, viewer }} = page, {{ answered, follow }} = viewer;
  const times = {{ asked: 0, frame: 0, lifted: 0, sharp: 0 }};
  viewer.follow = (labels) => {{
    times.asked ||= performance.now();
    return follow.call(viewer, labels);
  }};
  viewer.answered = (picture) => {{
    const {{ moving }} = viewer.asked;
    answered.call(viewer, picture);
    if (moving && times.asked) times.frame ||= performance.now();
    if (!moving && page.state.version > 0 && times.lifted) {{
      times.sharp = performance.now();
      Object.assign(viewer, {{ answered, follow }});
      const {{ asked, frame, lifted, sharp }} = times;
      done({{ "pointer to picture": frame - asked, "pen lift to sharp": sharp - lifted }});
    }}
  }};
  const box = painter.canvas.getBoundingClientRect();
  const at = (x, y, type) => painter.canvas.dispatchEvent(new PointerEvent(type, {{
    pointerId: 1, isPrimary: true, button: 0, buttons: 1, bubbles: true,
    clientX: box.left + x * box.width, clientY: box.top + y * box.height }}));
  painter.canvas.setPointerCapture = () => {{}};
  const x = {x};
  at(x, 0.3, "pointerdown");
  let y = 0.3;
  const draw = setInterval(() => {{
    at(x, y += 0.04, "pointermove");
    if (y < 0.7 || !times.frame) return;
    clearInterval(draw);
    times.lifted = performance.now();
    at(x, y, "pointerup");
  }}, 30);
}}))"""
SLIDE = """import('./state.js').then(({{ page, find }}) => new Promise((done) => {{
  const {{ viewer }} = page, {{ answered }} = viewer;
  const input = find("slider-list").querySelector("input");
  if (!input) return done(null);
  const times = [];
  let began = performance.now();
  viewer.answered = (picture) => {{
    answered.call(viewer, picture);
    times.push(performance.now() - began);
    if (times.length > 20) {{
      viewer.answered = answered;
      return done(times.slice(5));
    }}
    move();
  }};
  const move = () => {{
    input.value = 2 * Math.sin(times.length);
    began = performance.now();
    input.oninput();
  }};
  move();
}}))"""


def painting(page, session: EditingSession, repeats: int) -> dict[str, object]:
    if not session.follows:
        return {"no encoder": True}
    page.run("import('./panels.js').then((panels) => panels.chooseLabel(13))")
    found = []
    for number in range(repeats):
        page.run(FIRST.format(seed=SEED + number))
        found.append(page.run(PAINT.format(x=0.2 + 0.02 * number)))
    return medians(found)


def sliding(page, session: EditingSession, repeats: int) -> dict[str, object]:
    times = page.run(SLIDE.format())
    if times is None:
        return {"no sliders": True}
    return {"a frame, ms": round(float(np.median(times)), 1), "slowest": round(max(times), 1)}


PARTS = {"turn": turning, "paint": painting, "slide": sliding}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    from browser import open_page
    from editor_server import started

    chosen = ["--checkpoint", arguments.checkpoint] if arguments.checkpoint else []
    report: dict[str, object] = {"cpu": cpu_name(), "load": list(os.getloadavg())}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "profile").mkdir()
        session = EditingSession(load(arguments.checkpoint), folder / "none")
        with started([*chosen, "--seed", str(SEED), "--out", str(folder / "faces")]) as address:
            with open_page(address, folder / "profile", (1280, 800)) as page:
                page.wait("document.querySelectorAll('#looks button').length == 8")
                for part in arguments.parts.split(","):
                    report[part] = PARTS[part](page, session, arguments.repeats)
                report["problems"] = page.problems
    report["load after"] = list(os.getloadavg())
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
    main()
