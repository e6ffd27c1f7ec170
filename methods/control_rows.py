"""The control tokens' rows in training, without a gradient over the whole vocabulary.

PEFT's `trainable_token_indices` trains a few rows of the embedding and of the tied head. Its own forward
copies the whole matrix twice a step and takes the gradient of every row of it. Here the matrix stays frozen
and only the rows get gradients; outputs and gradients are those of PEFT's layers.

Shapes: B batch, T tokens, N positions, D hidden, V vocabulary, R trained rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _trained_rows(layer: Any) -> tuple[Tensor, Tensor] | None:
    """Trained rows (R, D) and their indices (R,) where PEFT wraps the layer plainly, else None."""
    adapter = getattr(layer, "token_adapter", None)
    if adapter is None or adapter.disable_adapters or adapter.merged or len(adapter.active_adapters) != 1:
        return None
    plain = type(adapter.base_layer) in (nn.Embedding, nn.Linear)  # others may scale what they return
    if not plain or getattr(adapter.base_layer, "bias", None) is not None:
        return None
    name = adapter.active_adapters[0]
    weight = adapter.base_layer.weight
    index_R = torch.tensor(adapter.token_indices[name], device=weight.device)
    return adapter.trainable_tokens_delta[name].to(weight), index_R


def embed(layer: Any, input_ids_BT: Tensor) -> Tensor:
    """(B, T, D): what the input embedding gives, trained rows included."""
    found = _trained_rows(layer)
    if found is None:
        return layer(input_ids_BT)
    rows_RD, index_R = found
    embeds_BTD = F.embedding(input_ids_BT, layer.token_adapter.base_layer.weight)
    match_BTR = input_ids_BT[..., None] == index_R
    return torch.where(match_BTR.any(-1, keepdim=True), match_BTR.to(rows_RD) @ rows_RD, embeds_BTD)


def head(layer: Any, states_ND: Tensor) -> Tensor:
    """(N, V): what the output head gives, trained rows included."""
    found = _trained_rows(layer)
    if found is None:
        return layer(states_ND)
    rows_RD, index_R = found
    logits_NV = F.linear(states_ND, layer.token_adapter.base_layer.weight)
    return logits_NV.index_copy(1, index_R, F.linear(states_ND, rows_RD))
