"""A streamed answer in pieces, each with its kind: what the chat shows in a style of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from methods.base import Answer
from methods.parts import MEMORY_PAD, Part, PieceKind, read


class AnswerPieces:
    """An answer's parts as they grow -> what is new in them, as a reader may see it, and its kind.

    Control tokens stand apart and the token that ends the answer is left out. Of several pads on end, one for each
    vector of a memory, the first alone is said. A character whose bytes are not all there yet waits for them. Text
    that came before its kind was sure, since no think had been opened, keeps the kind that it had.
    """

    def __init__(self, on_piece: Callable[[PieceKind, str], None]) -> None:
        self._on_piece = on_piece
        self._at, self._sent = 0, ""  # the last part that was seen, and what of it was said

    def add(self, parts: Sequence[Part]) -> None:
        """parts: all so far."""
        for at in range(self._at, len(parts)):
            text = parts[at].text
            if at == len(parts) - 1:
                text = text.rstrip("\ufffd")
            if at > self._at:
                self._at, self._sent = at, ""
            new = text.removeprefix(self._sent)
            if new and text.startswith(self._sent):
                self._sent = text
                if parts[at].kind != "stop" and not (at and parts[at] == parts[at - 1] and text == MEMORY_PAD):
                    self._on_piece(read(parts[: at + 1])[-1][0], new)


def verb(answer: Answer) -> str:
    """What was done to look something up."""
    return "recalled" if answer.memory_path == "recall" else "retrieved"
