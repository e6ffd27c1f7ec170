"""Lines joined to running text: blanks, hyphens at line ends, and scripts that are written without blanks."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tasks.documents.form import names

_HYPHENS = "-\u2010\u2011\u00ad\u0002\ufffe"
_END = re.compile(rf"([^\W\d_]+)[{_HYPHENS}]$")
_WORD = re.compile(r"[^\W\d_]+(?:[-\u2010\u2011][^\W\d_]+)*")
_CJK = r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]"
# What is written with a hyphen before whatever follows.
_FIRST_PARTS = names(
    """
    self non ex well all cross half co pre post anti multi semi two three four five six seven eight
    nine ten first second third one single double high low long short full part so off on in e
    """
)


def vocabulary(lines: Iterable[str]) -> frozenset[str]:
    """The words of a document in lower case, but for those that a line's end cuts."""
    return frozenset(
        word.group().lower().replace("\u2010", "-").replace("\u2011", "-")
        for line in lines
        for word in _WORD.finditer(_END.sub("", line.rstrip()))
    )


def joined(text: str, line: str, known: frozenset[str]) -> str:
    """A text and the line behind it. A hyphen between them goes where the document writes the word without."""
    text, line = text.rstrip(), line.strip()
    if not text or not line:
        return text + line
    cut, rest = _END.search(text), re.match(r"[^\W\d_]+", line)
    if cut and rest and rest.group()[0].islower():
        head, tail = cut[1].lower(), rest.group().lower()
        body = text[:-1]
        if f"{head}-{tail}" in known:
            return f"{body}-{line}"
        compound = head in _FIRST_PARTS or (len(tail) > 3 and head in known and tail in known)
        return f"{body}-{line}" if compound and head + tail not in known else body + line
    if text[-1] in _HYPHENS and re.search(rf"\w[{_HYPHENS}]$", text) and line[0].isalnum():
        return f"{text[:-1]}-{line}"
    if re.search(r"\w/$", text) and line[0].isalnum():
        return text + line
    if re.match(_CJK, line) and re.search(f"{_CJK}$", text):
        return text + line
    return f"{text} {line}"
