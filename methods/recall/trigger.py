"""How strongly the model wants to recall: the logit of <recall> against all others where a think begins.

`AutoregressiveRecall.recall_bias` is added to that logit while decoding; sweeping it trades missed recalls for
false ones, and the margins below say where each conversation tips over.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.backbone import Backbone
from methods.chat import encode_pieces, encode_prompt
from methods.recall.embed import last_states
from tasks.base import Message


@torch.no_grad()
def recall_margins(backbone: Backbone, conversations: Sequence[Sequence[Message]], batch_size: int = 32) -> Tensor:
    """(Q,): logit of <recall> less the largest other behind `<think>\\n`. Positive: greedy decoding recalls."""
    ids = backbone.ids
    tail = encode_pieces(backbone.tokenizer, [ids.think, "\n"])
    sequences = [encode_prompt(backbone, messages) + tail for messages in conversations]
    found: list[Tensor] = []
    for states_BD in last_states(backbone, sequences, batch_size).split(batch_size):
        logits_BV = backbone.model.get_output_embeddings()(states_BD).float()
        recall_B = logits_BV[:, ids.recall].clone()
        logits_BV[:, [ids.recall, ids.memory_pad]] = float("-inf")  # the pad is never decoded freely
        found.append(recall_B - logits_BV.max(dim=-1).values)
    return torch.cat(found)
