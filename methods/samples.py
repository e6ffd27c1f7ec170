"""Examples and conversations -> training samples in the one answer format, for every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from methods.backbone import Backbone
from methods.chat import Piece, Sample, answer_pieces, encode_pieces, encode_prompt, split_think, supervised
from methods.examples import Example, plain_messages
from tasks.base import Conversation, Message

MemorySampleKind = Literal["memory_front", "memory_full", "sft_only"]  # the specification's sample types


def conversation_sample(backbone: Backbone, conversation: Conversation) -> Sample:
    """The last assistant message is learnt; system, user and history are not. No think in the history."""
    think, answer = split_think(conversation.messages[-1].content)
    prompt = encode_prompt(backbone, plain_messages(conversation)[:-1])
    target = encode_pieces(backbone.tokenizer, answer_pieces(backbone, [think], answer))
    return supervised(prompt, target, "sft_only")


def think_pieces(backbone: Backbone, clause: Sequence[Piece], example: Example) -> list[Piece]:
    """The answer format with the clause recalled or quoted; it ends with the clause where no answer is given."""
    if not example.answer:
        return [backbone.ids.think, "\n", *clause]
    rest: list[Piece] = ["\n" + example.reasoning] if example.reasoning else []
    return answer_pieces(backbone, [*clause, *rest], example.answer)


def recall_pieces(backbone: Backbone, text: str, num_pads: int = 1) -> list[Piece]:
    """What a recall looks like in the token stream: a pad for each vector of the memory."""
    ids = backbone.ids
    return [ids.recall, *[ids.memory_pad] * num_pads, text, ids.recall_end]


def recall_prompt(backbone: Backbone, messages: Sequence[Message]) -> list[int]:
    """Ids of a conversation whose answer has just begun with a recall."""
    ids = backbone.ids
    return encode_prompt(backbone, messages) + encode_pieces(backbone.tokenizer, [ids.think, "\n", ids.recall])
