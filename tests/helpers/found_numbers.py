"""What is drawn, solved and summed before training and in evaluations, from fixed inputs."""

import numpy as np
import torch
from face_maps import draw_labels

from semfaceedit.data.align import fit_window
from semfaceedit.data.pose import estimate_pose, landmarks_from_labels
from semfaceedit.editing.encoder import flat_film, principal_components
from semfaceedit.metrics import distances
from semfaceedit.metrics.pictures import PixelFrechet, pixel_features, psnr, ssim
from semfaceedit.model.camera import CameraConfig, sample_poses
from semfaceedit.model.checkpoint import load_generator
from semfaceedit.model.generator import sample_latents
from semfaceedit.parsing.head_pose import _mean_mesh, pose_from_mesh


def smooth_pictures(count: int, seed: int) -> torch.Tensor:
    """(count, 3, 32, 32) in [-1, 1], smooth, and all different."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=random, dtype=torch.float64)
    fine = torch.nn.functional.interpolate(coarse, 32, mode="bilinear")
    return (2 * fine - 1).float()


@torch.no_grad()
def found_numbers() -> dict[str, np.ndarray]:
    """By name; torch's number of threads is that of the caller."""
    found: dict[str, np.ndarray] = {}

    def keep(name: str, value: object) -> None:
        tensor = value.detach() if isinstance(value, torch.Tensor) else value
        found[name] = np.asarray(tensor)

    generator, run = load_generator(None)
    mean = generator.mean_codes(2_000)
    for name, film in (("geometry", mean.geometry), ("appearance", mean.appearance)):
        keep(f"mean frequencies of {name}", film.frequencies)
        keep(f"mean phases of {name}", film.phases)
    random = torch.Generator().manual_seed(3)
    for name, latents in zip(
        ("z", "looks"), sample_latents(run.model, 9, generator=random), strict=True
    ):
        keep(f"latents {name}", latents)
    keep("poses", sample_poses(9, CameraConfig(), generator=random))
    latents, _ = sample_latents(run.model, 1024, generator=random)
    films = generator.map(latents, latents[:, None].expand(-1, run.model.groups, -1))
    keep("components", principal_components(flat_film(films.geometry - mean.geometry), 64))

    real, made = smooth_pictures(400, 0), smooth_pictures(400, 1)
    features, others = pixel_features(real), pixel_features(made)
    for name, some in (("few", features[:200]), ("many", features.repeat(2, 1))):
        keep(
            f"pixel Frechet, {name}",
            PixelFrechet.from_features(some).distance(pixel_features(made)),
        )
    keep("Frechet", distances.gaussian_distance(features[:, :40], others[:, :40]))
    keep("kernel", distances.kernel_distance(features, others, 0).mean)
    parts = [distances.descriptors(x[:400], 0, 8, 0)[0] for x in (real, made)]
    units = distances.directions(parts[0].shape[1], 0)
    keep("directions", units)
    keep("sliced Wasserstein", distances.sliced_wasserstein(*parts, units))
    keep("spread", distances.spread(parts[0]))
    keep("SSIM", ssim(real[:8], made[:8]))
    keep("PSNR", psnr(real[:8], made[:8]))

    labels = draw_labels(96, 0.2)
    landmarks = landmarks_from_labels(labels)
    assert landmarks is not None
    window = fit_window(landmarks)
    assert window is not None
    keep("window", [window.left, window.top, window.side])
    keep("pose of a map", estimate_pose(landmarks.points / 48 - 1))
    keep("pose of a mesh", pose_from_mesh(_mean_mesh() * (1, -1, -1) + 0.01 * np.cos(np.arange(3))))
    return found
