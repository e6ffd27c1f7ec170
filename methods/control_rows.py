"""The control tokens' rows in training, without a gradient over the whole vocabulary.

PEFT's `trainable_token_indices` trains a few rows of the embedding and of the head, tied or not. Its own forward
copies the whole matrix twice a step and takes the gradient of every row of it. Here the matrix stays frozen
and only the rows get gradients; outputs and gradients are those of PEFT's layers.

Shapes: B batch, T tokens, N positions, D hidden, V vocabulary, R trained rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _trained_rows(layer: Any) -> tuple[Tensor, Tensor] | None:
    """Trained rows (R, D) and their indices (R,) where PEFT wraps the layer plainly, else None."""
    adapter = getattr(layer, "token_adapter", None)
    if adapter is None or adapter.disable_adapters or adapter.merged or len(adapter.active_adapters) != 1:
        return None
    base = adapter.base_layer  # one of another class may do more than scale what it returns
    plain = type(base) in (nn.Embedding, nn.Linear) or hasattr(base, "embed_scale")
    if not plain:
        return None
    name = adapter.active_adapters[0]
    return adapter.trainable_tokens_delta[name].to(base.weight), _index(
        tuple(adapter.token_indices[name]), base.weight.device
    )


@lru_cache(maxsize=64)
def _index(indices: tuple[int, ...], device: torch.device) -> Tensor:
    """Made once: a step that is recorded (methods.graphs) takes nothing from the host."""
    return torch.tensor(indices, device=device)


def embed(layer: Any, input_ids_BT: Tensor) -> Tensor:
    """(B, T, D): what the input embedding gives, trained rows included."""
    found = _trained_rows(layer)
    if found is None:
        return layer(input_ids_BT)
    rows_RD, index_R = found
    embeds_BTD = F.embedding(input_ids_BT, layer.token_adapter.base_layer.weight)
    match_BTR = input_ids_BT[..., None] == index_R
    found_BTD = torch.where(match_BTR.any(-1, keepdim=True), match_BTR.to(rows_RD) @ rows_RD, embeds_BTD)
    scale = getattr(layer.token_adapter.base_layer, "embed_scale", None)
    return found_BTD if scale is None else found_BTD * torch.as_tensor(scale).to(found_BTD)


def head(layer: Any, states_ND: Tensor) -> Tensor:
    """(N, V): what the output head gives, trained rows included. PEFT's own layer would leave out its bias."""
    found = _trained_rows(layer)
    if found is None:
        return layer(states_ND)
    rows_RD, index_R = found
    base = layer.token_adapter.base_layer
    bias_R = None if base.bias is None else base.bias[index_R]
    logits_NV = F.linear(states_ND, base.weight, base.bias)
    return logits_NV.index_copy(1, index_R, F.linear(states_ND, rows_RD, bias_R))
