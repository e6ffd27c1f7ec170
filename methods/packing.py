"""The samples of a batch behind one another in one row: nothing that is done token by token sees padding.

Attention alone sees them apart, each a row of its own. What neighbours begin with alike, such as the system prompt
or a passage that several questions are asked about, stands in the row once: it depends on nothing behind it.

Shapes: N tokens of the row, B samples, T places of the longest, D hidden, H heads, W width of a head.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from methods.prefixes import COUNTS_PLACES

if TYPE_CHECKING:
    from methods.batches import Batch

APART = {"eager": "apart_eager", "sdpa": "apart_sdpa"}  # attention -> the same, sample by sample


def _attend(
    inner: str, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings: Any
) -> tuple[Tensor, Any]:
    """transformers' attention interface: (1, H, N, W) each -> (1, N, H, W).

    Without `samples` it is the usual attention: a forward in between is an ordinary one.
    """
    from transformers import AttentionInterface

    usual = sys.modules[type(module).__module__].eager_attention_forward
    attention = AttentionInterface().get_interface(inner, usual)
    samples, window = settings.pop("samples", None), settings.get("sliding_window")
    if samples is None:
        return attention(module, query, key, value, mask, **settings)
    places_BT, back_N = samples
    assert mask is not None
    if window is not None and window < mask.shape[-1]:
        mask = mask.masked_fill(torch.ones_like(mask, dtype=torch.bool).tril(-window), torch.finfo(mask.dtype).min)

    def apart(row_1HNW: Tensor) -> Tensor:
        found = row_1HNW[0].transpose(0, 1).index_select(0, places_BT.flatten())
        return found.unflatten(0, places_BT.shape).transpose(1, 2)

    out_BTHW, weights = attention(module, apart(query), apart(key), apart(value), mask, **settings)
    return out_BTHW.flatten(0, 1).index_select(0, back_N)[None], weights


def packs(model: Any) -> bool:
    """Whether the model takes a row: attention by transformers' interface, positions as told, no running state."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    config = model.config.get_text_config(decoder=True)
    return (
        model._supports_attention_backend
        and not model._is_stateful
        and config._attn_implementation in APART
        and config.model_type not in COUNTS_PLACES
        and "position_ids" in inspect.signature(model.base_model.forward).parameters
        and "chunked_attention" not in (getattr(config, "layer_types", None) or ())
        and {type(x) for x in DynamicCache(config=config).layers} <= {DynamicLayer, DynamicSlidingWindowLayer}
    )


@contextmanager
def packing(model: Any) -> Iterator[None]:
    """Within, `hidden_states` computes rows where the model takes them, else samples padded to one length.

    On a CPU plain attention is taken for the flash kernel, which is slower at these lengths.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    usual = model.config._attn_implementation
    inner = "eager" if usual == "sdpa" and model.device.type == "cpu" else usual
    if packs(model):
        AttentionInterface.register(APART[inner], partial(_attend, inner))
        AttentionMaskInterface.register(APART[inner], ALL_MASK_ATTENTION_FUNCTIONS[inner])
        inner = APART[inner]
    model.set_attn_implementation(inner)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def hidden_states(decoder: Any, embeds_ND: Tensor, batch: Batch) -> Tensor:
    """(N, D): the decoder's last states of the row."""
    if decoder.config._attn_implementation not in APART.values():
        padded_BTD = decoder(
            inputs_embeds=embeds_ND[batch.places_BT], attention_mask=batch.attention_mask_BT, use_cache=False
        ).last_hidden_state
        return padded_BTD.flatten(0, 1).index_select(0, batch.back_N)
    width = batch.places_BT.shape[1]
    mask_TT = embeds_ND.new_full((width, width), torch.finfo(embeds_ND.dtype).min).triu(1)
    return decoder(
        inputs_embeds=embeds_ND[None],
        attention_mask=mask_TT[None, None],  # a mask of four dimensions is taken as it is
        position_ids=batch.positions_N[None],
        samples=(batch.places_BT, batch.back_N),
        use_cache=False,
    ).last_hidden_state[0]
