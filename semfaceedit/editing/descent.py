"""Adam over a few tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

BETAS, EPSILON = (0.9, 0.999), 1e-8


class Adam:
    """The steps of `torch.optim.Adam` (Kingma & Ba 2015), at a rate that is given with each.

    That class imports torch's compiler when the first one is made, which takes longer than many
    a fit.
    """

    def __init__(self, leaves: list[Tensor], *, weight_decay: float = 0.0):
        self.leaves, self.weight_decay = leaves, weight_decay
        self._means = [torch.zeros_like(leaf) for leaf in leaves]
        self._squares = [torch.zeros_like(leaf) for leaf in leaves]
        self._steps = [torch.zeros(()) for _ in leaves]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """Move the leaves against their gradients."""
        adam(
            self.leaves,
            list(gradients),
            self._means,
            self._squares,
            [],
            self._steps,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
        )
