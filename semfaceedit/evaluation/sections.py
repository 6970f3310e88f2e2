"""The sections of report.md: what each question's figures look like as text and tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .tables import format_number, table


def _distances(values: Mapping[str, Any], _timings: Mapping[str, Any]) -> list[str]:
    rows = []
    names = {"fid": "FID", "kid": "KID x 1000", "sliced_wasserstein": "sliced Wasserstein x 1000",
             "pixel_frechet": "pixel Frechet"}  # fmt: skip
    for name, label in names.items():
        if name in values:
            found = values[name]
            counts = found.get("pictures") or f"{found['real']} / {found['generated']}"
            rows.append([label, found["distance"], found.get("real_halves"), counts])
            for size, level in found.get("levels", {}).items():
                rows.append([f"… at {size}x{size}", level["distance"], level["real_halves"], ""])
    head = [
        "distance",
        "generated to real",
        "real half to real half",
        "pictures (real / generated)",
    ]
    lines = table(head, rows)
    for name in ("fid", "kid"):
        if name in values:
            found = values[name]
            lines += ["", f"{names[name]}: {found['extractor']}, {found['resize']}, weights sha256 "
                          f"{found['weights_sha256'][:16]}."]  # fmt: skip
    return lines


def _semantics(values: Mapping[str, Any], timings: Mapping[str, Any]) -> list[str]:
    lines = _distances(values, timings)
    if "agreement" in values:
        found = values["agreement"]
        made, held = found["generated"], found["held_out"]
        lines += [
            "",
            "Agreement of rendered maps with a parse of the rendered pictures by a network trained "
            f"on the data ({found['generated_pictures']:,} generated pictures); the second column "
            f"is its own score on {found['held_out_pictures']:,} held-out real pictures.",
            "",
            *table(
                ["IoU", "generated", "held out"],
                [["mean over groups", made["groups"], held["groups"]],
                 ["mean over classes", made["classes"], held["classes"]],
                 *([name, made["per_group"][name], held["per_group"][name]]
                   for name in made["per_group"])],
            ),
        ]  # fmt: skip
    if "areas" in values:
        found = values["areas"]
        keys = ("real_area", "generated_area", "real_presence", "generated_presence")
        parts = found["classes"]
        if "agreement" in values:
            parsed = values["agreement"]
            extra = ["parse IoU, generated", "parse IoU, held out"]
            more = {
                n: [parsed[k]["per_class"][n] for k in ("generated", "held_out")] for n in parts
            }
        else:
            extra, more = [], {name: [] for name in parts}
        lines += [
            "",
            f"Class areas (total variation {format_number(found['total_variation'])}):",
            "",
            *table(
                ["class", "area, real", "area, generated", "shown in, real", "shown in, generated",
                 *extra],
                [[name, *(parts[name][key] for key in keys), *more[name]] for name in parts],
            ),
        ]  # fmt: skip
    return lines


def _novelty(values: Mapping[str, Any], _timings: Mapping[str, Any]) -> list[str]:
    found = values[""]
    rows = [
        [space, who.replace("_", " "), *part[who].values(),
         part["nearer_than_any_held_out"] if who == "generated" else None]
        for space, part in found["spaces"].items()
        for who in ("generated", "held_out")
    ]  # fmt: skip
    quantiles = next(iter(found["spaces"].values()))["generated"]
    return [
        f"Distance to the nearest of {found['training']:,} pictures of training and their mirror "
        f"images, of {found['generated']:,} generated faces and of {found['held_out']:,} pictures "
        "of others: root mean square differences in units of their spread over training.",
        "",
        *table(["in", "pictures", *quantiles, "nearer than any held out"], rows),
    ]


def _inversion(values: Mapping[str, Any], timings: Mapping[str, Any]) -> list[str]:
    found, speed = values[""], timings.get("", {}).get("seconds_per_iteration")
    marks = _marks(found["iterations"], found["first_appearance_iteration"])
    rows = []
    for label, name in (("mIoU over groups", "groups"), ("mIoU over classes", "classes"),
                        ("PSNR, dB", "psnr"), ("SSIM", "ssim")):  # fmt: skip
        rows.append([label, *(found[name]["mean"][place] for place in marks)])
    for name, curve in found["per_group"].items():
        rows.append([f"IoU of {name}", *(curve[place] for place in marks)])
    first, last = found["first_pose_error"], found["pose_error"]
    lines = [
        f"{found['pairs']} faces ({found['skipped']} skipped), VGG term: {found['vgg_term']}. The "
        f"first {found['first_appearance_iteration']} iterations move the geometry alone. "
        f"Seconds an iteration: {format_number(speed)}.",
        "",
        *table(["at iteration", *(found["iterations"][place] for place in marks)], rows),
    ]
    if first["yaw"] is not None:
        lines += [
            "",
            f"Pose error (radians, mean): yaw {format_number(first['yaw'])} as estimated at the "
            f"start, {format_number(last['yaw'])} after the search; pitch "
            f"{format_number(first['pitch'])} and {format_number(last['pitch'])}.",
        ]
    classes = [
        [name, found["first_per_class"][name], value]
        for name, value in found["per_class"].items()
        if value is not None
    ]
    lines += ["", *table(["class", "IoU of the mean face", "IoU at the end"], classes)]
    return [*lines, *from_encoder(values, timings)]


def from_encoder(values: Mapping[str, Any], timings: Mapping[str, Any]) -> list[str]:
    """What `evaluate inversion` says of the encoder's way; nothing where there is none."""
    if "encoder" not in values:
        return []
    found, seconds = values["encoder"], timings.get("encoder", {}).get("seconds_per_face")
    ends = {f"{count} iterations": row for count, row in found["after"].items()}
    ends["as `invert` ends"] = found["end"]
    names = {"groups": "mIoU over groups", "classes": "mIoU over classes", "psnr": "PSNR, dB"}
    rows = [[label, *(row[name] for row in ends.values())] for name, label in names.items()]
    lines = [
        "",
        f"From what the encoder reads ({found['pairs']} faces); the `invert` command takes "
        f"{format_number(found['end']['iterations'])} iterations and {format_number(seconds)} "
        "seconds a face.",
        "",
        *table(["", *ends], rows),
    ]
    if "depth_error" in found:
        error = {name: format_number(value) for name, value in found["depth_error"].items()}
        lines += [
            "",
            f"Depth error over the head (world units): encoder alone {error['encoder']}, inverted "
            f"from it {error['from_encoder']}, inverted from the mean face {error['plain']}, mean "
            f"face {error['mean_face']}.",
        ]
    return lines


def _marks(iterations: Sequence[int], stage: int) -> list[int]:
    """Places of a few iterations: first, 20, 50, 100, where the stage changes, last."""
    wanted = sorted({iterations[0], 20, 50, 100, stage, iterations[-1]} & set(iterations))
    return [iterations.index(iteration) for iteration in wanted]


def _editing(values: Mapping[str, Any], timings: Mapping[str, Any]) -> list[str]:
    found, seconds = values[""], timings.get("", {}).get("seconds_per_edit", {})
    heads = {"labels_inside": "labels as painted", "change_inside": "change inside",
             "change_outside": "change outside", "ssim_outside": "SSIM outside",
             "identity": "identity"}  # fmt: skip
    rows = [
        [name, part["faces"], *(part[key] for key in heads), seconds.get(name)]
        for name, part in found["edits"].items()
    ]
    start = "from what the encoder reads" if found["from_encoder"] else "from the face as it is"
    return [
        f"Label maps of {found['faces']} generated faces, painted over by code and followed "
        f"{start} (Eq. 10; VGG term: {found['vgg_term']}), by those that can take the edit. "
        "Inside is what was painted, widened a little; changes are means of |RGB| in [0, 1]. "
        "Identity is 1 less the distance that the geometry codes moved, in mean distances of two "
        "generated faces; appearance codes stay. Seconds are medians.",
        "",
        *table(["edit", "faces", *heads.values(), "seconds"], rows),
    ]


def _locality(values: Mapping[str, Any], _timings: Mapping[str, Any]) -> list[str]:
    found = values[""]
    keys = ("inside", "outside", "far", "leak_outside", "leak_far", "share")
    rows = [[name, *(part[key] for key in keys)] for name, part in found["per_group"].items()]
    both = ("appearance_changed", "geometry_changed")
    figures = {"labels": "pixels whose class changes", "depth": "mean change of depth",
               "colors": "mean change of colour where the group stays",
               "group_colors": "mean change of a group's mean colour"}  # fmt: skip
    return [
        f"Mean change of RGB (in [0, 1], averaged over channels) when one group's appearance code "
        f"changes, over {found['faces']} faces: inside the group's pixels, outside, and more than "
        "two pixels away; leakage is the ratio to the inside.",
        "",
        *table(["group", "inside", "outside", "far", "leakage", "far leakage", "area"], rows),
        "",
        "All codes of one kind exchanged for another face's, the others kept:",
        "",
        *table(
            ["", "appearance changes", "geometry changes"],
            [[label, *(found[which][key] for which in both)] for key, label in figures.items()],
        ),
    ]


def _consistency(values: Mapping[str, Any], _timings: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    if "reprojection" in values:
        found = values["reprojection"]
        keys = ("depth_mean", "depth_median", "color_mean", "same_group", "hidden")
        rows = [
            [who, turn, *(figures[key] for key in keys)]
            for who, label in (("generated", "generated"), ("procedural heads", "procedural_heads"))
            for turn, figures in found[label].items()
        ]
        lines += [
            f"Frontal views carried into turned ones by their depth ({found['faces']} faces; world "
            "units, the head is about 0.2 wide). Ground truth of procedural heads shows what "
            "sampling alone costs.",
            "",
            *table(["faces", "turn", "depth error", "median", "colour error", "same group",
                    "hidden"], rows),
        ]  # fmt: skip
    if "ground_truth" in values:
        found = values["ground_truth"]
        shown = ("depth", "relief", "normals", "groups", "classes", "psnr", "ssim")
        rows = [
            [who.replace("_", " "), view, *(figures[key] for key in shown)]
            for who in ("inverted", "mean_face")
            for view, figures in found[who].items()
        ]
        lines += [
            "",
            f"Inverted procedural heads ({found['heads']}) against the heads themselves, also from "
            "sides that the inversion has not seen; the mean face shows what no inversion gives. "
            "Relief is the depth error without the median difference.",
            "",
            *table(["face", "view", "depth error", "relief error", "normals, degrees",
                    "mIoU groups", "mIoU classes", "PSNR, dB", "SSIM"], rows),
        ]  # fmt: skip
    if "pose" in values:
        found = values["pose"]
        rows = [
            [name.replace("_", " "), axis, part["pictures"],
             *(part[axis][key] for key in ("error", "guess", "correlation"))]
            for name, part in found.items() if name != "discriminator"
            for axis in ("yaw", "pitch")
        ]  # fmt: skip
        lines += [
            "",
            f"Pose by D_c ({found['discriminator']}), radians; a guess of the median would err by "
            "the third figure:",
            "",
            *table(["pictures", "angle", "count", "mean error", "guess", "correlation"], rows),
        ]
    return lines[1:] if lines[:1] == [""] else lines


def _cost(values: Mapping[str, Any], timings: Mapping[str, Any]) -> list[str]:
    found = values[""]
    counts = ", ".join(f"{name} {count:,}" for name, count in found["parameters"].items())
    rows = [
        [
            entry["resolution"],
            entry["backend"],
            (found["flops"].get(str(entry["resolution"])) or float("nan")) / 1e9,
            entry["milliseconds"],
            entry["peak_bytes"] / 2**20,
        ]
        for entry in timings.get("", {}).get("pictures", [])
    ]
    return [
        f"Parameters: {counts}.",
        "",
        *table(["resolution", "backend", "GFLOP", "ms a picture", "peak MiB"], rows),
        "",
        "Peak memory is the device's on a GPU, that of the whole process on a CPU.",
        *(f"\n{case}: {why}" for case, why in found["failed"].items()),
    ]


SECTIONS: dict[str, tuple[str, Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]]]] = {
    "quality": ("Pictures", _distances),
    "semantics": ("Semantic maps", _semantics),
    "novelty": ("Novelty", _novelty),
    "inversion": ("Inversion", _inversion),
    "editing": ("Editing", _editing),
    "locality": ("Disentanglement", _locality),
    "consistency": ("3-D consistency", _consistency),
    "cost": ("Cost of a picture", _cost),
}
