"""What Word does not write into a paragraph: its style's properties, and the number that Word counts for it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tasks.documents.counting import formed

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


def is_on(element: Any) -> bool:
    """Whether a property that is there is on: `<w:b/>` is, `<w:b w:val="0"/>` is not."""
    return element is not None and element.get(f"{W}val", "1") not in ("0", "false", "off", "none")


@dataclass(frozen=True)
class Style:
    """A style's name and those of its ancestors' elements, the nearest first."""

    name: str
    chain: tuple[Any, ...] = ()


class Styles:
    """The styles of a document by their ids."""

    def __init__(self, root: Any) -> None:
        self._elements = {one.get(f"{W}styleId"): one for one in root.iter(f"{W}style")}
        self._default = next(
            (
                key
                for key, one in self._elements.items()
                if one.get(f"{W}type") == "paragraph" and one.get(f"{W}default") in ("1", "true")
            ),
            None,
        )

    def style(self, style_id: str | None) -> Style:
        chain, seen = [], set[str]()
        while style_id in self._elements and style_id not in seen:
            seen.add(str(style_id))
            element = self._elements[style_id]
            chain.append(element)
            style_id = _value(element.find(f"{W}basedOn"))
        name = _value(chain[0].find(f"{W}name")) if chain else ""
        return Style(name or "", tuple(chain))

    def of_paragraph(self, paragraph: Any) -> Style:
        return self.style(_value(paragraph.find(f"{W}pPr/{W}pStyle")) or self._default)

    def property(self, paragraph: Any, name: str) -> Any:
        """A property of a paragraph: its own, or the nearest style's that has it."""
        for element in (paragraph, *self.of_paragraph(paragraph).chain):
            found = element.find(f"{W}pPr/{W}{name}")
            if found is not None:
                return found
        return None

    def heading_level(self, paragraph: Any) -> int:
        """From 1; 0 for what is no heading."""
        style = self.of_paragraph(paragraph)
        for element in style.chain:
            name = (_value(element.find(f"{W}name")) or "").lower()
            named = re.fullmatch(r"heading (\d)", name)
            if named or name == "title":
                return int(named[1]) if named else 1
        outline = self.property(paragraph, "outlineLvl")
        if outline is not None and (_value(outline) or "9").isdigit() and int(_value(outline) or 9) < 9:
            return int(_value(outline) or 0) + 1
        return 1 if re.match(r"(?i)heading\b|überschrift\b", style.name) else 0

    def run_is(self, run: Any, name: str, value: str = "") -> bool:
        """Whether a run has a property of letters (`b`, `vanish`): its own, its style's or its paragraph's."""

        def holds(found: Any) -> bool:
            return _value(found) == value if value else is_on(found)

        own = run.find(f"{W}rPr/{W}{name}")
        if own is not None:
            return holds(own)
        paragraph = next(run.iterancestors(f"{W}p"), None)
        chains = [self.style(_value(run.find(f"{W}rPr/{W}rStyle"))).chain]
        if paragraph is not None:
            chains.append(self.of_paragraph(paragraph).chain)
        for chain in chains:
            for element in chain:
                found = element.find(f"{W}rPr/{W}{name}")
                if found is not None:
                    return holds(found)
        return False

    def font(self, run: Any) -> str:
        """The font of a run's letters, "" where the run and its style name none."""
        style = _value(run.find(f"{W}rPr/{W}rStyle"))
        for element in (run, *self.style(style).chain):
            found = element.find(f"{W}rPr/{W}rFonts")
            if found is not None:
                return str(found.get(f"{W}hAnsi") or found.get(f"{W}ascii") or "")
        return ""


@dataclass(frozen=True)
class Number:
    """What Word counts for a list item."""

    text: str  # "2.1", "(a)"; "" for a bullet
    depth: int  # from 1


class Numbers:
    """Counts as Word does: one counter a list and level, the deeper ones begun anew by a higher one."""

    def __init__(self, root: Any, styles: Styles) -> None:
        self.styles = styles
        self._abstract: dict[str, Any] = {}
        self._lists: dict[str, Any] = {}
        if root is not None:
            self._abstract = {one.get(f"{W}abstractNumId"): one for one in root.iter(f"{W}abstractNum")}
            self._lists = {one.get(f"{W}numId"): one for one in root.iter(f"{W}num")}
        self._counts: dict[str, dict[int, int]] = defaultdict(dict)  # of each abstract list, by level
        self._restarted: set[tuple[str, int]] = set()

    def of_paragraph(self, paragraph: Any) -> Number | None:
        """The number of a paragraph, which is counted by this; None for one that has none."""
        list_id, level = self._place(paragraph)
        if not list_id or list_id == "0" or list_id not in self._lists:
            return None
        abstract_id = self._abstract_id(list_id)
        definition = self._level(list_id, abstract_id, level)
        if definition is None:
            return None
        counts = self._counts[abstract_id]
        start = self._start(list_id, definition, level)
        counts[level] = start if level not in counts else counts[level] + 1
        for deeper in [one for one in counts if one > level]:
            if self._begins_anew(list_id, abstract_id, deeper, level):
                del counts[deeper]
        kind = _value(definition.find(f"{W}numFmt")) or "decimal"
        if kind == "bullet":
            return Number("", level + 1)
        legal = is_on(definition.find(f"{W}isLgl"))
        return Number(self._shown(definition, list_id, abstract_id, counts, legal), level + 1)

    def _place(self, paragraph: Any) -> tuple[str, int]:
        """(list, level) of a paragraph, by itself or by its style."""
        own = paragraph.find(f"{W}pPr/{W}numPr")
        found = self.styles.property(paragraph, "numPr")
        if found is None:
            return "", 0
        list_id = _value(found.find(f"{W}numId")) or ""
        if not list_id:  # its own properties name the level alone
            for element in self.styles.of_paragraph(paragraph).chain:
                list_id = list_id or _value(element.find(f"{W}pPr/{W}numPr/{W}numId")) or ""
        level = _value(found.find(f"{W}ilvl"))
        if own is None and level is None and list_id in self._lists:  # the level that names the style
            ids = {one.get(f"{W}styleId") for one in self.styles.of_paragraph(paragraph).chain}
            for one in self._levels(self._abstract_id(list_id)):
                if _value(one.find(f"{W}pStyle")) in ids:
                    level = one.get(f"{W}ilvl")
                    break
        return list_id, int(level) if level and level.isdigit() else 0

    def _abstract_id(self, list_id: str) -> str:
        abstract_id = _value(self._lists[list_id].find(f"{W}abstractNumId")) or ""
        link = (
            _value(self._abstract[abstract_id].find(f"{W}numStyleLink")) if abstract_id in self._abstract else None
        )
        for other_id, other in self._abstract.items():
            if link and _value(other.find(f"{W}styleLink")) == link:
                return str(other_id)
        return abstract_id

    def _levels(self, abstract_id: str) -> Iterator[Any]:
        if abstract_id in self._abstract:
            yield from self._abstract[abstract_id].iterfind(f"{W}lvl")

    def _override(self, list_id: str, level: int) -> Any:
        for one in self._lists[list_id].iterfind(f"{W}lvlOverride"):
            if one.get(f"{W}ilvl") == str(level):
                return one
        return None

    def _level(self, list_id: str, abstract_id: str, level: int) -> Any:
        override = self._override(list_id, level)
        if override is not None and override.find(f"{W}lvl") is not None:
            return override.find(f"{W}lvl")
        return next((one for one in self._levels(abstract_id) if one.get(f"{W}ilvl") == str(level)), None)

    def _start(self, list_id: str, definition: Any, level: int) -> int:
        """Where the level begins; the first use of a list that overrides it begins anew."""
        override = self._override(list_id, level)
        given = None if override is None else _value(override.find(f"{W}startOverride"))
        if given is not None and given.isdigit():
            if (list_id, level) not in self._restarted:
                self._restarted.add((list_id, level))
                self._counts[self._abstract_id(list_id)].pop(level, None)
            return int(given)
        start = _value(definition.find(f"{W}start")) or "1"
        return int(start) if start.isdigit() else 1

    def _begins_anew(self, list_id: str, abstract_id: str, level: int, used: int) -> bool:
        """Whether a level is counted from its start again behind an item of a higher level."""
        definition = self._level(list_id, abstract_id, level)
        after = None if definition is None else _value(definition.find(f"{W}lvlRestart"))
        return used < int(after) if after is not None and after.isdigit() else True

    def _shown(self, definition: Any, list_id: str, abstract_id: str, counts: dict[int, int], legal: bool) -> str:
        """`%1.%2` with the counters of its levels in their own forms."""

        def counter(match: re.Match[str]) -> str:
            level = int(match[1]) - 1
            other = self._level(list_id, abstract_id, level)
            if other is None:
                return ""
            value = counts.setdefault(level, self._start(list_id, other, level))
            return formed(value, "decimal" if legal else _value(other.find(f"{W}numFmt")) or "decimal")

        return re.sub(r"%(\d)", counter, _value(definition.find(f"{W}lvlText")) or "").strip()


def _value(element: Any) -> str | None:
    found = None if element is None else element.get(f"{W}val")
    return None if found is None else str(found)
