"""Text -> raw memory vector: the hidden state of its last token, in batches (specification 5.1).

Shapes: B batch, T tokens, D hidden, N sequences.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_text, supervised
from methods.train import collate
from tasks.base import Memory

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；])\s*")


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


def key_parts(memory: Memory, num_keys: int) -> list[Memory]:
    """What a memory's keys are made of, at most `num_keys`: its whole text, then parts of it under its title.

    The parts are its sentences; of more than there are keys, neighbours go together in runs of about one length.
    A text of one sentence has no parts.
    """
    text = memory.text
    cuts = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    sentences = [(start, end) for start, end in pairwise(cuts) if text[start:end].strip()]
    count = min(num_keys - 1, len(sentences))
    if count < 2:
        return [memory]
    runs = pairwise(round(len(sentences) * n / count) for n in range(count + 1))
    spans = [text[sentences[first][0] : sentences[last - 1][1]].strip() for first, last in runs]
    return [memory, *(replace(memory, text=span) for span in spans)]
