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
from methods.batches import collate
from methods.chat import encode_text, supervised
from methods.examples import titled
from tasks.base import Memory

ROOM_TOKENS = 512  # of the context window, kept beside a memory for the question and the answer
_RECALL_TOKENS = 4  # around a recited text but for its pads: <think>, line break, <recall>, </recall>
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；])\s*")


def memory_limit(backbone: Backbone) -> int:
    """Tokens that a memory may have: what the context window leaves; half of a window that is small itself."""
    return max(backbone.context_length - ROOM_TOKENS, backbone.context_length // 2)


def check_lengths(backbone: Backbone, memories: Sequence[Memory]) -> None:
    """Raises MethodError, naming the memory and the limit, for one that no answer could hold."""
    limit = memory_limit(backbone)
    for memory in memories:
        num_tokens = len(encode_text(backbone.tokenizer, titled(memory)))
        if num_tokens > limit:
            raise MethodError(
                f"memory {memory.id!r} has {num_tokens} tokens, and the context window of {backbone.name} "
                f"({backbone.context_length}) leaves {limit} beside question and answer; cut it into clauses"
            )


def too_long_to_recite(
    backbone: Backbone, memories: Sequence[Memory], max_new_tokens: int, num_pads: int = 1
) -> str:
    """One sentence on memories that alone fill an answer of so many tokens; "" where there are none.

    num_pads: of a recall, each of which takes a token of the answer.
    """
    around = _RECALL_TOKENS + num_pads
    lengths = {m.id: len(encode_text(backbone.tokenizer, m.text)) + around for m in memories}
    over = [memory_id for memory_id, num_tokens in lengths.items() if num_tokens >= max_new_tokens]
    if not over:
        return ""
    longest = max(over, key=lambda memory_id: lengths[memory_id])
    return (
        f"recall cannot recite {len(over)} of {len(memories)} memories and answer: an answer has "
        f"{max_new_tokens} tokens and {longest!r} takes {lengths[longest]}; raise evaluation.max_new_tokens or "
        "cut them into clauses"
    )


@torch.no_grad()
def last_states(backbone: Backbone, sequences: Sequence[Sequence[int]], batch_size: int = 32) -> Tensor:
    """Hidden states (N, D) of each sequence's last token, in the model's dtype."""
    decoder = getattr(backbone.model, backbone.model.base_model_prefix)
    found: list[Tensor] = []
    for start in range(0, len(sequences), batch_size):
        samples = [supervised(ids, (), "query") for ids in sequences[start : start + batch_size]]
        batch = collate(samples, int(backbone.tokenizer.pad_token_id), backbone.device)
        hidden_BTD = decoder(
            input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask, use_cache=False
        ).last_hidden_state
        last_B = batch.attention_mask.sum(dim=1) - 1
        found.append(hidden_BTD[torch.arange(len(samples), device=hidden_BTD.device), last_B])
    return torch.cat(found)


def _batch_extract_embeddings(
    backbone: Backbone,
    texts: Sequence[str],
    batch_size: int = 32,
    max_tokens: int | None = None,
    suffix: str = "",
) -> Tensor:
    """Last-token hidden states (N, D), fp32, not normalised. suffix: a summary prompt set behind each text.

    Raises MethodError for a text over max_tokens (None: the context window), naming it by its first words.
    """
    limit = backbone.context_length if max_tokens is None else max_tokens
    encoded = [encode_text(backbone.tokenizer, text + suffix) for text in texts]
    for text, ids in zip(texts, encoded, strict=True):
        if len(ids) > limit:
            raise MethodError(
                f"the text {text[:40]!r}... has {len(ids)} tokens, the limit is {limit}; cut it into shorter ones"
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
