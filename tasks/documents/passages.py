"""From blocks to sections: headings become titles, lists keep their opening words, sentences their ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tasks.documents.form import ENDS, Block, Passage, Section, Unit, name_of

MOST_WORDS = 80  # a list is kept together up to this length, and then parted between its items
MOST_OPENING = 30  # words of an opening that are said again where its list was parted
NOTE_LEVEL = 9  # of a footnote among list items
LEAST_WORDS = 4  # less says nothing by itself
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|e\.g|i\.e|cf|vs|approx|ca|Dr|Mr|Mrs|Ms|Prof|St|No|Nos|Nr|Art|Sec|Fig|Inc|Ltd|Co|etc)\.$"
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_GOES_ON = re.compile(r"(?:,|\b(?:and|or|und|oder|et|ou|und/oder|and/or))$", re.IGNORECASE)


def num_words(text: str) -> int:
    """Words; of Chinese, Japanese and Korean, which have no blanks, two letters count as one."""
    letters = len(_CJK.findall(text))
    return len(_CJK.sub(" ", text).split()) + (letters + 1) // 2


def ends_sentence(text: str) -> bool:
    """Whether the text stops where a sentence does."""
    bare = text.rstrip().rstrip("\"'”’»)]*_")
    if bare.endswith((".", "…")):
        return not _ABBREVIATION.search(bare)
    return bare.endswith(tuple("!?:;。！？：；"))


def sections_of(file: str, unit: Unit, blocks: Sequence[Block]) -> tuple[list[Section], list[Block]]:
    """(sections, headings that stand in no title). What only looked like a heading and heads nothing is text."""
    blocks = list(_without_empty_headings(blocks))
    parts: list[tuple[tuple[Block, ...], list[Block]]] = [((), [])]
    for block in blocks:
        if block.kind == "heading":
            above = tuple(one for one in parts[-1][0] if one.level < block.level)
            parts.append(((*above, block), []))
        else:
            parts[-1][1].append(block)
    paths = {path for path, held in parts if held}
    # A single heading above all others is the document's name, and no news in each title.
    name = next(iter(paths))[:1] if len(paths) > 1 else ()
    shared = name if name and all(path[:1] == name for path in paths) else ()
    sections, named = [], set[int]()
    for path, held in parts:
        if not held:
            continue
        own = (path[len(shared) :] or path)[-2:]
        named |= set(map(id, own))
        title = ", ".join(block.whole for block in own) or name_of(file)
        passages = _passages(held)
        if path:
            sections.append(Section(file, title, tuple(passages), unit))
        else:  # nothing says that these belong together
            sections += [Section(file, title, tuple(group), unit) for group in _apart(passages)]
    return sections, [block for block in blocks if block.kind == "heading" and id(block) not in named]


def _without_empty_headings(blocks: Sequence[Block]) -> Iterator[Block]:
    for block, following in pairwise([*blocks, None]):
        assert block is not None
        if block.kind == "heading" and not block.sure:
            heads_nothing = following is None or (following.kind == "heading" and following.level <= block.level)
            if heads_nothing:
                yield Block("paragraph", block.whole, block.place)
                continue
        yield block


def _apart(passages: Sequence[Passage]) -> Iterator[list[Passage]]:
    """Each passage alone, but for crumbs and for what does not end a sentence."""
    group: list[Passage] = []
    groups: list[list[Passage]] = []
    for passage in passages:
        group.append(passage)
        if num_words(" ".join(one.text for one in group)) >= LEAST_WORDS and passage.text[-1] not in ":,;":
            groups.append(group)
            group = []
    if group and groups:
        groups[-1] += group
    elif group:
        groups.append(group)
    yield from groups


def _passages(blocks: Sequence[Block]) -> list[Passage]:
    """Each block a passage, but that opening words and the list or the block they open stay together."""
    found: list[Passage] = []
    n = 0
    while n < len(blocks):
        opening = blocks[n]
        depth = opening.level if opening.kind == "item" else 0
        group, notes = [opening], list[Block]()
        n += 1
        while n < len(blocks) and _opens(opening):
            block = blocks[n]
            if block.level == NOTE_LEVEL and block.kind == "item":
                notes.append(block)
            elif group[-1].text[-1] in ":：" or (block.kind == "item" and block.level > depth):
                group.append(block)
            else:
                break
            n += 1
        found += _joined(group)
        found += [passage for note in notes for passage in _joined([note])]
    return found


def _opens(block: Block) -> bool:
    """Whether a block's sentence goes on in the next one."""
    if block.kind not in ("paragraph", "item"):
        return False
    return block.text[-1] in ":：" or (block.kind == "paragraph" and not ends_sentence(block.text))


def _joined(blocks: Sequence[Block]) -> Iterator[Passage]:
    """Opening words with what they open, parted between items where it is long, the opening said again."""
    if len(blocks) == 1:
        yield Passage(_closed(blocks[0].whole), blocks[0].place)
        return
    opening, *members = blocks
    texts = [_in_list(member.whole) for member in members[:-1]] + [_closed(members[-1].whole)]
    first = opening.whole
    said = first if num_words(first) <= MOST_OPENING else ""
    text, place = first, opening.place
    empty = True  # no member stands in the text yet
    for member, piece in zip(members, texts, strict=True):
        if not empty and num_words(f"{text} {piece}") > MOST_WORDS:
            yield Passage(text, place)
            text, place = said, member.place
        text, empty = f"{text} {piece}".strip(), False
    yield Passage(text, place)


def _closed(text: str) -> str:
    """With a full stop where it ends without any sign; none is set behind "and"."""
    return text if text[-1] in ENDS or _GOES_ON.search(text) or ends_sentence(text) else f"{text}."


def _in_list(text: str) -> str:
    return text if text[-1] in ENDS or _GOES_ON.search(text) or ends_sentence(text) else f"{text};"
