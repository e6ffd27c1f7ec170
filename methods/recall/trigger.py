"""How strongly the model wants to recall: the logit of <recall> against all others where a think begins.

`AutoregressiveRecall.recall_bias` is added to that logit while decoding; sweeping it trades missed recalls for
false ones, and the margins below say where each conversation tips over.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.backbone import Backbone
from methods.chat import encode_pieces, encode_prompt, supervised
from methods.train import collate
from tasks.base import Message


@torch.no_grad()
def recall_margins(backbone: Backbone, conversations: Sequence[Sequence[Message]], batch_size: int = 32) -> Tensor:
    """(Q,): logit of <recall> less the largest other behind `<think>\\n`. Positive: greedy decoding recalls."""
    ids = backbone.ids
    tail = encode_pieces(backbone.tokenizer, [ids.think, "\n"])
    found: list[Tensor] = []
    for start in range(0, len(conversations), batch_size):
        samples = [
            supervised(encode_prompt(backbone, messages), tail, "query")
            for messages in conversations[start : start + batch_size]
        ]
        batch = collate(samples, int(backbone.tokenizer.pad_token_id), backbone.device)
        decoder = getattr(backbone.model, backbone.model.base_model_prefix)
        hidden_BTD = decoder(
            input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT, use_cache=False
        ).last_hidden_state
        last_B = batch.attention_mask_BT.sum(dim=1) - 1
        rows = torch.arange(len(samples), device=hidden_BTD.device)
        logits_BV = backbone.model.get_output_embeddings()(hidden_BTD[rows, last_B]).float()
        recall_B = logits_BV[:, ids.recall].clone()
        logits_BV[:, [ids.recall, ids.memory_pad]] = float("-inf")  # the pad is never decoded freely
        found.append(recall_B - logits_BV.max(dim=-1).values)
    return torch.cat(found)
