"""What stands in a generated text: its answer, its think, and nothing that its words only spell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.base import Answer, Lookup, Usage
from methods.parts import CONTROL_TOKENS, Part, PieceKind, read, without_loop


def text(value: str) -> Part:
    return Part("text", value)


def mark(name: str) -> Part:
    return Part("control", name)


def answer_of(*parts: Part, lookups: tuple[Lookup, ...] = ()) -> Answer:
    return Answer(parts, lookups, Usage(1, 1))


@pytest.mark.parametrize(
    ("generated", "final"),
    [
        ("The clause says 30 days.</think>\n\n30 days", "30 days"),  # the template opened the think
        ("30 days", "30 days"),
        ("  \n", ""),
        ("<think>\n\n</think>\n\n30 days", "30 days"),
        ("<think>The clause says 30 days", ""),
        ("<think>a</think>14 days<think>no, 30</think>30 days", "30 days"),
        ("<think>a</think>14 days<think>no, 30", ""),
        ("<THINK>x</THINK>30 days", "30 days"),
        ("<thinking>x</thinking>30 days", "30 days"),
        ("<reasoning>x</reasoning>\n30 days", "30 days"),
        ("[THINK]x[/THINK]30 days", "30 days"),
        ("<think>one</think>\n<answer>30 days</answer>", "30 days"),
        ("<think>one</think>\n<answer>\n30 days\n", "30 days"),  # never closed
        ("<answer>30 days</answer>", "30 days"),
        ("<think>one</think>So: <final_answer>30 days</final_answer>.", "30 days"),
        (
            "<think>one</think>\nWrite notes in `<think>` tags. The period is 30 days.",
            "Write notes in `<think>` tags. The period is 30 days.",
        ),
        ('<think>one</think>Put it in "<thinking>". 30 days.', 'Put it in "<thinking>". 30 days.'),
        ("<think>one</think>Write `<answer>` first: 30 days.", "Write `<answer>` first: 30 days."),
        ("<think>one</think>30 days\nUser: and then?\nAssistant: 14 days", "30 days"),
        ("30 days\n\n### Human: and then?", "30 days"),
        ("30 days\nQ: and then?\nA: 14 days", "30 days"),
        ("30天。\n用户：那么呢？", "30天。"),
        ("<think>one</think>30 days<|im_end|>\n<|im_start|>user\n14 days?", "30 days"),
        ("30 days [INST] and then? [/INST] 14 days", "30 days"),
        ("30 days</s>14 days", "30 days"),
        ("Assistant: 30 days", "Assistant: 30 days"),  # nothing stands before it
        ("Write `<|im_end|>` behind it.", "Write `<|im_end|>` behind it."),
        ("<think>one</think>" + "30 days " * 22, "30 days"),
        ("<think>one</think>It is 30 days." + " It is 30 days." * 9 + " It is 3", "It is 30 days."),
        ("30天" * 12, "30天"),
        ("10000 euros, 1 000 000 000 000", "10000 euros, 1 000 000 000 000"),
        ("Code AAAA", "Code AAAA"),
    ],
)  # fmt: skip
def test_the_answer_of_a_model_that_spells_its_tags(generated: str, final: str) -> None:
    assert answer_of(text(generated)).final == final


@pytest.mark.parametrize("spelt", [*CONTROL_TOKENS, "</think>14 days", "<thinking>", "</s>", "<user>", "User: x"])
@pytest.mark.parametrize("recall", [True, False])
def test_a_clause_that_spells_marks_is_text(spelt: str, recall: bool) -> None:
    """Recalled or quoted: where ids are control tokens, and text is text."""
    clause = f"Write {spelt} on line 1.\n{spelt} again."
    recalled = [mark("<recall>"), mark("<|memory_pad|>"), text(clause), mark("</recall>")]
    held = recalled if recall else [text(clause)]
    found = answer_of(mark("<think>"), *held, text("\nSo."), mark("</think>"), text("\n30 days"))
    assert found.think == f"{clause}\nSo." and found.final == "30 days"
    assert ("recalled" if recall else "think", clause) in found.pieces
    assert answer_of(*recalled, text("30 days")).final == "30 days"  # nor is it searched without a think token


def test_an_answer_may_repeat_a_mark_that_it_was_given() -> None:
    clause = "Messages end in [INST].\nUser: the one who signs."
    said = (mark("<think>"), text("x"), mark("</think>"), text(f"It says: {clause}"))
    assert answer_of(*said, lookups=(Lookup("c", 0.9, clause),)).final == f"It says: {clause}"
    assert answer_of(*said).final == "It says: Messages end in"


def test_a_token_between_backticks_is_spoken_of() -> None:
    """As from a model whose tokenizer knows no other way to write it."""
    said = (text("Write `"), mark("<think>"), text("` first: 30 days."))
    found = answer_of(mark("<think>"), text("x"), mark("</think>"), *said)
    assert found.final == "Write `<think>` first: 30 days."
    assert answer_of(*said).final == found.final
    both = answer_of(*said, text(" and `"), mark("</think>"), text("`."))
    assert both.final == "Write `<think>` first: 30 days. and `</think>`."
    closed = answer_of(mark("<think>"), text("`x`"), mark("</think>"), text("`30 days`"))
    assert (closed.think, closed.final) == ("`x`", "`30 days`")  # two that are quoted, and none between
    ended = answer_of(text("Write `"), Part("stop", "<|im_end|>"), text("`"))
    assert ended.final == "Write ``"  # what ended the answer is none of it


def test_another_turn_by_its_token_ends_the_answer() -> None:
    turn = (mark("<|im_start|>"), text("user\nand then?"))
    assert answer_of(mark("<think>"), text("x"), mark("</think>"), text("30 days"), *turn).final == "30 days"


@given(
    st.lists(
        st.one_of(
            st.sampled_from([*CONTROL_TOKENS, "<|im_start|>"]).map(mark),
            st.sampled_from(["a b.", " ", "</think>", "User: x"]).map(text),
        ),
        max_size=10,
    )
)
def test_pieces_are_the_parts(parts: list[Part]) -> None:
    """Unless tags are spelt, and no kind is left out."""
    found = answer_of(*parts)
    ids = any(part in (mark("<think>"), mark("</think>")) for part in parts)
    if ids:
        assert [piece for _, piece in found.pieces] == [part.text for part in parts]
    kinds: dict[PieceKind, str] = {kind: "" for kind, _ in found.pieces}
    assert kinds.keys() <= {"think", "recalled", "answer", "control"}
    if found.final and ids:
        assert parts.index(mark("</think>")) < len(parts) - 1
    assert read(found.parts) == found.pieces


@given(st.text(max_size=40), st.integers(4, 9))
def test_a_loop_is_said_once(before: str, times: int) -> None:
    assert without_loop(before) in before
    assert without_loop(f"{before}:" + " It is 30 days." * times).endswith(": It is 30 days.")
    assert without_loop(before + " 30" * times) == before + " 30" * times  # figures alone
