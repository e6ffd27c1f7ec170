"""PEFT's LoRA layers in training: the same product in two passes over its result instead of six.

PEFT's own forward casts, multiplies, scales and adds one after another, each into a tensor of the layer's width,
and its backward does so again. Here the low-rank part is accumulated into the frozen layer's result by the
multiplication itself. Adapters stay PEFT's; outputs and gradients are those of its layers, up to rounding.

Shapes: N tokens, I and O features of a layer, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class _LoraLinear(torch.autograd.Function):
    """x W' + bias + scale x A' B', W and bias frozen."""

    @staticmethod
    def forward(
        ctx: Any, x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float
    ) -> Tensor:
        low_NR = x_NI @ a_RI.T
        ctx.save_for_backward(x_NI, weight_OI, a_RI, b_OR, low_NR)
        ctx.scale = scale
        return F.linear(x_NI, weight_OI, bias_O).addmm_(low_NR, b_OR.T, alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_OI, a_RI, b_OR, low_NR = ctx.saved_tensors
        grad_low_NR = (grad_NO @ b_OR).mul_(ctx.scale)
        grad_x_NI = None
        if ctx.needs_input_grad[0]:
            grad_x_NI = (grad_NO @ weight_OI).addmm_(grad_low_NR, a_RI)
        grad_b_OR = (low_NR.T @ grad_NO).T.mul(ctx.scale)  # the wide factor on the right: a third faster
        return grad_x_NI, None, None, grad_low_NR.T @ x_NI, grad_b_OR, None


def _forward(layer: Any, peft_forward: Any, x: Tensor) -> Tensor:
    if layer.disable_adapters or layer.merged:
        return peft_forward(x)
    (name,) = layer.active_adapters
    base = layer.base_layer
    a_RI, b_OR = layer.lora_A[name].weight.to(base.weight), layer.lora_B[name].weight.to(base.weight)
    rows = x.to(base.weight.dtype).flatten(0, -2)
    return _LoraLinear.apply(rows, base.weight, base.bias, a_RI, b_OR, layer.scaling[name]).unflatten(
        0, x.shape[:-1]
    )


@contextmanager
def fused(peft_model: Any) -> Iterator[None]:
    """Within, plain LoRA layers on frozen linear ones compute so; others stay PEFT's."""
    from peft.tuners.lora import Linear

    layers: list[Any] = [
        layer
        for layer in peft_model.modules()
        if type(layer) is Linear and type(layer.base_layer) is nn.Linear and not layer.lora_variant
    ]
    for layer in layers:
        layer.forward = partial(_forward, layer, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
