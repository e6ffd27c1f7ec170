"""Lines joined to running text: blanks, hyphens at line ends, and scripts that are written without blanks."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tasks.documents.form import names

_HYPHENS = "-\u2010\u2011\u00ad\u0002\ufffe"
_END = re.compile(rf"([^\W\d_]+)[{_HYPHENS}]$")
_WORD = re.compile(r"[^\W\d_]+(?:[-\u2010\u2011][^\W\d_]+)*")
_CJK = r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]"
# What is written with a hyphen before whatever follows, unless an ending does; and what begins other words too.
_FIRST_PARTS = names("self non well cross half two three four five six seven eight nine third single double")
_ENDINGS = names("teen teenth ty ties tieth ish ness ly ing ed er ers es th some fold")
_MAY_BE_FIRST = names(
    "ex all co pre post anti multi semi ten first second one high low long short full part so off on in e"
)
_JOINS = names("and or und oder bzw sowie et ou")
_LAST_PARTS = names("up friendly based specific compatible related oriented driven")


def vocabulary(lines: Iterable[str]) -> frozenset[str]:
    """The words of a document in lower case, but for those that a line's end cuts."""
    known: set[str] = set()
    is_cut = False
    for line in lines:
        whole = re.sub(r"^\W*[^\W\d_]+", "", line) if is_cut else line
        is_cut = _END.search(line.rstrip()) is not None
        for word in _WORD.finditer(_END.sub("", whole.rstrip())):
            known.add(word.group().lower().replace("\u2010", "-").replace("\u2011", "-"))
    return frozenset(known)


def _is_compound(text: str, line: str, head: str, tail: str, known: frozenset[str]) -> bool:
    """Does the word that a line's end cuts behind `head` have its hyphen elsewhere too?"""
    low = head.lower()
    if f"{low}-{tail}" in known:
        return True
    if low + tail in known:
        return False
    if re.search(rf"\w[{_HYPHENS}]{head}.$", text) or re.match(rf"\w+[{_HYPHENS}]\w", line):
        return True  # no program cuts a word that has a hyphen already
    if (len(head) == 1 and head.isupper()) or (len(head) > 3 and tail in _LAST_PARTS):
        return True
    if low in _FIRST_PARTS:
        return tail not in _ENDINGS
    return tail in known and (low in _MAY_BE_FIRST or (len(low) > 2 and len(tail) > 3 and low in known))


def joined(text: str, line: str, known: frozenset[str]) -> str:
    """A text and the line behind it. A hyphen between them goes where the document writes the word without."""
    text, line = text.rstrip(), line.strip()
    if not text or not line:
        return text + line
    cut, rest = _END.search(text), re.match(r"[^\W\d_]+", line)
    if cut and rest and rest.group() in _JOINS and cut[1].lower() + rest.group() not in known:
        return f"{text[:-1]}- {line}"  # "pre- and post-"
    if cut and rest and rest.group()[0].islower():
        compound = _is_compound(text, line, cut[1], rest.group().lower(), known)
        return f"{text[:-1]}-{line}" if compound else text[:-1] + line
    if text[-1] in _HYPHENS and re.search(rf"\w[{_HYPHENS}]$", text) and line[0].isalnum():
        return f"{text[:-1]}-{line}"
    if re.search(r"\w/$", text) and line[0].isalnum():
        return text + line
    if re.match(_CJK, line) and re.search(f"{_CJK}$", text):
        return text + line
    return f"{text} {line}"
