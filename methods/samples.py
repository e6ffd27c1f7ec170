"""Training samples: prompts and replies as token ids, in the one answer format of `methods.chat`.

A memory is recalled from a vector, recited from the weights or quoted from the prompt; all else is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from methods.backbone import Backbone
from methods.chat import Piece, encode_pieces, encode_prompt
from tasks.base import Conversation, Message, split_think
from tasks.examples import Example, plain_messages

IGNORE = -100  # label of a position without loss
SampleKind = Literal["memory_front", "memory_full", "sft_only", "query"]


@dataclass(frozen=True)
class Sample:
    """One training sequence. Positions index `input_ids`."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]  # -100 where nothing is learnt; not shifted
    kind: SampleKind
    recall_position: int = -1  # of <recall>; its state is the query (-1: none)
    pad_position: int = -1  # of the first <|memory_pad|>; memory vectors are fed from there on (-1: none)
    memory_index: int = -1  # row of the bank that belongs here (-1: none)
    loss_weights: tuple[float, ...] = ()  # of each position's token loss; empty: 1 everywhere
    source: str = ""  # what it was drawn from, in a reader's words: counted in the fit's report

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def learnt(self) -> tuple[int, ...]:
        """Positions of the labelled tokens; a sample's first token is never predicted."""
        return tuple(n for n in range(1, len(self)) if self.labels[n] != IGNORE)

    @property
    def asks(self) -> bool:
        """Whether it is a question with a memory to find."""
        return self.recall_position >= 0 and self.memory_index >= 0


def answer_pieces(backbone: Backbone, think: Sequence[Piece], answer: str) -> list[Piece]:
    """The one answer format. `think` pieces stand between `<think>\\n` and `\\n</think>`."""
    ids = backbone.ids
    return [ids.think, "\n", *think, "\n", ids.think_end, "\n" + answer, ids.eos]


def supervised(
    prompt: Sequence[int],
    target: Sequence[int],
    kind: SampleKind,
    *,
    recall: int | None = None,
    pad: int | None = None,
    num_pads: int = 1,
    memory_index: int = -1,
    target_loss_from: int = 0,
    source: str = "",
) -> Sample:
    """Prompt without loss, target with loss. recall, pad: offsets of <recall> and the first pad in the target."""
    labels = [IGNORE] * (len(prompt) + target_loss_from) + list(target[target_loss_from:])
    if pad is not None:
        start = len(prompt) + pad  # overwritten by the memory's vectors, never predicted
        labels[start : start + num_pads] = [IGNORE] * num_pads
    return Sample(
        input_ids=(*prompt, *target),
        labels=tuple(labels),
        kind=kind,
        recall_position=-1 if recall is None else len(prompt) + recall,
        pad_position=-1 if pad is None else len(prompt) + pad,
        memory_index=memory_index,
        source=source,
    )


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


Learnt = Literal["all", "from <recall>", "behind <recall>", "nothing"]


def reply_sample(
    backbone: Backbone,
    messages: Sequence[Message],
    pieces: Sequence[Piece],
    kind: SampleKind,
    source: str,
    *,
    memory_index: int = -1,
    num_pads: int = 0,
    asks: bool = False,
    learnt: Learnt = "all",
) -> Sample:
    """A conversation and the reply to it. learnt: which tokens of the reply; none before it is.

    Of a reply with a <recall>: num_pads, the vectors of the memory that is fed behind it; asks: the state there
    learns to find that memory.
    """
    target = encode_pieces(backbone.tokenizer, pieces)
    recall = target.index(backbone.ids.recall) if backbone.ids.recall in target else -1
    begins = {"all": 0, "from <recall>": recall, "behind <recall>": recall + 1, "nothing": len(target)}
    return supervised(
        encode_prompt(backbone, messages),
        target,
        kind,
        recall=recall if asks else None,
        pad=recall + 1 if num_pads else None,
        num_pads=num_pads,
        memory_index=memory_index,
        target_loss_from=begins[learnt],
        source=source,
    )


def conversation_sample(backbone: Backbone, conversation: Conversation) -> Sample:
    """The last assistant message is learnt; system, user and history are not. No think in the history."""
    *before, last = conversation.messages
    think, answer = split_think(last.content)
    pieces = answer_pieces(backbone, [think], answer)
    return reply_sample(backbone, plain_messages(before), pieces, "sft_only", "ordinary conversations")
