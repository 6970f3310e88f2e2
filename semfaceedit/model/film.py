"""FiLM-SIREN pieces shared by both modules: mapping networks and stacked parameters."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..kernels import FilmSirenWeights, film_siren
from .codes import Film

FREQUENCY_SCALE, FREQUENCY_SHIFT = 15.0, 30.0  # f^ = 15 f + 30 (pi-GAN)
SIREN_BOUND = 25.0  # trunk weights U(+-sqrt(6 / fan_in) / 25)
LEAK = 0.2  # LeakyReLU slope of the mapping networks
LAST_MAPPING_GAIN = 0.25  # keeps frequencies near 30 at the start


class MappingNetwork(nn.Module):
    """Latent code -> frequencies and phases of a stack's L FiLM layers and its view layer."""

    def __init__(self, latent: int, width: int, hidden_layers: int, layers: int, film_width: int):
        super().__init__()
        self.layers, self.film_width = layers, film_width
        sizes = [latent] + [width] * hidden_layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.last = nn.Linear(sizes[-1], 2 * (layers + 1) * film_width)
        for linear in (*self.hidden, self.last):
            nn.init.kaiming_normal_(linear.weight, a=LEAK, nonlinearity="leaky_relu")
        with torch.no_grad():
            self.last.weight.mul_(LAST_MAPPING_GAIN)

    def forward(self, z: Tensor) -> Film:  # (B, Z)
        with torch.autocast(z.device.type, enabled=False):  # 15 f reaches the sine in full
            for linear in self.hidden:
                z = nn.functional.leaky_relu(linear(z), LEAK)
            frequencies, phases = self.last(z).chunk(2, -1)  # (B, (L + 1) W) each
        shape = (-1, self.layers + 1, self.film_width)
        return Film(frequencies.reshape(shape), phases.reshape(shape))


class FilmSirenStack(nn.Module):
    """The parameters of one `film_siren` op: trunk, view layers and heads of all groups.

    `gains` multiplies the heads channel by channel: small models need outputs that move.
    """

    gains: Tensor

    def __init__(
        self,
        inputs: int,
        width: int,
        layers: int,
        groups: int,
        gains: Sequence[float],
        trunk_channels: int,
    ):
        super().__init__()
        channels = len(gains)
        self.trunk_channels = trunk_channels
        self.first_weight = nn.Parameter(torch.empty(width, inputs))
        self.first_bias = nn.Parameter(torch.empty(width))
        self.hidden_weight = nn.Parameter(torch.empty(layers - 1, width, width))
        self.hidden_bias = nn.Parameter(torch.empty(layers - 1, width))
        self.view_weight = nn.Parameter(torch.empty(groups, width, 3 + width))
        self.view_bias = nn.Parameter(torch.empty(groups, width))
        self.head_weight = nn.Parameter(torch.empty(groups, layers - 1, channels, width))
        self.head_bias = nn.Parameter(torch.empty(groups, layers - 1, channels))
        self.register_buffer("gains", torch.tensor(gains), persistent=False)
        self._unit_gain = all(gain == 1 for gain in gains)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """SIREN initialisation; biases U(+-1/sqrt(fan_in)), PyTorch's own rule."""
        pairs = (
            (self.first_weight, self.first_bias),
            (self.hidden_weight, self.hidden_bias),
            (self.view_weight, self.view_bias),
            (self.head_weight, self.head_bias),
        )
        for weight, bias in pairs:
            fan_in = weight.shape[-1]
            bound = math.sqrt(6 / fan_in) / SIREN_BOUND
            if fan_in <= 3:  # coordinates take the first-layer rule; a descriptor is a hidden layer
                bound = 1 / fan_in
            weight.uniform_(-bound, bound)
            bias.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def weights(
        self,
        channels: int | None = None,
        *,
        through: Tensor | None = None,  # (K, K)
        multiplied: bool = False,
    ) -> FilmSirenWeights:
        """The op's tensors, gains applied, with heads for the first `channels` (default: all).

        through: what multiplies the last K of all channels, folded into their heads. multiplied:
        the points are W_1 x already.
        """
        head_weight, head_bias = self.head_weight[:, :, :channels], self.head_bias[..., :channels]
        if not self._unit_gain:
            gains = self.gains[:channels]
            head_weight, head_bias = head_weight * gains[:, None], head_bias * gains
        if through is not None:
            head_weight, head_bias = _folded(head_weight, head_bias, through)
        first_weight: Tensor = self.first_weight
        if multiplied:
            first_weight = first_weight.new_empty(len(first_weight), 0)
        return FilmSirenWeights(
            first_weight, self.first_bias, self.hidden_weight, self.hidden_bias,
            self.view_weight, self.view_bias, head_weight, head_bias,
        )  # fmt: skip

    def forward(
        self,
        points: Tensor,  # (P, I), or (P, W)
        directions: Tensor,  # (P, 3)
        film: Film,  # (M, L + 1, W)
        row_offsets: Tensor,  # (M + 1,)
        row_groups: Tensor,  # (M,)
        *,
        channels: int | None = None,  # the first C' outputs alone
        through: Tensor | None = None,  # (K, K), of the last K outputs
        multiplied: bool = False,  # the points are W_1 x
    ) -> Tensor:  # (P, C), or (P, C')
        return film_siren(
            points,
            directions,
            FREQUENCY_SCALE * film.frequencies + FREQUENCY_SHIFT,
            film.phases,
            row_offsets,
            row_groups,
            self.weights(channels, through=through, multiplied=multiplied),
            trunk_channels=self.trunk_channels,
        )


def _folded(head_weight: Tensor, head_bias: Tensor, through: Tensor) -> tuple[Tensor, Tensor]:
    """The heads (G, L - 1, C, W) and (G, L - 1, C) with `through` (K, K) of the last K channels."""
    kept = head_weight.shape[2] - len(through)
    with torch.autocast(through.device.type, enabled=False):  # weights in full, as without this
        weight = torch.matmul(through, head_weight[:, :, kept:])
        bias = nn.functional.linear(head_bias[..., kept:], through)
    return (
        torch.cat([head_weight[:, :, :kept], weight], 2),
        torch.cat([head_bias[..., :kept], bias], 2),
    )
