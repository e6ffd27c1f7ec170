"""Text -> raw memory vector: the hidden state of its last token, in batches (specification 5.1).

Shapes: B batch, T tokens, D hidden, N sequences.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_text, supervised
from methods.train import collate


@torch.no_grad()
def last_states(backbone: Backbone, sequences: Sequence[Sequence[int]], batch_size: int = 32) -> Tensor:
    """Hidden states (N, D) of each sequence's last token, in the model's dtype."""
    decoder = getattr(backbone.model, backbone.model.base_model_prefix)
    found: list[Tensor] = []
    for start in range(0, len(sequences), batch_size):
        samples = [supervised(ids, (), "query") for ids in sequences[start : start + batch_size]]
        batch = collate(samples, int(backbone.tokenizer.pad_token_id), backbone.device)
        hidden_BTD = decoder(
            input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT, use_cache=False
        ).last_hidden_state
        last_B = batch.attention_mask_BT.sum(dim=1) - 1
        found.append(hidden_BTD[torch.arange(len(samples), device=hidden_BTD.device), last_B])
    return torch.cat(found)


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
    return last_states(backbone, encoded, batch_size).float()
