"""The figures of the gallery: each shows one capability and says in numbers how well it works."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..api import generate
from ..cli import progress
from ..data.pose import landmarks_from_labels
from ..editing.fit import FitRecord, Goal
from ..editing.inversion import InversionResult, InvertSettings, invert, seed_target
from ..editing.map_edit import compare_unmasked, edit
from ..editing.mask_edits import EDITS, longer_hair, painted, shorter_hair
from ..editing.project import FaceProject
from ..editing.refit import EditedFace, EditSettings
from ..editing.region_transfer import What, transfer
from ..editing.target import OVERSAMPLING, Target
from ..errors import UserError
from ..metrics.pictures import rgb_change
from ..model.codes import Codes, interpolate
from ..model.generator import Generator, seed_codes, seed_latents
from ..model.labels import PALETTE
from ..model.mean_face import mean_codes
from ..model.renderer import RenderOutput, render
from ..pictures.grids import picture_rows
from ..pictures.sheets import Row, sheet
from ..procedural.render import render_faces

FACES = 5  # the figures take at least so many seeds
YAWS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # radians
SIDES = (-0.4, 0.4)
MARGIN, CELL = 96, 96  # pixels of a sheet: row titles, and pictures at least
GAIN = 4  # differences are shown so many times as large
TRANSFERS: tuple[tuple[What, str], ...] = (
    ("appearance", "hair"), ("geometry", "hair"), ("both", "hair"), ("geometry", "nose"),
    ("appearance", "face"), ("both", "garment"),
)  # fmt: skip
GIVEN = (100, 101)  # seeds of generated faces to invert
UNSEEN = 9_000_000  # procedural seeds from here on are in no training set


@dataclass(frozen=True)
class Figure:
    """A picture, what is seen in it, and the numbers it rests on."""

    image: Image.Image
    caption: str  # Markdown
    facts: dict[str, Any]


@dataclass
class Studio:
    """A checkpoint, the seeds that figures take from, and how long fits may take."""

    generator: Generator
    seeds: list[int]
    resolution: int
    iterations: int
    image_weight: float
    invert_iterations: int
    tune: int
    _faces: dict[int, FaceProject] = field(default_factory=dict)

    def face(self, seed: int) -> FaceProject:
        """The frontal face of a seed, at the checkpoint's resolution."""
        if seed not in self._faces:
            self._faces[seed] = generate(self.generator, seed).project
        return self._faces[seed]

    def first(self, shows: Callable[[np.ndarray], object], *, unlike: tuple[int, ...] = ()) -> int:
        """The first seed whose map `shows` what is needed, but for `unlike`; else any seed."""
        order = [seed for seed in self.seeds if seed not in unlike] + self.seeds
        return next((s for s in order if shows(self.face(s).labels) is not None), order[0])

    @torch.no_grad()
    def view(
        self, codes: Codes, yaw: float = 0.0, pitch: float = 0.0, generator: Generator | None = None
    ) -> dict[str, np.ndarray]:
        """Each kind of picture, (H, H, 3) uint8."""
        pose = torch.tensor([[yaw, pitch]]).to(codes.geometry.phases)
        output = render(generator or self.generator, codes, pose, self.resolution)
        kinds = picture_rows(output, self.generator.config.camera)
        return {kind: picture[0].numpy() for kind, picture in kinds.items()}

    def project(self, project: FaceProject, yaw: float | None = None) -> dict[str, np.ndarray]:
        """A project from a side, by default from its own pose."""
        own_yaw, own_pitch = (float(angle) for angle in project.pose)
        return self.view(
            project.codes(self.generator),
            own_yaw if yaw is None else yaw,
            own_pitch,
            project.generator(self.generator),
        )

    def sheet(self, columns: list[str], rows: list[Row]) -> Image.Image:
        return sheet(columns, rows, cell=max(CELL, self.resolution), margin=MARGIN)

    @property
    def edit_settings(self) -> EditSettings:
        return EditSettings(
            iterations=self.iterations, image_weight=self.image_weight, perceptual_weight=0
        )


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
            made = transfer(
                generator, face, studio.face(giver), what="appearance", region=[group],
                settings=studio.edit_settings,
            )  # fmt: skip
            changes.append(made.change)
            shades.append(_difference(made))
            cells.append(studio.project(made.project)["image"])
        cells.append(np.mean(shades, 0).round().astype(np.uint8))
        rows.append(Row(group, cells))
        facts[group] = {
            name: _mean([change[name] for change in changes])
            for name in ("change_inside", "change_outside")
        }
    table = _table(
        ["group", "mean change of RGB inside", "outside"],
        [[group, f"{f['change_inside']:.4f}", f"{f['change_outside']:.4f}"]
         for group, f in facts.items()],
    )  # fmt: skip
    caption = (
        f"The appearance code of one group of seed {studio.seeds[0]} is replaced by that of four "
        f"other seeds; nothing is optimised. Last column: the mean change, {GAIN} times as large. "
        "What changes outside the region's pixels are rays that pass through the group before or "
        "behind what they show; rays that never meet it keep every bit.\n\n" + table
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

        found = invert(
            generator,
            target.image,
            target.labels,
            pose=_known_pose(target),
            settings=_inversion_settings(studio),
            watch=watch,
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
    table = _table(
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
        "picture and sees nothing of the sides. mIoU is over the four groups.\n\n" + table
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


def edits(studio: Studio) -> Figure:
    generator, settings = studio.generator, studio.edit_settings
    used: tuple[int, ...] = ()
    rows, facts = [], {}
    apart: dict[str, list[float]] = {"background": [], "rest": []}
    for name in progress(EDITS, total=len(EDITS), title="edits"):
        seed = studio.first(partial(painted, name=name), unlike=used)
        face = studio.face(seed)
        wanted = painted(face.labels, name)
        if wanted is None:
            continue
        used += (seed,)
        made = edit(generator, face, wanted, settings=settings)
        made = compare_unmasked(generator, face, made, settings)
        after = studio.project(made.project)
        rows.append(
            Row(
                f"{name}\nseed {seed}",
                [studio.project(face)["image"], PALETTE[face.labels], PALETTE[wanted],
                 after["image"], after["semantics"],
                 *(studio.project(made.project, yaw)["image"] for yaw in SIDES),
                 _difference(made)],
            )
        )  # fmt: skip
        facts[name] = {key: round(value, 5) for key, value in made.project.metrics.items()}
        for part, value in zip(apart, _change_outside(studio, made), strict=True):
            apart[part].append(value)
    columns = ["face", "its map", "edited map", "edited face", "its map",
               *(f"yaw {yaw:+.1f}" for yaw in SIDES), f"change x {GAIN}"]  # fmt: skip
    titles = {
        "labels_inside": "labels inside r as asked",
        "change_inside": "change inside r",
        "change_outside": "outside r",
        "ssim_outside": "SSIM outside r",
        "unmasked_labels_inside": "without mask: labels",
        "unmasked_change_outside": "change outside r",
        "unmasked_ssim_outside": "SSIM outside r",
    }
    lines = [[name, *(f"{f[key]:.4f}" for key in titles)] for name, f in facts.items()]
    table = _table(["edit", *titles.values()], lines)
    caption = (
        "The label map of a generated face is painted over by code, as a person would with a "
        f"brush, and the geometry offsets follow it (Eq. 10, {studio.iterations} steps, image "
        f"term weighted {studio.image_weight:g}). The appearance codes stay, so that a new part "
        "takes the colours that its group gives it. The region r is what changed in the map, "
        f"widened by {settings.dilation:.0%} of the width. Last column: the change of the picture, "
        f"{GAIN} times as large. Outside r it is {_mean(apart['background']):.4f} on background "
        f"pixels and {_mean(apart['rest']):.4f} elsewhere, on average over the edits. "
        f"{_worst(facts)} The right half of the table is the same edit with the image term inside "
        "r too.\n\n" + table
    )
    return Figure(studio.sheet(columns, rows), caption, facts)


def _change_outside(studio: Studio, made: EditedFace) -> tuple[float, float]:
    """Mean |change of RGB| outside the region, on background pixels and on others."""
    change = rgb_change(made.before.image, made.after.image)[0]
    outside, labels = ~made.region[0, 0], made.before.labels[0]
    background = studio.generator.group_table(labels) == studio.generator.group_table.table[0]
    return float(change[outside & background].mean()), float(change[outside & ~background].mean())


def _worst(facts: dict[str, dict[str, float]]) -> str:
    if not facts:
        return "No face here takes one of the edits."
    name = min(facts, key=lambda edit: facts[edit]["labels_inside"])
    share = facts[name]["labels_inside"]
    return f"Followed least: {name}, with {share:.0%} of the labels inside r as asked."


def transfers(studio: Studio) -> Figure:
    first = studio.first(longer_hair)
    second = studio.first(shorter_hair, unlike=(first,))
    a = studio.face(first)
    b = generate(studio.generator, second, pose=(SIDES[1] / 2, 0.0)).project
    rows, facts = [], {}
    for what, region in progress(TRANSFERS, total=len(TRANSFERS), title="transfer"):
        try:
            made = transfer(
                studio.generator, a, b, what=what, region=[region], settings=studio.edit_settings
            )
        except UserError:  # neither face shows the region
            continue
        shown = [studio.project(project) for project in (a, b, made.project)]
        cells = [view[kind] for view in shown for kind in ("image", "semantics")]
        cells += [studio.project(made.project, yaw)["image"] for yaw in SIDES]
        rows.append(Row(f"{region}\n{what}", cells))
        metrics = made.project.metrics
        facts[f"{region}, {what}"] = {key: round(value, 5) for key, value in metrics.items()}
    columns = ["A", "its map", "B", "its map", "result", "its map",
               *(f"yaw {yaw:+.1f}" for yaw in SIDES)]  # fmt: skip
    table = _table(
        ["region, what", "change inside the region", "outside", "SSIM outside"],
        [[name, *(f"{f[k]:.4f}" for k in ("change_inside", "change_outside", "ssim_outside"))]
         for name, f in facts.items()],
    )  # fmt: skip
    caption = (
        f"Face A (seed {first}) takes a region from face B (seed {second}, seen from another "
        "side). Appearance: the code is exchanged, at once. Geometry: the map inside the region "
        f"becomes that of B rendered at A's pose, and A's geometry offsets follow "
        f"({studio.iterations} steps, Eq. 11). Both: first the one, then the other.\n\n" + table
    )
    return Figure(studio.sheet(columns, rows), caption, facts)


def _difference(made: EditedFace) -> np.ndarray:
    """|change| in grey, enlarged in value, on white: (r, r, 3) uint8."""
    change = rgb_change(made.before.image, made.after.image)[0]
    shade = (255 * (1 - GAIN * change).clamp(0, 1)).round().byte()
    return shade[..., None].expand(-1, -1, 3).cpu().numpy()


def _table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _mean(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return round(sum(finite) / len(finite), 5) if finite else float("nan")


def _list(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))
