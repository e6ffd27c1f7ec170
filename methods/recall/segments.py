"""Step 1 as the specification writes it (4.2, 5.1): <recall> learns to sum up a think segment.

Think segments come from the SFT corpus; each segment's own vector (the last token's hidden state, from the
untouched base) is what the state at a <recall> set behind it is pulled to.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from methods.backbone import THINK, THINK_END, Backbone
from methods.base import MethodError
from methods.batches import length_grouped
from methods.chat import Sample, encode_pieces, encode_prompt, encode_text, supervised
from methods.examples import plain_messages
from methods.recall.bank import MemoryBank
from tasks.base import Conversation

log = logging.getLogger(__name__)

SEGMENT_ID = "\0segment/"  # ids of think segments in Step 1's bank; no clause id starts so


@dataclass(frozen=True)
class ThinkSegment:
    """One `<think>...</think>` of the corpus. index: of its conversation in the corpus."""

    index: int
    text: str

    @property
    def id(self) -> str:
        return f"{SEGMENT_ID}{self.index}"


def extract_think(backbone: Backbone, conversation: Conversation) -> str:
    """The last think of the conversation as the chat template renders it; "" where it has none."""
    full_text = str(
        backbone.tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in conversation.messages], tokenize=False
        )
    )
    _before, opened, rest = full_text.rpartition(THINK)
    think, closed, _after = rest.partition(THINK_END)
    return think.strip() if opened and closed else ""


def sample_think_segments(
    backbone: Backbone, conversations: Sequence[Conversation], count: int, max_tokens: int, rng: random.Random
) -> list[ThinkSegment]:
    """`count` segments in random order. Over-long ones are skipped and replaced from those that remain.

    Raises MethodError, with both numbers, where the corpus has too few.
    """
    order = list(range(len(conversations)))
    rng.shuffle(order)
    found: list[ThinkSegment] = []
    for index in order:
        if len(found) == count:
            break
        text = extract_think(backbone, conversations[index])
        if text and len(encode_text(backbone.tokenizer, text)) <= max_tokens:
            found.append(ThinkSegment(index, text))
    if len(found) < count:
        raise MethodError(
            f"Step 1 needs {count} think segments of at most {max_tokens} tokens and found {len(found)} in "
            f"{len(conversations)} conversations; take fewer memories, lower mixture.ratio or raise "
            "mixture.sft_max_tokens"
        )
    log.debug("think segments, original indices %s", [s.index for s in found])
    return found


def segment_sample(
    backbone: Backbone, conversation: Conversation, segment: ThinkSegment, bank: MemoryBank
) -> Sample:
    """context + `<think>\\nSEGMENT<recall>`: nothing is decoded, only the state at <recall> is trained."""
    prompt = encode_prompt(backbone, plain_messages(conversation)[:-1])
    ids = backbone.ids
    target = encode_pieces(backbone.tokenizer, [ids.think, "\n" + segment.text, ids.recall])
    return supervised(
        prompt,
        target,
        "query",
        recall=len(target) - 1,
        memory_index=bank.index(segment.id),
        target_loss_from=len(target),
    )


def segment_epochs(
    backbone: Backbone,
    bank: MemoryBank,
    segments: Sequence[ThinkSegment],
    conversations: Sequence[Conversation],
    batch_tokens: int,
    seed: int,
) -> Iterator[list[list[Sample]]]:
    """Every segment once an epoch, in fresh batches."""
    rng = random.Random(seed)
    samples = [segment_sample(backbone, conversations[s.index], s, bank) for s in segments]
    while True:
        yield length_grouped(samples, batch_tokens, rng)
