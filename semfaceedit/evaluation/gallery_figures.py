"""The figures of the gallery: each shows one capability and says in numbers how well it works."""

from dataclasses import replace

import numpy as np
import torch

from ..cli import progress
from ..data.pose import landmarks_from_labels
from ..editing.fit_terms import FitRecord, Goal, finished
from ..editing.inversion import InversionResult, InvertSettings, invert, seed_target
from ..editing.region_transfer import transfer
from ..editing.target import OVERSAMPLING, Target
from ..model.codes import interpolate
from ..model.generator import Generator, seed_codes, seed_latents
from ..model.labels import PALETTE
from ..model.mean_face import mean_codes
from ..model.renderer import RenderOutput
from ..pictures.grids import picture_rows
from ..pictures.sheets import Row
from ..procedural.render import render_faces
from .gallery_studio import FACES, GAIN, SIDES, Figure, Studio, difference, finite_mean
from .tables import table

YAWS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # radians
GIVEN = (100, 101)  # seeds of generated faces to invert
UNSEEN = 9_000_000  # procedural seeds from here on are in no training set


def multiview(studio: Studio) -> Figure:
    rows = []
    for seed in studio.seeds[:FACES]:
        codes = seed_codes(studio.generator, seed)
        views = {yaw: studio.view(codes, yaw) for yaw in YAWS}
        maps = [views[yaw]["semantics"] for yaw in (YAWS[0], 0.0, YAWS[-1])]
        cells = [views[yaw]["image"] for yaw in YAWS] + maps
        rows.append(Row(f"seed {seed}", [*cells, views[0.0]["depth"], views[0.0]["normals"]]))
    columns = [f"yaw {yaw:+.2f}" for yaw in YAWS] + [
        *(f"map {yaw:+.2f}" for yaw in (YAWS[0], 0.0, YAWS[-1])), "depth", "normals",
    ]  # fmt: skip
    caption = (
        f"Seeds {_list(studio.seeds[:FACES])} from five sides (yaw in radians), with the semantic "
        "map from three of them in CelebAMask-HQ colours, depth (white is near) and surface "
        "normals. Image and map come from the same points, so that they turn together."
    )
    return Figure(studio.sheet(columns, rows), caption, {})


def disentanglement(studio: Studio) -> Figure:
    shapes, looks = studio.seeds[: FACES - 1], studio.seeds[:FACES]
    generator, rows = studio.generator, []
    for shape in shapes:
        cells = [studio.view(seed_codes(generator, shape))["semantics"]]
        for look in looks:
            codes = generator.appearance.mapping(
                seed_latents(generator.config, look)[1].to(mean_codes(generator).geometry.phases)
            )
            cells.append(
                studio.view(replace(seed_codes(generator, shape), appearance=codes))["image"]
            )
        rows.append(Row(f"shape {shape}", cells))
    caption = (
        "One geometry code a row, the appearance codes of one seed a column. The map of a row "
        "(first column) is that of all its faces, to the bit: appearance codes never reach "
        "density or classes."
    )
    return Figure(studio.sheet(["map", *(f"look {look}" for look in looks)], rows), caption, {})


def appearance(studio: Studio) -> Figure:
    generator, face = studio.generator, studio.face(studio.seeds[0])
    givers = studio.seeds[1:FACES]
    rows, facts = [], {}
    for group in generator.config.group_names:
        cells: list[np.ndarray | None] = [studio.project(face)["image"]]
        changes, shades = [], []
        for giver in givers:
            made = finished(transfer(
                generator, face, studio.face(giver), what="appearance", region=[group],
                settings=studio.edit_settings,
            ))  # fmt: skip
            changes.append(made.change)
            shades.append(difference(made))
            cells.append(studio.project(made.project)["image"])
        cells.append(np.mean(shades, 0).round().astype(np.uint8))
        rows.append(Row(group, cells))
        facts[group] = {
            name: finite_mean([change[name] for change in changes])
            for name in ("change_inside", "change_outside")
        }
    figures = table(
        ["group", "mean change of RGB inside", "outside"],
        [[group, f"{f['change_inside']:.4f}", f"{f['change_outside']:.4f}"]
         for group, f in facts.items()],
    )  # fmt: skip
    caption = (
        f"The appearance code of one group of seed {studio.seeds[0]} is replaced by that of four "
        f"other seeds; nothing is optimised. Last column: the mean change, {GAIN} times as large. "
        "What changes outside the region's pixels are rays that pass through the group before or "
        "behind what they show; rays that never meet it keep every bit.\n\n" + "\n".join(figures)
    )
    columns = ["face", *(f"of seed {giver}" for giver in givers), f"change x {GAIN}"]
    return Figure(studio.sheet(columns, rows), caption, facts)


def interpolation(studio: Studio) -> Figure:
    first, last = studio.seeds[:2]
    generator, steps = studio.generator, 7
    start, end = (seed_codes(generator, seed) for seed in (first, last))
    names, rows = generator.config.group_names, []
    for which in ("all", "z", *names):
        weights = [step / (steps - 1) for step in range(steps)]
        path = [interpolate(start, end, weight, which, names) for weight in weights]
        rows.append(Row(which, [studio.view(codes)["image"] for codes in path]))
    caption = (
        f"From seed {first} to seed {last}, evenly in the space of frequencies and phases: all "
        "codes, the geometry code z alone, or the appearance of one group alone."
    )
    return Figure(studio.sheet([f"{w:.2f}" for w in weights], rows), caption, {})


def inversion(studio: Studio) -> Figure:
    generator, size = studio.generator, studio.generator.config.resolution
    targets = [
        *((f"generated\nseed {n}", seed_target(generator, n, size)) for n in GIVEN),
        *((f"procedural\nhead {n}", _procedural(generator, UNSEEN + n, size)) for n in (0, 1)),
    ]
    rows, facts = [], {}
    for title, target in progress(targets, total=len(targets), title="inversion"):
        seen: dict[str, np.ndarray] = {}

        def watch(
            record: FitRecord, output: RenderOutput, goal: Goal, seen: dict[str, np.ndarray] = seen
        ) -> None:
            if record.iteration <= 50:  # the last of these is nearest to 50 steps
                when = "50" if record.iteration else "0"
                seen[when] = picture_rows(output)["image"][0].numpy()

        found = finished(
            invert(
                generator,
                target.image,
                target.labels,
                pose=_known_pose(target),
                settings=_inversion_settings(studio),
                watch=watch,
            )
        )
        plain = replace(found.project, tuned=None)
        views = [studio.project(plain), *(studio.project(plain, yaw) for yaw in SIDES)]
        cells = [target.image, PALETTE[target.labels], seen.get("0"), seen.get("50")]
        cells += [views[0]["image"], views[0]["semantics"], views[1]["image"], views[2]["image"]]
        if found.project.tuned is not None:
            cells += [studio.project(found.project, yaw)["image"] for yaw in (None, SIDES[1])]
        rows.append(Row(title, cells))
        facts[title.replace("\n", " ")] = _inversion_facts(found)
    columns = ["picture", "its map", "start", "50 steps", "fitted", "its map",
               *(f"yaw {yaw:+.1f}" for yaw in SIDES)]  # fmt: skip
    if studio.tune:
        columns += ["tuned", f"yaw {SIDES[1]:+.1f}"]
    names = ("start", "50 steps", "fitted", "tuned")
    figures = table(
        ["picture", *(f"mIoU, PSNR: {name}" for name in names)],
        [[title, *(f"{f[n][0]:.3f}, {f[n][1]:.1f} dB" if n in f else "-" for n in names)]
         for title, f in facts.items()],
    )  # fmt: skip
    caption = (
        "Each face is found from one picture and its label map (Eq. 9), from the mean face at the "
        f"pose that the map suggests; {studio.invert_iterations} steps at most. Two targets are "
        "faces of this model, whose codes exist but are not given to it; two are procedural heads "
        "that no training saw, which the model can only approach. The last two columns add "
        f"{studio.tune} steps of pivotal tuning of the weights (off by default), which fits the "
        "picture and sees nothing of the sides. mIoU is over the four groups.\n\n"
        + "\n".join(figures)
    )
    return Figure(studio.sheet(columns, rows), caption, facts)


def _known_pose(target: Target) -> tuple[float, float] | None:
    """None where the map shows a face whose pose can be estimated, as of a photograph."""
    if target.pose is None or landmarks_from_labels(target.labels) is not None:
        return None
    return float(target.pose[0]), float(target.pose[1])


def _inversion_settings(studio: Studio) -> InvertSettings:
    return InvertSettings(
        geometry_iterations=2 * studio.invert_iterations // 5,
        appearance_iterations=studio.invert_iterations - 2 * studio.invert_iterations // 5,
        tune_iterations=studio.tune,
        perceptual_weight=0,
    )


def _inversion_facts(found: InversionResult) -> dict[str, tuple[float, float]]:
    """mIoU over groups and PSNR at the start, near 50 steps, of the offsets, and tuned."""
    fit = [record for record in found.history if record.stage != "tuning"]
    chosen = {
        "start": fit[0],
        "50 steps": [record for record in fit if record.iteration <= 50][-1],
        "fitted": min((s for s in fit if s.stage == fit[-1].stage), key=lambda s: s.loss),
    }
    tuned = [record for record in found.history if record.stage == "tuning"]
    if tuned:
        chosen["tuned"] = min(tuned, key=lambda record: record.loss)
    return {n: (round(s.score.groups, 4), round(s.psnr, 2)) for n, s in chosen.items()}


def _procedural(generator: Generator, seed: int, resolution: int) -> Target:
    """A procedural head that is not of the model, at a pose between the sides."""
    pose = torch.tensor([[0.2 if seed % 2 else -0.2, 0.0]])
    batch = render_faces([seed], OVERSAMPLING * resolution, generator.config.camera, pose)
    image = ((batch.images[0] + 1) * 127.5).round().byte().movedim(0, -1).numpy()
    return Target(image, batch.labels[0].numpy(), pose[0].numpy())


def _list(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))
