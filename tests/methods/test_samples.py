"""Training samples: the one answer format, and what of it is learnt."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from methods.answering import parts_of
from methods.backbone import Backbone
from methods.chat import encode_pieces
from methods.parts import final_text, read, thought, without_loop
from methods.samples import IGNORE, answer_pieces, recall_pieces, supervised, think_pieces
from tasks.base import Message
from tasks.examples import Example


def test_the_prompt_and_the_pad_are_not_learnt() -> None:
    sample = supervised([1, 2, 3], [10, 11, 12, 13], "memory_full", recall=1, pad=2, memory_index=5)
    assert sample.input_ids == (1, 2, 3, 10, 11, 12, 13)
    assert sample.labels == (IGNORE, IGNORE, IGNORE, 10, 11, IGNORE, 13)
    assert (sample.recall_position, sample.pad_position, sample.memory_index) == (4, 5, 5)


def test_loss_may_start_inside_the_target() -> None:
    sample = supervised([1, 2], [10, 11, 12, 13], "memory_front", pad=1, target_loss_from=2)
    assert sample.labels == (IGNORE, IGNORE, IGNORE, IGNORE, 12, 13)
    assert (sample.recall_position, sample.pad_position) == (-1, 3)


WORDS = st.text(st.characters(exclude_characters="<[:：", codec="utf-8")).map(str.strip)


@given(WORDS, WORDS)
def test_what_is_trained_is_what_is_parsed(pristine: Backbone, think: str, answer: str) -> None:
    ids = encode_pieces(pristine.tokenizer, answer_pieces(pristine, [think], answer))
    pieces = read(parts_of(pristine, ids))
    assert ids[0] == pristine.ids.think
    assert ids[-1] == pristine.ids.eos
    assert (thought(pieces), final_text(pieces)) == (think, without_loop(answer))


def test_a_think_holds_the_clause_and_what_follows_it(pristine: Backbone) -> None:
    example = replace(
        Example((Message("user", "How long?"),), "1", "In Cork it is 3 days."),
        reasoning="So it says.",
        answer="3 days",
    )

    def said(example: Example, num_pads: int | None) -> str:
        clause = [] if num_pads is None else recall_pieces(pristine, example.clause, num_pads)
        ids = encode_pieces(pristine.tokenizer, think_pieces(pristine, clause, example))
        return str(pristine.tokenizer.decode(ids))

    recalled = "<think>\n<recall><|memory_pad|><|memory_pad|>In Cork it is 3 days.</recall>"
    assert said(example, 2) == recalled + "\nSo it says.\n</think>\n3 days<|im_end|>"
    assert said(replace(example, reasoning=""), 2) == recalled + "\n</think>\n3 days<|im_end|>"
    assert said(replace(example, answer=""), 2) == recalled
    assert said(replace(example, answer=""), 0) == "<think>\n<recall>In Cork it is 3 days.</recall>"
    without = said(example, None)
    assert example.clause not in without and without.endswith("So it says.\n</think>\n3 days<|im_end|>")
