"""Text -> raw memory vector: the hidden state of its last token, in batches (specification 5.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_text


@torch.no_grad()
def _batch_extract_embeddings(
    backbone: Backbone, texts: Sequence[str], batch_size: int = 32, max_tokens: int = 2500, suffix: str = ""
) -> Tensor:
    """Last-token hidden states (N, D), fp32, not normalised. suffix: a summary prompt set behind each text.

    Raises MethodError for a text over max_tokens, naming it by its first words.
    """
    encoded = [encode_text(backbone.tokenizer, text + suffix) for text in texts]
    for text, ids in zip(texts, encoded, strict=True):
        if len(ids) > max_tokens:
            raise MethodError(
                f"memory {text[:40]!r}... has {len(ids)} tokens, the limit is {max_tokens}; cut it into clauses"
            )
    model = backbone.model
    decoder = getattr(model, model.base_model_prefix)
    pad = int(backbone.tokenizer.pad_token_id)
    rows: list[Tensor] = []
    for start in range(0, len(encoded), batch_size):
        part = encoded[start : start + batch_size]
        width = max(len(ids) for ids in part)
        input_ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids in part], device=backbone.device)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in part], device=backbone.device)
        hidden_BTD = decoder(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state
        last_B = torch.tensor([len(ids) - 1 for ids in part], device=backbone.device)
        rows.append(hidden_BTD[torch.arange(len(part), device=backbone.device), last_B].float())
    return torch.cat(rows)
