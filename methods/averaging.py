"""The mean of weights over the last part of a training (Izmailov et al. 2018, arXiv:1803.05407)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class WeightAverage:
    """A running mean of parameters in fp32, each step counting alike."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.num_added = 0
        self._means: list[Tensor] = []

    @torch.no_grad()
    def add(self) -> None:
        """Counts the parameters as they stand."""
        self.num_added += 1
        if self.num_added == 1:
            self._means = [parameter.to(torch.float32, copy=True) for parameter in self.parameters]
            return
        for mean, parameter in zip(self._means, self.parameters, strict=True):
            mean.lerp_(parameter.float(), 1.0 / self.num_added)

    @torch.no_grad()
    def take(self) -> None:
        """The parameters become their mean; they stay as they are where none was counted."""
        if self.num_added:
            for mean, parameter in zip(self._means, self.parameters, strict=True):
                parameter.copy_(mean)
