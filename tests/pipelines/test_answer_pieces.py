"""Every piece of a streamed answer says what it is."""

from __future__ import annotations

import pytest

from pipelines.answer_pieces import AnswerPieces


def pieces_of(*texts: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    pieces = AnswerPieces("<eos>", lambda kind, text: found.append((kind, text)))
    for text in texts:
        pieces.add(text)
    return found


@pytest.mark.parametrize("pads", [("<|memory_pad|>",), ("<|memory_pad|>", "<|memory_pad|><|memory_pad|>")])
def test_pieces_say_what_they_are(pads: tuple[str, ...]) -> None:
    """However many vectors a memory has."""
    assert pieces_of(
        "<think>", "\n", "<recall>", *pads, "Rule", " one.", "</recall>", " So", "</think>", "\n42<eos>"
    ) == [
        ("control", "<think>"),
        ("think", "\n"),
        ("control", "<recall>"),
        ("control", "<|memory_pad|>"),
        ("recalled", "Rule"),
        ("recalled", " one."),
        ("control", "</recall>"),
        ("think", " So"),
        ("control", "</think>"),
        ("answer", "\n42"),
    ]


def test_without_an_end_all_is_think() -> None:
    assert pieces_of("no", " tags", "<eos>") == [("think", "no"), ("think", " tags")]
    assert pieces_of("<recall>", "a") == [("control", "<recall>"), ("recalled", "a")]


def test_tokens_behind_the_think_change_nothing() -> None:
    assert pieces_of("</think>a<recall>b</recall>c")[1::2] == [("answer", "a"), ("answer", "b"), ("answer", "c")]
