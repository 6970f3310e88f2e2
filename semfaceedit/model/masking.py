"""Semantic Volume Masking: from class labels to the group whose code colours a point."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class GroupTable(nn.Module):
    """Class ids -> semantic groups, a lookup table that is a configuration value."""

    table: Tensor

    def __init__(self, group_of_class: Sequence[int]):
        super().__init__()
        self.register_buffer("table", torch.tensor(group_of_class), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        return self.table[labels]
