"""The figures of the gallery that show edits: painted label maps, and regions of other faces."""

from functools import partial

from ..api import generate
from ..cli import progress
from ..editing.fit_terms import finished
from ..editing.map_edit import compare_unmasked, edit
from ..editing.mask_edits import EDITS, longer_hair, painted, shorter_hair
from ..editing.refit import EditedFace
from ..editing.region_transfer import What, transfer
from ..errors import UserError
from ..metrics.pictures import rgb_change
from ..model.labels import PALETTE
from ..pictures.sheets import Row
from .gallery_studio import GAIN, SIDES, Figure, Studio, difference, finite_mean
from .tables import table

TRANSFERS: tuple[tuple[What, str], ...] = (
    ("appearance", "hair"), ("geometry", "hair"), ("both", "hair"), ("geometry", "nose"),
    ("appearance", "face"), ("both", "garment"),
)  # fmt: skip


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
        made = finished(edit(generator, face, wanted, settings=settings))
        made = compare_unmasked(generator, face, made, settings)
        after = studio.project(made.project)
        rows.append(
            Row(
                f"{name}\nseed {seed}",
                [studio.project(face)["image"], PALETTE[face.labels], PALETTE[wanted],
                 after["image"], after["semantics"],
                 *(studio.project(made.project, yaw)["image"] for yaw in SIDES),
                 difference(made)],
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
    figures = "\n".join(table(["edit", *titles.values()], lines))
    caption = (
        "The label map of a generated face is painted over by code, as a person would with a "
        f"brush, and the geometry offsets follow it (Eq. 10, {studio.iterations} steps, image "
        f"term weighted {studio.image_weight:g}). The appearance codes stay, so that a new part "
        "takes the colours that its group gives it. The region r is what changed in the map, "
        f"widened by {settings.dilation:.0%} of the width. Last column: the change of the picture, "
        f"{GAIN} times as large. Outside r it is {finite_mean(apart['background']):.4f} on "
        f"background pixels and {finite_mean(apart['rest']):.4f} elsewhere, on average over the "
        f"edits. {_worst(facts)} The right half of the table is the same edit with the image term "
        "inside r too.\n\n" + figures
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
            made = finished(
                transfer(
                    studio.generator,
                    a,
                    b,
                    what=what,
                    region=[region],
                    settings=studio.edit_settings,
                )
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
    figures = table(
        ["region, what", "change inside the region", "outside", "SSIM outside"],
        [[name, *(f"{f[k]:.4f}" for k in ("change_inside", "change_outside", "ssim_outside"))]
         for name, f in facts.items()],
    )  # fmt: skip
    caption = (
        f"Face A (seed {first}) takes a region from face B (seed {second}, seen from another "
        "side). Appearance: the code is exchanged, at once. Geometry: the map inside the region "
        f"becomes that of B rendered at A's pose, and A's geometry offsets follow "
        f"({studio.iterations} steps, Eq. 11). Both: first the one, then the other.\n\n"
        + "\n".join(figures)
    )
    return Figure(studio.sheet(columns, rows), caption, facts)
