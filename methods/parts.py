"""A generated answer in parts, cut where its ids are control tokens, and the one reading of them.

Think, final answer, recalled texts, structure and streamed pieces all come from here. Text is never taken for a
control token, whatever it spells. One exception: where no id is a think token, as with a model that was never
tuned to them, tags that are spelt out are read as such, unless they are quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

THINK, THINK_END = "<think>", "</think>"
RECALL, RECALL_END, MEMORY_PAD = "<recall>", "</recall>", "<|memory_pad|>"
CONTROL_TOKENS = (THINK, THINK_END, RECALL, RECALL_END, MEMORY_PAD)

PieceKind = Literal["think", "recalled", "answer", "control"]

RECITED = 8  # characters on either side by which a tag is known to come from a text at hand
_QUOTED = r"`[^`\n]*`"
_TAG = r"[<\[]/?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad)[>\]]"
_THINK_TAG = re.compile(rf"{_QUOTED}|[\"'“‘«]{_TAG}[\"'”’»]|({_TAG})", re.IGNORECASE)
_ANSWER_TAG = re.compile(
    rf"{_QUOTED}|<(final_answer|answer|final|response|output)>\s*(.*?)\s*(?:</\1>|$)", re.I | re.DOTALL
)
TURN_MARK = re.compile(  # of any model's template, spelt out
    rf"{_QUOTED}|(<\|\w+\|>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos)>|\[/?INST\]|<</?SYS>>)"
)
_NEXT_TURN = re.compile(
    rf"{TURN_MARK.pattern}|^([#*\s]*(?:user|human|assistant|question|instruction|response|q|用户|助手|问|答)[*\s]*[:：])",
    re.IGNORECASE | re.MULTILINE,
)


class Part(NamedTuple):
    """One control token, or the plain text between two."""

    kind: Literal["text", "control", "stop"]  # stop: the control token that ended the answer
    text: str


ReadPiece = tuple[PieceKind, str]  # a part, or what is between spelt tags, with what it is to a reader


def read(parts: Sequence[Part], given: str = "") -> list[ReadPiece]:
    """What each part is; the stop token is left out. given: texts that the model had at hand, and may recite.

    recalled: from <recall> and its pads to the next control token. Else the last think token decides: behind
    </think> stands the answer and before it the think, of however many blocks; behind a <think> that never closes
    all is think; without any all is the answer. A token between backticks is spoken of, and is text.
    """
    parts, n = list(parts), 1
    while n < len(parts) - 1:
        before, token, after = parts[n - 1 : n + 2]
        quoting = before.text.rpartition("\n")[2] if (before.kind, after.kind) == ("text", "text") else ""
        if token.kind == "control" and quoting.endswith("`") and quoting.count("`") % 2 and after.text[:1] == "`":
            parts[n - 1 : n + 2] = [Part("text", before.text + token.text + after.text)]
        else:
            n += 1
    if not any(kind == "control" and text in (THINK, THINK_END) for kind, text in parts):
        parts = list(_with_tags(parts, given))
    marks = [n for n, (kind, text) in enumerate(parts) if kind == "control" and text in (THINK, THINK_END)]
    start = -1 if not marks else marks[-1] if parts[marks[-1]].text == THINK_END else len(parts)
    pieces: list[ReadPiece] = []
    recalled = False
    for n, (kind, text) in enumerate(parts):
        if kind == "control":
            recalled = text == RECALL or (recalled and text == MEMORY_PAD)
            pieces.append(("control", text))
        elif kind == "text":
            pieces.append(("recalled" if recalled else "answer" if n > start else "think", text))
    return pieces


def _with_tags(parts: Sequence[Part], given: str) -> Iterator[Part]:
    """Spelt tags of a think as its control tokens; those of a recalled or recited text stay text."""
    before = ""
    for part in parts:
        at = 0
        if part.kind == "text" and before not in (RECALL, MEMORY_PAD):
            for found in _THINK_TAG.finditer(part.text):
                around = part.text[max(0, found.start() - RECITED) : found.end() + RECITED]
                if found[1] and around not in given:
                    yield Part("text", part.text[at : found.start()])
                    yield Part("control", THINK_END if "/" in found[1] else THINK)
                    at = found.end()
        yield Part(part.kind, part.text[at:])
        before = part.text


def thought(pieces: Sequence[ReadPiece]) -> str:
    """Text of the think, closed or not, recalled texts included."""
    return "".join(text for kind, text in pieces if kind in ("think", "recalled")).strip()


def recalled_texts(pieces: Sequence[ReadPiece]) -> list[str]:
    """The text behind each <recall>, in order."""
    texts: list[str] = []
    for kind, text in pieces:
        if (kind, text) == ("control", RECALL):
            texts.append("")
        elif kind == "recalled":
            texts[-1] += text
    return [text.strip() for text in texts]


def final_text(pieces: Sequence[ReadPiece], given: str = "") -> str:
    """What a reader is told: the answer up to where another turn is invented, a loop once, out of an answer tag.

    given: texts that the model had at hand; what they hold marks no turn.
    """
    told = ""
    for kind, text in pieces:
        if kind == "answer":
            told += text
        elif kind == "control" and text not in CONTROL_TOKENS and told.strip():
            break
    for found in _NEXT_TURN.finditer(told):
        mark = found[1] or found[2]
        if mark and mark.strip() not in given and told[: found.start()].strip():
            told = told[: found.start()]
            break
    wrapped = [found[2] for found in _ANSWER_TAG.finditer(told) if found[1]]
    return without_loop(wrapped[-1] if wrapped else told.strip())


def without_loop(text: str) -> str:
    """The text with what it repeats four times or more at its end, words and not figures alone, said once."""
    for size in range(2, len(text) // 4 + 1):
        same = next((n for n in range(len(text) - size) if text[-1 - n] != text[-1 - n - size]), len(text) - size)
        unit = text[len(text) - same - size : len(text) - same]
        if same >= 3 * size - 1 and re.search(r"[^\W\d_]", unit) and re.search(r"\W|[\u2e80-\uffff]", unit):
            return text[: len(text) - same].strip()
    return text
