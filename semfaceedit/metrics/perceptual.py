"""Features of VGG-16 as a distance between pictures, on weights that the user provides.

The network is the plain stack of 3 x 3 convolutions with ReLU and 2 x 2 maximum pooling, up to the
last ReLU of its fourth block. Weights come from a local file in the public key layout
(`features.N.weight`), or from the published file when a download is asked for.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import UserError
from ..files import check_regular, sha256_of_file
from ..tensor_files import reason_of

URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
HASH_PREFIX = "397923af"  # of the published file's SHA-256
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))  # convolutions before each pool
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pictures it was trained on
SMALLEST = 8  # pixels: three poolings must leave something


class PerceptualFeatures(nn.Module):
    """A distance of pictures (B, 3, H, W) in [-1, 1]: mean squared difference of features.

    The features are those of the last ReLU of each block, scaled to unit length over channels, so
    that every block and every place counts alike; the four means are added.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict()  # under the indices of the published file
        self.taps: list[int] = []
        index, channels = 0, 3
        for block in BLOCKS:
            for width in block:
                self.features[str(index)] = nn.Conv2d(channels, width, 3, padding=1)
                channels, index = width, index + 2
            self.taps.append(index - 2)
            index += 1
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def maps(self, pictures: Tensor) -> list[Tensor]:  # (B, 3, H, W) in [-1, 1]
        """Unit-length features of each block."""
        if min(pictures.shape[-2:]) < SMALLEST:
            raise UserError(
                f"VGG features need pictures of at least {SMALLEST} pixels, got "
                f"{tuple(pictures.shape[-2:])}: use a larger --resolution, or no VGG weights"
            )
        h = ((pictures + 1) / 2 - self.mean) / self.std
        found: list[Tensor] = []
        for index, convolution in self.features.items():
            if int(index) - 3 in self.taps:  # the first convolution of a block
                h = nn.functional.max_pool2d(h, 2)
            h = convolution(h).relu()
            if int(index) in self.taps:
                found.append(nn.functional.normalize(h, dim=1))
        return found

    def forward(self, pictures: Tensor, target: Tensor) -> Tensor:  # scalar
        pairs = zip(self.maps(pictures), self.maps(target), strict=True)
        return torch.stack([(a - b).square().sum(1).mean() for a, b in pairs]).sum()


def load_perceptual(
    path: Path | None = None,
    *,
    download: bool = False,
    device: torch.device | str = "cpu",
) -> tuple[PerceptualFeatures, str]:
    """The network with weights of `path`, or of the published file; and a line on their origin.

    path: a `.pth` state dict (read without executing anything in it) or a `.safetensors` file.
    download: fetch the published file through torch.hub, checked against its hash.
    """
    if path is None and not download:
        raise UserError(
            "the VGG term needs weights: give --vgg-weights FILE (torchvision's vgg16), or "
            "--download-vgg to fetch them"
        )
    if path is None:
        state = torch.hub.load_state_dict_from_url(
            URL, map_location="cpu", check_hash=True, weights_only=True
        )
        origin = f"VGG-16 weights: {URL}, checked against its hash"
    else:
        state, origin = _read(path), f"VGG-16 weights: {path}, {_checksum(path)}"
    network = PerceptualFeatures()
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in state or state[name].shape != tensor.shape:
            raise UserError(
                f"{path or URL}: no {name} of shape {tuple(tensor.shape)} in it: give a state dict "
                "of torchvision's vgg16"
            )
    network.load_state_dict({name: state[name].float() for name in wanted})
    return network.to(device), origin


def _read(path: Path) -> dict[str, Tensor]:
    try:
        check_regular(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"--vgg-weights {path}: no such file") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"--vgg-weights {path}: cannot be read: {reason_of(error)}") from None
    except Exception:  # a pickle of anything else than tensors, or none
        raise UserError(
            f"--vgg-weights {path}: not a state dict: it is damaged, or of another kind"
        ) from None
    if not isinstance(state, dict):
        raise UserError(f"--vgg-weights {path}: holds no state dict")
    return state


def _checksum(path: Path) -> str:
    digest = sha256_of_file(path)
    verdict = "the published file" if digest.startswith(HASH_PREFIX) else "not the published file"
    return f"sha256 {digest} ({verdict})"
