"""A streamed answer in pieces, each with its kind: what the chat shows in a style of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from methods.backbone import CONTROL_TOKENS, MEMORY_PAD, RECALL, RECALL_END, THINK_END

PieceKind = Literal["think", "recalled", "answer", "control"]


class AnswerPieces:
    """Streamed raw text -> (kind, text) as a reader may see it: control tokens apart, the stop token left out.

    Of several pads on end, one for each vector of a memory, the first alone is said.
    Until the think is closed everything is think, as in `parse_answer`.
    """

    def __init__(self, eos: str, on_piece: Callable[[PieceKind, str], None]) -> None:
        self._eos = eos
        self._on_piece = on_piece
        self._kind: PieceKind = "think"
        self._last = ""  # part that was added
        self._cut = re.compile("|".join(f"({re.escape(token)})" for token in (*CONTROL_TOKENS, eos)))

    def add(self, text: str) -> None:
        for part in filter(None, self._cut.split(text)):
            last, self._last = self._last, part
            if part == self._eos or part == last == MEMORY_PAD:
                continue
            if not self._cut.fullmatch(part):
                self._on_piece(self._kind, part)
                continue
            self._on_piece("control", part)
            if part == THINK_END:
                self._kind = "answer"
            elif self._kind != "answer" and part in (RECALL, RECALL_END):
                self._kind = "recalled" if part == RECALL else "think"
