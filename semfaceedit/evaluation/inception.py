"""Inception-v3 features through torch-fidelity, on weights that the user provides or asks for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from ..files import sha256_of_file
from .session import EvaluateOptions, Unmeasured

URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
EXTRACTOR, LAYER = "inception-v3-compat", "2048"
RESIZE = "bilinear to 299x299 as TensorFlow 1 does, in torch-fidelity's inception-v3-compat"


@dataclass(frozen=True)
class Inception:
    """8-bit pictures (B, 3, H, W) -> features (B, 2048) on the CPU; and the weights' SHA-256."""

    features: Callable[[Tensor], Tensor]
    sha256: str


def asked_for(options: EvaluateOptions) -> bool:
    return options.inception_weights is not None or options.download_inception


def load_inception(options: EvaluateOptions, device: torch.device) -> Inception:
    """The network of the options; `Unmeasured` with the reason where it cannot be had."""
    if not asked_for(options):
        raise Unmeasured(
            "no Inception weights: give --inception-weights FILE "
            "(weights-inception-2015-12-05-6726825d.pth of torch-fidelity), or --download-inception"
        )
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise Unmeasured(
            f"torch-fidelity cannot be imported ({error}): pip install 'semfaceedit[metrics]'"
        ) from None
    path = options.inception_weights or _downloaded()
    _check_tensors(path)  # the extractor reads the file without such a check
    try:
        network = FeatureExtractorInceptionV3(
            EXTRACTOR, [LAYER], feature_extractor_weights_path=str(path)
        ).to(device)
    except (RuntimeError, KeyError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise Unmeasured(f"--inception-weights {path}: not of that network: {first}") from None

    @torch.no_grad()
    def features(pictures: Tensor) -> Tensor:
        return network(pictures.to(device))[0].float().cpu()

    return Inception(features, sha256_of_file(path))


def weights_key(options: EvaluateOptions) -> str:
    """What results are told apart by: the weights' SHA-256, or that they are downloaded."""
    path = options.inception_weights
    if path is None or not path.is_file():
        return "downloaded" if options.download_inception else "none"
    return sha256_of_file(path)


def _downloaded() -> Path:
    try:
        torch.hub.load_state_dict_from_url(
            URL, map_location="cpu", check_hash=True, weights_only=True, progress=True
        )
    except (OSError, RuntimeError) as error:
        raise Unmeasured(f"--download-inception: {URL}: {error}") from None
    return Path(torch.hub.get_dir()) / "checkpoints" / URL.rsplit("/", 1)[1]


def check_file(path: Path) -> None:
    """UserError where `path` is no file of tensors."""
    if path.is_dir():
        raise UserError(f"--inception-weights {path} is a folder: give the file of weights in it")
    if not path.is_file():
        raise UserError(f"--inception-weights {path}: no such file: check the path")
    _check_tensors(path)


def _check_tensors(path: Path) -> None:
    """The file holds tensors alone, so that reading it executes nothing."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Unmeasured(f"--inception-weights {path}: no such file") from None
    except Exception as error:  # torch reports damage and foreign objects in many types
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unmeasured(f"--inception-weights {path}: not a state dict: {first}") from None
