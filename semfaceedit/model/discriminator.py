"""Discriminators: residual CoordConv blocks that halve the picture down to 2 x 2."""

import math

import torch
from torch import Tensor, nn

from ..errors import UserError
from .config import Config
from .labels import NUM_CLASSES
from .windows import Windows

LEAK = 0.2
IMAGE_CHANNELS = 3


class CoordConv(nn.Conv2d):
    """A 3 x 3 convolution that also sees each pixel's x and y in [-1, 1]."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(inputs + 2, outputs, 3, stride=stride, padding=1)

    def forward(self, x: Tensor, windows: Windows | None = None) -> Tensor:
        count, _, height, width = x.shape
        if windows is None:
            down = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)[None]
            across = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype)[None]
        else:
            across, down = windows.axes(width, x)
        size = count, height, width
        # Channels last, as the features are: `cat` would otherwise reorder those.
        grid = torch.stack([down[:, :, None].expand(size), across[:, None].expand(size)], 3)
        return super().forward(torch.cat([x, grid.permute(0, 3, 1, 2)], 1))


class ResidualBlock(nn.Module):
    """Two CoordConv layers, the second with stride 2, beside an averaged 1 x 1 path."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = CoordConv(inputs, outputs)
        self.second = CoordConv(outputs, outputs, stride=2)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, windows: Windows | None = None) -> Tensor:
        h = nn.functional.leaky_relu(self.first(x, windows), LEAK)
        h = nn.functional.leaky_relu(self.second(h, windows), LEAK)
        return (h + self.skip(nn.functional.avg_pool2d(x, 2))) / math.sqrt(2)


class Discriminator(nn.Module):
    """Picture -> realness (B,) and a regression (B, `outputs`).

    D_c reads images (where paired, with their semantic maps: see `image_input`) and regresses the
    pose; D_s reads semantic maps and regresses the geometry code. One network serves all
    `resolutions`: a lower one enters at a later block through its own 1 x 1 adapter. `fade` < 1
    mixes in the picture averaged to the resolution before. `windows` says of which parts of larger
    pictures `x` is: coordinates are those of the whole pictures.
    """

    def __init__(
        self, inputs: int, outputs: int, channels: tuple[int, ...], resolutions: tuple[int, ...]
    ):
        super().__init__()
        for resolution in resolutions:
            if resolution & (resolution - 1) or not 4 <= resolution <= 2 ** len(channels):
                raise UserError(
                    f"training resolution {resolution} must be a power of two from 4 to "
                    f"{2 ** len(channels)} (discriminator of {len(channels) - 1} blocks)"
                )
        self.inputs = inputs
        first = len(channels) - int(math.log2(max(resolutions)))
        used = channels[first:]
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b) for a, b in zip(used, used[1:], strict=False)
        )
        self.adapters = nn.ModuleDict(
            {
                str(r): nn.Conv2d(inputs, channels[len(channels) - int(math.log2(r))], 1)
                for r in sorted(set(resolutions))
            }
        )
        self.last = nn.Conv2d(channels[-1], 1 + outputs, 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=LEAK, nonlinearity="leaky_relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    @property
    def resolutions(self) -> list[int]:
        """Of the pictures that it reads."""
        return [int(name) for name in self.adapters]

    def forward(
        self, x: Tensor, fade: float = 1.0, windows: Windows | None = None
    ) -> tuple[Tensor, Tensor]:
        resolution = x.shape[-1]
        start = len(self.blocks) + 1 - int(math.log2(resolution))
        h = nn.functional.leaky_relu(self.adapters[str(resolution)](x), LEAK)
        h = self.blocks[start](h, windows)
        if fade < 1 and str(resolution // 2) in self.adapters:
            below = self.adapters[str(resolution // 2)](nn.functional.avg_pool2d(x, 2))
            h = torch.lerp(nn.functional.leaky_relu(below, LEAK), h, fade)
        for block in self.blocks[start + 1 :]:
            h = block(h, windows)
        out = self.last(h)[:, :, 0, 0]
        return out[:, 0], out[:, 1:]

    def take(self, other: "Discriminator") -> None:
        """Weights of a discriminator that may serve other resolutions: what both have is copied.

        Blocks are counted from the 2 x 2 end; channels must agree. Inputs that only this one reads
        start at weight 0, so that it first scores as the other did.
        """
        for mine, its in zip(reversed(self.blocks), reversed(other.blocks), strict=False):
            mine.load_state_dict(its.state_dict())
        for resolution in self.adapters.keys() & other.adapters.keys():
            values = other.adapters[resolution].state_dict()
            missing = max(self.inputs - other.inputs, 0)
            kept = values["weight"][:, : self.inputs]  # (C, inputs, 1, 1)
            values["weight"] = nn.functional.pad(kept, (0, 0, 0, 0, 0, missing))
            self.adapters[resolution].load_state_dict(values)
        self.last.load_state_dict(other.last.state_dict())


def build_discriminators(config: Config) -> tuple[Discriminator, Discriminator]:
    """D_c and D_s for every resolution that training visits."""
    resolutions = tuple(phase.seen for phase in config.train.phases)
    channels = config.discriminator.channels
    image_inputs = IMAGE_CHANNELS + NUM_CLASSES * config.discriminator.paired
    return (
        Discriminator(image_inputs, 2, channels, resolutions),
        Discriminator(NUM_CLASSES, config.model.latent_dim, channels, resolutions),
    )


def image_input(
    d_image: Discriminator,
    image: Tensor,  # (B, 3, H, W) in [-1, 1]
    semantics: Tensor,  # (B, N, H, W) in [-1, 1]
) -> Tensor:
    """What this D_c reads of a picture: the image, followed by its semantic map where `paired`."""
    return image if d_image.inputs == IMAGE_CHANNELS else torch.cat([image, semantics], 1)
