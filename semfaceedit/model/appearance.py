"""Appearance Module Psi_a: the colour of each hit from the code of its semantic group (Eq. 1)."""

import torch
from torch import Tensor, nn

from .codes import Film
from .config import ModelConfig
from .distinct_rows import distinct_rows
from .film import FilmSirenStack, MappingNetwork
from .geometry import widened_sigmoid
from .point_chunks import by_chunks, offsets_within

COLORS = 3


class AppearanceModule(nn.Module):
    """FiLM-SIREN stack on descriptors; FiLM vectors are those of each point's image and group.

    `sharing` "proposed": one trunk, a colour layer and RGB heads for each group. "all": these are
    shared too. "none": each group has a stack of its own.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.mappings = nn.ModuleList(
            MappingNetwork(
                config.latent_dim,
                config.mapping_width,
                config.mapping_layers,
                config.appearance_depth,
                config.width,
            )
            for _ in range(config.groups)
        )
        stacks = config.groups if config.sharing == "none" else 1
        heads = config.groups if config.sharing == "proposed" else 1
        self.stacks = nn.ModuleList(
            FilmSirenStack(
                config.width,
                config.width,
                config.appearance_depth,
                groups=heads,
                gains=[config.color_gain] * COLORS,
                trunk_channels=0,
            )
            for _ in range(stacks)
        )

    @property
    def first_weight(self) -> Tensor | None:  # (W, W)
        """W_1, where all points share it: the Geometry Module gives W_1 times a descriptor for the
        price of the descriptor, both being linear."""
        if self.config.sharing == "none":
            return None
        shared = self.stacks[0]
        assert isinstance(shared, FilmSirenStack)
        return shared.first_weight

    def mapping(self, z: Tensor) -> Film:  # (B, n, Z) -> (B, n, L + 1, W)
        films = [network(z[:, group]) for group, network in enumerate(self.mappings)]
        return Film(
            torch.stack([film.frequencies for film in films], 1),
            torch.stack([film.phases for film in films], 1),
        )

    def forward(
        self,
        descriptor: Tensor,  # (P, W)
        directions: Tensor,  # (P, 3)
        image_of_point: Tensor,  # (P,) int64
        group_of_point: Tensor,  # (P,) int64
        film: Film,  # (B, n, L + 1, W)
        *,
        multiplied: bool = False,  # by `first_weight`
    ) -> Tensor:  # (P, 3) colours in [0, 1]
        # Rows are ordered by group, then image, so that a stack or a set of heads is one run of
        # points. The stable sort makes the result independent of how ties would fall.
        batch = film.frequencies.shape[0]
        rows = group_of_point * batch + image_of_point
        order = torch.argsort(rows, stable=True)
        ends = torch.arange(batch * self.config.groups + 1, device=rows.device)
        offsets = torch.searchsorted(rows[order], ends)  # a bincount would wait for the device
        row_groups = torch.arange(self.config.groups, device=rows.device).repeat_interleave(batch)
        by_row = Film(
            film.frequencies.transpose(0, 1).flatten(0, 1),
            film.phases.transpose(0, 1).flatten(0, 1),
        )

        def in_order(chunk: slice) -> Tensor:
            points = order[chunk]
            return self._sorted(
                distinct_rows(descriptor, points),
                distinct_rows(directions, points),
                by_row,
                offsets_within(offsets, chunk),
                row_groups,
                multiplied,
            )

        # Descriptors in this order are rows of W numbers again, as many as lie there already.
        sorted_colors = by_chunks(in_order, len(order), order.device)
        colors = torch.empty_like(sorted_colors).index_copy_(0, order, sorted_colors)
        return widened_sigmoid(colors)

    def _sorted(
        self,
        descriptor: Tensor,
        directions: Tensor,
        film: Film,
        offsets: Tensor,
        groups: Tensor,
        multiplied: bool,
    ) -> Tensor:
        first_group = torch.zeros_like(groups)
        if self.config.sharing != "none":
            heads = groups if self.config.sharing == "proposed" else first_group
            return self.stacks[0](
                descriptor, directions, film, offsets, heads, multiplied=multiplied
            )
        batch = len(groups) // self.config.groups
        outputs = []
        for group, stack in enumerate(self.stacks):
            rows = slice(group * batch, (group + 1) * batch)
            part = offsets[rows.start : rows.stop + 1]
            inside = slice(int(part[0]), int(part[-1]))
            outputs.append(
                stack(
                    descriptor[inside],
                    directions[inside],
                    film[rows],
                    part - part[0],
                    first_group[rows],
                )
            )
        return torch.cat(outputs)
