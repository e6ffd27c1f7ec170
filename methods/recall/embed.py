"""Last hidden states, in batches: raw memory vectors (specification 5.1).

Shapes: B batch, T tokens, D hidden, N sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from methods.backbone import Backbone
from methods.base import MethodError
from methods.batches import collate
from methods.chat import encode_text
from methods.packing import hidden_states, packing
from methods.samples import supervised
from tasks.base import Memory
from tasks.examples import titled

BATCH_SIZE = 32  # sequences of one forward
ROOM_TOKENS = 512  # of the context window, kept beside a memory for the question and the answer


def memory_limit(backbone: Backbone) -> int:
    """Tokens that a memory may have: what the context window leaves; half of a window that is small itself."""
    return max(backbone.facts.context_length - ROOM_TOKENS, backbone.facts.context_length // 2)


def check_lengths(backbone: Backbone, memories: Sequence[Memory]) -> None:
    """Raises MethodError, naming the memory and the limit, for one that no answer could hold."""
    limit = memory_limit(backbone)
    for memory in memories:
        num_tokens = len(encode_text(backbone.tokenizer, titled(memory)))
        if num_tokens > limit:
            raise MethodError(
                f"memory {memory.id!r} has {num_tokens} tokens, and the context window of {backbone.name} "
                f"({backbone.facts.context_length}) leaves {limit} beside question and answer; cut it into clauses"
            )


@torch.no_grad()
def last_states(
    backbone: Backbone, sequences: Sequence[Sequence[int]], progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Hidden states (N, D) of each sequence's last token, in the model's dtype.

    Those of like length go together in a row, as in training: what all begin with, a system prompt, counts once.
    progress is told how many of how many are done, where they are more than one batch.
    """
    order = sorted(range(len(sequences)), key=lambda n: len(sequences[n]))
    found: list[Tensor] = []
    with packing(backbone.model):
        for start in range(0, len(order), BATCH_SIZE):
            samples = [supervised(sequences[n], (), "query") for n in order[start : start + BATCH_SIZE]]
            batch = collate(samples, int(backbone.tokenizer.pad_token_id), backbone.device)
            embeds_ND = backbone.model.get_input_embeddings()(batch.input_ids_N)
            states_ND = hidden_states(backbone.model.base_model, embeds_ND, batch)
            last_B1 = batch.attention_mask_BT.sum(dim=1, keepdim=True) - 1
            found.append(states_ND[batch.places_BT.gather(1, last_B1).flatten()])
            if progress is not None and len(order) > BATCH_SIZE:
                progress(start + len(samples), len(order))
    places = torch.empty(len(order), dtype=torch.long)
    places[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(found)[places.to(backbone.device)]


def _batch_extract_embeddings(
    backbone: Backbone, texts: Sequence[str], max_tokens: int | None = None, suffix: str = ""
) -> Tensor:
    """Last-token hidden states (N, D), fp32, not normalised. suffix: a summary prompt set behind each text.

    Raises MethodError for a text over max_tokens (None: the context window), naming it by its first words.
    """
    limit = backbone.facts.context_length if max_tokens is None else max_tokens
    if backbone.facts.learned_positions:
        limit = min(limit, backbone.facts.context_length)
    encoded = [encode_text(backbone.tokenizer, text + suffix) for text in texts]
    for text, ids in zip(texts, encoded, strict=True):
        if len(ids) > limit:
            raise MethodError(
                f"the text {text[:40]!r}... has {len(ids)} tokens, the limit is {limit}; cut it into shorter ones"
            )
    return last_states(backbone, encoded).float()
