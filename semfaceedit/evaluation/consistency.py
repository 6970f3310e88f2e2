"""3-D consistency: views against one another, and inverted procedural heads against the truth."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..metrics.pictures import psnr, rgb_change, ssim
from ..metrics.reprojection import carry, normal_angle, sample
from ..metrics.segmentation import segmentation_score
from ..model import config_values
from ..model.checkpoint import discriminators_beside, load_discriminators, load_state
from ..model.codes import Codes
from ..model.discriminator import Discriminator, build_discriminators, image_input
from ..model.labels import one_hot
from ..model.mean_face import mean_codes
from ..model.renderer import RenderOutput, render
from ..pictures.grids import normals
from ..procedural.render import FaceBatch, render_faces
from ..tensor_files import hash_tensors
from .inversion import kept_pairs, load_project, pair_count, pair_inputs
from .pictures import first_generated, float_images, poses_of, sampled_faces
from .session import HELD_OUT, Evaluation, Unmeasured

TURNS = ((0.15, 0.0), (0.3, 0.0), (-0.3, 0.0), (0.0, 0.15))  # radians from the frontal view
NOVEL = ((-0.4, 0.0), (0.0, 0.0), (0.4, 0.0))  # yaw, pitch
TRUTH_HEADS = 16  # procedural heads whose own reprojection error shows the measure's floor
POSE_HEADS = 10_000  # offset of the seeds on which D_c is tested
POSE_PICTURES = 200


def consistency(evaluation: Evaluation) -> None:
    results, options = evaluation.results, evaluation.options
    inputs = {**evaluation.basis, "faces": options.faces}
    results.attempt("consistency.reprojection", inputs, lambda: reprojection(evaluation))
    inputs = {
        **evaluation.basis,
        "pairs": [pair_inputs(evaluation, i) for i in range(pair_count(evaluation))],
    }
    results.attempt("consistency.ground_truth", inputs, lambda: ground_truth(evaluation))
    inputs = {**evaluation.generated_inputs, "count": options.count, "data": evaluation.source,
              "discriminator": _fingerprint(evaluation)}  # fmt: skip
    results.attempt("consistency.pose", inputs, lambda: pose_accuracy(evaluation))


@torch.no_grad()
def reprojection(evaluation: Evaluation) -> dict[str, Any]:
    """Depth, colour and group of frontal views carried into turned ones, in world units.

    `procedural_heads`: the same of ground truth, where all that is left is sampling.
    """
    faces = evaluation.options.faces
    heads = range(HELD_OUT, HELD_OUT + min(TRUTH_HEADS, faces))

    def generated(indices: range, pose: Tensor) -> RenderOutput:
        codes, _ = sampled_faces(evaluation.generator, indices, evaluation.options.seed)
        return _view(evaluation, codes, pose)

    def truth(seeds: range, pose: Tensor) -> RenderOutput:
        return as_output(
            render_faces(seeds, evaluation.resolution, evaluation.config.model.camera, pose)
        )

    return {
        "faces": faces,
        "generated": _carried(evaluation, generated, range(faces)),
        "procedural_heads": _carried(evaluation, truth, heads),
    }


View = Callable[[range, Tensor], RenderOutput]


def _carried(evaluation: Evaluation, view: View, faces: range) -> dict[str, Any]:
    """Figures of each turn, pooled over faces."""
    step = evaluation.options.batch
    found = {}
    for turn in TURNS:
        pooled: dict[str, list[Tensor]] = {}
        for start in range(faces.start, faces.stop, step):
            part = range(start, min(start + step, faces.stop))
            front, side = (torch.tensor([p] * len(part)) for p in ((0.0, 0.0), turn))
            figures = _carried_values(evaluation, view(part, front), view(part, side), front, side)
            for name, found_here in figures.items():
                pooled.setdefault(name, []).append(found_here)
        values = {name: torch.cat(parts).double() for name, parts in pooled.items()}
        found[f"yaw {turn[0]:g} pitch {turn[1]:g}"] = {
            "depth_mean": values["depth"].mean(),
            "depth_median": _median(values["depth"]),
            "color_mean": values["color"].mean(),
            "same_group": values["group"].mean(),
            "hidden": values["hidden"].mean(),
            "pixels": len(values["depth"]),
        }
    return found


def _carried_values(
    evaluation: Evaluation, a: RenderOutput, b: RenderOutput, pose_a: Tensor, pose_b: Tensor
) -> dict[str, Tensor]:
    """|depth error|, |colour error|, same group, and hidden, of the head's pixels of view a."""
    camera, table = evaluation.config.model.camera, evaluation.generator.group_table
    pose_a, pose_b = pose_a.to(a.depth), pose_b.to(a.depth)
    carried = carry(a.depth[:, 0], pose_a, b.depth[:, 0], pose_b, camera)
    head = a.labels > 0
    seen = carried.seen & head
    colors = rgb_change(a.image, sample(b.image, carried.place))
    groups = [table(view.labels.to(evaluation.device)).to(a.depth) for view in (a, b)]
    landed = sample(groups[1][:, None], carried.place, "nearest")[:, 0]
    return {
        "depth": carried.behind.abs()[seen].cpu(),
        "color": colors[seen].cpu(),
        "group": (landed == groups[0])[seen].cpu(),
        "hidden": carried.hidden[carried.valid & head].cpu(),
    }


@torch.no_grad()
def ground_truth(evaluation: Evaluation) -> dict[str, Any]:
    """Inverted procedural heads, and the mean face, against the heads themselves."""
    if not evaluation.procedural:
        raise Unmeasured("only procedural faces have known depth and other views: leave out --data")
    rows: dict[str, list[dict[str, float]]] = {}
    for kept in kept_pairs(evaluation):
        project = load_project(evaluation, kept["index"])
        true_pose = torch.tensor([kept["true_pose"]])
        for face, codes, pose in (
            ("inverted", project.codes(evaluation.generator), project.pose[None]),
            ("mean_face", mean_codes(evaluation.generator), true_pose),
        ):
            views = {"own pose": (pose, true_pose)}
            views |= {f"yaw {p[0]:g}": (torch.tensor([p]),) * 2 for p in NOVEL}
            for name, (rendered, true) in views.items():
                row = against_truth(evaluation, codes, rendered, true, kept["seed"])
                rows.setdefault(f"{face}/{name}", []).append(row)
    table: dict[str, Any] = {"heads": len(next(iter(rows.values())))}
    for key, found in rows.items():
        face, name = key.split("/")
        table.setdefault(face, {})[name] = {
            figure: float(np.nanmean([row[figure] for row in found])) for figure in found[0]
        }
    return table


def against_truth(
    evaluation: Evaluation, codes: Codes, pose: Tensor, true_pose: Tensor, seed: int
) -> dict[str, float]:
    """A rendering against a procedural head seen from `true_pose`; depths in world units.

    Depth and normals are compared where both show the head. relief: the depth error once the
    median difference is taken out, so that a face that is too near or too far as a whole is right.
    """
    camera, groups = evaluation.config.model.camera, evaluation.config.model.group_of_class
    made = _view(evaluation, codes, pose)
    truth = as_output(render_faces([seed], evaluation.resolution, camera, true_pose))
    image, semantics, depth = made.image.cpu(), made.semantics.cpu(), made.depth.cpu()
    made = RenderOutput(image, semantics, depth, made.weights.cpu())
    both = (made.labels > 0) & (truth.labels > 0)
    gap = (made.depth - truth.depth)[:, 0][both]
    angles = normal_angle(normals(made, camera), normals(truth, camera))[both]
    score = segmentation_score(made.labels, truth.labels, groups)
    return {
        "depth": float(gap.abs().mean()),
        "relief": float((gap - _median(gap)).abs().mean()),
        "normals": float(angles.mean()),
        "groups": score.groups,
        "classes": score.classes,
        "psnr": float(psnr(made.image, truth.image)),
        "ssim": float(ssim(made.image, truth.image)),
    }


def as_output(faces: FaceBatch) -> RenderOutput:
    """Procedural heads in the form of a rendering."""
    weights = torch.zeros(len(faces.images), 1)
    return RenderOutput(faces.images, one_hot(faces.labels), faces.depth[:, None], weights)


def pose_accuracy(evaluation: Evaluation) -> dict[str, Any]:
    """How well D_c tells yaw and pitch (radians) of generated and of real pictures."""
    network, origin = image_discriminator(evaluation)
    resolution = evaluation.resolution
    if str(resolution) not in network.adapters:
        sizes = ", ".join(network.adapters)
        raise Unmeasured(f"D_c was trained at {sizes} pixels, not at {resolution}")
    count = min(POSE_PICTURES, evaluation.options.count)
    made = list(first_generated(evaluation, count))
    images = float_images(torch.cat([chunk.images for chunk in made]))
    maps = one_hot(torch.cat([chunk.labels for chunk in made]))
    sets = {"generated": (images, maps, poses_of(evaluation, count))}
    if evaluation.procedural:
        start = HELD_OUT + POSE_HEADS
        heads = render_faces(range(start, start + count), resolution)
        sets["held_out_heads"] = (heads.images, one_hot(heads.labels), heads.poses.numpy())
    else:
        known = np.nonzero(np.isfinite(evaluation.data.poses).all(1))[0][:count]
        if len(known):
            batch = evaluation.data.batch(known, [False] * len(known), resolution)
            sets["real, estimated poses"] = (batch.images, batch.semantics, batch.poses.numpy())
    found: dict[str, Any] = {"discriminator": origin}
    for name, (images, maps, poses) in sets.items():
        pictures = image_input(network, images, 2 * maps - 1)
        with torch.no_grad():
            told = torch.cat([network(part)[1] for part in pictures.split(32)]).numpy()
        found[name] = {"pictures": len(images), **pose_errors(told, poses)}
    return found


def pose_errors(told: np.ndarray, poses: np.ndarray) -> dict[str, Any]:
    """Mean |error| and correlation of yaw and pitch; `guess` is the error of the set's median."""
    found: dict[str, Any] = {}
    for axis, name in enumerate(("yaw", "pitch")):
        true, ours = poses[:, axis].astype(np.float64), told[:, axis].astype(np.float64)
        varies = len(true) > 2 and true.std() > 0 and ours.std() > 0
        found[name] = {
            "error": np.abs(ours - true).mean(),
            "guess": np.abs(true - np.median(true)).mean(),
            "correlation": np.corrcoef(true, ours)[0, 1] if varies else np.nan,
        }
    return found


def _fingerprint(evaluation: Evaluation) -> str | None:
    """What tells D_c from those of other runs and steps; None where there is none."""
    try:
        return hash_tensors(image_discriminator(evaluation)[0].state_dict())
    except Unmeasured:
        return None


def image_discriminator(evaluation: Evaluation) -> tuple[Discriminator, str]:
    """D_c of the checkpoint's own run, and where it was found (a file's name)."""
    options, model = evaluation.options, evaluation.config.model
    beside = discriminators_beside(evaluation.weights)
    if options.run_folder is None and beside.is_file():
        networks, run = load_discriminators(beside)
        network, origin = networks[0], beside.name
    else:
        folder = options.run_folder or evaluation.weights.parent
        try:
            state = load_state(folder, flag="--run-folder")
        except UserError:
            if options.run_folder is not None:
                raise
            raise Unmeasured(
                f"no discriminators: neither {beside.name} beside the checkpoint nor a usable "
                f"state-*.pt in {folder} (give --run-folder)"
            ) from None
        run = config_values.from_dict(json.loads(state["config"]))
        network = build_discriminators(run)[0]
        network.load_state_dict(state["d_image"])
        origin = f"state of step {state['completed']}"
    if run.model != model:
        raise Unmeasured(
            "the discriminators found are of a run with another model: give --run-folder"
        )
    return network.eval().requires_grad_(False), origin


def _view(evaluation: Evaluation, codes: Codes, pose: Tensor) -> RenderOutput:
    return render(
        evaluation.generator,
        codes,
        pose.to(evaluation.device),
        evaluation.resolution,
        chunk_rays=evaluation.options.chunk_rays,
    )


def _median(values: Tensor) -> float:
    return float(values.median()) if len(values) else float("nan")
