"""Every piece of a streamed answer says what it is."""

from __future__ import annotations

import pytest

from methods.parts import CONTROL_TOKENS, Part
from pipelines.answer_pieces import AnswerPieces


def pieces_of(*texts: str) -> list[tuple[str, str]]:
    """Of an answer that grows by these texts and tokens; <eos> ends it."""
    found: list[tuple[str, str]] = []
    pieces = AnswerPieces(lambda kind, text: found.append((kind, text)))
    parts: list[Part] = []
    for text in texts:
        kind = "control" if text in CONTROL_TOKENS else "stop" if text == "<eos>" else "text"
        if kind == "text" and parts and parts[-1].kind == "text":
            parts[-1] = Part("text", parts[-1].text + text)
        else:
            parts.append(Part(kind, text))  # type: ignore[arg-type]
        pieces.add(parts)
    return found


@pytest.mark.parametrize("num_pads", [1, 3])
def test_pieces_say_what_they_are(num_pads: int) -> None:
    """However many vectors a memory has."""
    pads = ["<|memory_pad|>"] * num_pads
    assert pieces_of(
        "<think>", "\n", "<recall>", *pads, "Rule", " one.", "</recall>", " So", "</think>", "\n42", "<eos>"
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


def test_without_a_think_all_is_answer() -> None:
    assert pieces_of("no", " tags", "<eos>") == [("answer", "no"), ("answer", " tags")]
    assert pieces_of("<recall>", "a") == [("control", "<recall>"), ("recalled", "a")]


def test_spelt_tags_change_nothing_behind_a_think() -> None:
    assert pieces_of("<think>", "a</think>b", "</think>", "<", "think>c")[1:] == [
        ("think", "a</think>b"),
        ("control", "</think>"),
        ("answer", "<"),
        ("answer", "think>c"),
    ]


def test_a_character_comes_whole() -> None:
    found: list[str] = []
    pieces = AnswerPieces(lambda _kind, text: found.append(text))
    for text in ("S\ufffd", "Süd", "Süd \ufffd", "Süd \ufffd x"):
        pieces.add([Part("text", text)])
    assert found == ["S", "üd", " ", "\ufffd x"]
