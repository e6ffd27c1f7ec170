"""What a reader hands a file's parts to: it keeps them in reading order and makes sections of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from tasks.documents.form import Block, Document, Kind, Left, Problem, Unit, clean, nothing_left
from tasks.documents.passages import sections_of


class Builder:
    """Collects the blocks of one file in reading order."""

    def __init__(self, file: str, unit: Unit = "line") -> None:
        self.file, self.unit = file, unit
        self.problems: list[Problem] = []
        self.blocks: list[Block] = []
        self.left: list[Left] = []
        self.raw: list[str] = []

    def problem(self, place: int, said: str) -> None:
        self.problems.append(Problem(self.file, place, self.unit, said))

    def leave(self, kind: str, text: str) -> None:
        """A part that is left out on purpose."""
        self.left.append(Left(kind, clean(text)))

    def heading(self, level: int, text: str, place: int = 0, mark: str = "", sure: bool = True) -> None:
        self._add("heading", clean(text).rstrip(":. ¶"), place, level, mark, sure)

    def paragraph(self, text: str, place: int) -> None:
        self._add("paragraph", text, place)

    def item(self, text: str, place: int, mark: str = "", depth: int = 1) -> None:
        self._add("item", text, place, depth, mark)

    def row(self, heads: Sequence[str], cells: Sequence[str], place: int) -> None:
        self._add("row", row_text(heads, cells), place)

    def _add(self, kind: Kind, text: str, place: int, level: int = 1, mark: str = "", sure: bool = True) -> None:
        text = clean(text)
        if "\ufffd" in text or any(unicodedata.category(c) == "Cs" for c in text):
            said = "holds the mark of a failed decoding and was left out; mend the text and save it as UTF-8"
            self.problem(place, said)
            self.leave("text that was decoded wrongly", text)
        elif text:
            self.blocks.append(Block(kind, text, place, level, clean(mark), sure))

    def document(self, num_pages: int = 0) -> Document:
        """The file's sections. Raises Unreadable where nothing is left to read."""
        sections, unused = sections_of(self.file, self.unit, self.blocks)
        for block in unused:
            self.leave("headings that no clause has in its title", block.whole)
        if not sections:
            raise nothing_left(self.problems, "text")
        return Document(
            file=self.file,
            sections=tuple(sections),
            problems=tuple(self.problems),
            num_pages=num_pages,
            raw="\n".join(self.raw),
            left=tuple(self.left),
        )


def row_text(heads: Sequence[str], cells: Sequence[str]) -> str:
    """A table row as text: `Site: Cork, Amount: 31 euros`; of two columns `Country, Rate – Norway: 52 euros`.

    Of a cell that is merged over several columns the first alone is filled, where they bear one name.
    """
    cells = [clean(cell) for cell in cells]
    names = [clean(name).rstrip(": ") for name in heads] + [""] * len(cells)
    if len(heads) == len(cells) == 2 and all(cells) and all(names[:2]):
        return f"{names[0]}, {names[1]} – {cells[0]}: {cells[1]}"
    if len(cells) == 2 and all(cells) and not any(names):
        return f"{cells[0]}: {cells[1]}"
    named = zip(names, cells, strict=False)
    return ", ".join(f"{name}: {cell}" if name and name != cell else cell for name, cell in named if cell)
