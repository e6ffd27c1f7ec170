"""Reads a handbook folder into TaskData.

A folder holds `card.json` and `clauses.jsonl`, and where wanted `unanswerable.jsonl`,
`two_clause.jsonl` and `revisions.jsonl`; one JSON object a line. Whatever is wrong in a line ends
as one sentence that names the file, the line, the field and the fix.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from tasks.base import (
    NO_CLAUSE,
    QA,
    Conversation,
    Language,
    Memory,
    Message,
    Split,
    TaskData,
    TaskError,
    assistant_content,
)
from tasks.think_sft import sft_corpus
from tasks.values import stands_in

DATA_FILES = ("card.json", "clauses.jsonl", "unanswerable.jsonl", "two_clause.jsonl", "revisions.jsonl")
_HALF = re.compile("[\ud800-\udfff]")
_JSON_NAMES: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class _Row:
    """One JSON object with the place it stands in; every getter names that place when it fails."""

    where: str  # file:line
    body: dict[str, Any]
    inside: str = ""  # path of the object within the line, e.g. "slots.amount."

    def fail(self, field: str, problem: str, fix: str) -> TaskError:
        return TaskError(f"{self.where}: field '{self.inside}{field}' {problem}; {fix}")

    def _get(self, field: str, kind: type) -> Any:
        if field not in self.body:
            raise self.fail(field, "is missing", f"add it as {_JSON_NAMES[kind]}")
        value = self.body[field]
        if not isinstance(value, kind):
            raise self.fail(field, f"is {type(value).__name__} {value!r}", f"make it {_JSON_NAMES[kind]}")
        return value

    def only(self, *fields: str) -> None:
        """Refuses a field that nobody reads: it is a misspelling, and its content would be lost."""
        for field in self.body:
            if field not in fields:
                near = difflib.get_close_matches(field, fields, n=1)
                fix = f"rename it to '{near[0]}'" if near else f"remove it (known: {', '.join(fields)})"
                raise self.fail(field, "is unknown", fix)

    def text(self, field: str) -> str:
        value = self._get(field, str).strip()
        if not value:
            raise self.fail(field, "is empty", "write its text")
        return str(value)

    def optional(self, field: str) -> str:
        return self._get(field, str).strip() if field in self.body else ""

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of strings; a field that is not there is an empty list."""
        if field not in self.body:
            return ()
        values = self._get(field, list)
        for value in values:
            if not isinstance(value, str) or not value.strip():
                raise self.fail(field, f"holds {value!r}", "make each of its items a string with text")
        return tuple(value.strip() for value in values)

    def choice(self, field: str, choices: Collection[str], what: str) -> str:
        value = self.text(field)
        if value not in choices:
            shown = ", ".join(sorted(choices)[:8])
            raise self.fail(field, f"names the unknown {what} {value!r}", f"use one of: {shown}")
        return value

    def split(self) -> Split:
        return self.choice("split", get_args(Split), "split")  # type: ignore[return-value]

    def _inner(self, field: str, key: str | int, body: Any) -> _Row:
        path = f"{self.inside}{field}.{key}."
        if not isinstance(body, dict):
            raise self.fail(f"{field}.{key}", f"is {type(body).__name__} {body!r}", "make it an object")
        return _Row(self.where, body, path)

    def rows(self, field: str) -> tuple[_Row, ...]:
        return tuple(self._inner(field, n, body) for n, body in enumerate(self._get(field, list), start=1))

    def named_rows(self, field: str) -> dict[str, _Row]:
        return {key: self._inner(field, key, body) for key, body in self._get(field, dict).items()}


@dataclass(frozen=True)
class _Clause:
    """A line of clauses.jsonl, checked, before the siblings are known."""

    row: _Row
    id: str
    text: str
    title: str
    family: str
    variant: str
    slots: dict[str, tuple[str, ...]]  # slot -> answer, then aliases
    follow_ups: dict[str, str]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror}); a handbook folder needs it") from error


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        at = (
            f" at column {error.colno} ({error.msg})" if isinstance(error, json.JSONDecodeError) else f" ({error})"
        )
        raise TaskError(f"{where}: broken JSON{at}; write one whole JSON object") from error
    if _HALF.search(json.dumps(body, ensure_ascii=False)):
        raise TaskError(f"{where}: holds half of a character (\\ud800 to \\udfff alone); write the whole one")
    if not isinstance(body, dict):
        raise TaskError(f"{where}: holds {type(body).__name__}; write one JSON object, in curly braces")
    return body


def _rows(path: Path, required: bool = False) -> tuple[_Row, ...]:
    """The objects of a JSONL file; () for an optional file that is not there."""
    if not required and not path.exists():
        return ()
    # Not splitlines(): that also cuts at U+2028 and its like, which may stand inside a JSON string.
    lines = enumerate(_read_text(path).split("\n"), start=1)
    return tuple(_Row(f"{path}:{n}", _object(line, f"{path}:{n}")) for n, line in lines if line.strip())


def _refuse_duplicates(rows: Iterable[_Row], seen: dict[str, str] | None = None) -> dict[str, str]:
    """id -> place, over `rows` and what was `seen` before."""
    places = dict(seen or {})
    for row in rows:
        row_id = row.text("id")
        if row_id in places:
            raise row.fail("id", f"repeats {row_id!r} of {places[row_id]}", "give each line its own id")
        places[row_id] = row.where
    return places


def _slots(row: _Row) -> dict[str, tuple[str, ...]]:
    slots = {}
    for name, slot in row.named_rows("slots").items():
        slot.only("answer", "aliases")
        slots[name] = (slot.text("answer"), *slot.texts("aliases"))
    if not slots:
        raise row.fail("slots", "is empty", "name at least one fact that can be asked for")
    return slots


def _clause(row: _Row) -> _Clause:
    row.only("id", "chapter", "title", "family", "variant", "text", "slots", "cues", "questions", "follow_ups")
    slots = _slots(row)
    follow_ups = {}
    if "follow_ups" in row.body:
        asked = _Row(row.where, row._get("follow_ups", dict), "follow_ups.")
        asked.only(*slots)
        follow_ups = {slot: asked.text(slot) for slot in asked.body}
    chapter, family = row.optional("chapter"), row.optional("family")
    return _Clause(
        row=row,
        id=row.text("id"),
        text=row.text("text"),
        title=row.optional("title"),
        family=f"{chapter}/{family}" if family else "",
        variant=row.optional("variant"),
        slots=slots,
        follow_ups=follow_ups,
    )


def rivals_of(own: Sequence[str], others: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Forms of other clauses' values that make an answer wrong.

    A form that stands in one of our own is left out: it would mark the right answer wrong.
    own, others: (answer, *aliases) -> forms, in order, without repeats.
    """
    forms = dict.fromkeys(form for other in others for form in other)
    return tuple(form for form in forms if not any(stands_in(form, mine) for mine in own))


def _sibling_values(clause: _Clause, slot: str, clauses: Iterable[_Clause]) -> list[tuple[str, ...]]:
    return [
        other.slots[slot]
        for other in clauses
        if clause.family and other.family == clause.family and other.id != clause.id and slot in other.slots
    ]


def _memory(clause: _Clause, siblings: Sequence[_Clause]) -> tuple[Memory, tuple[QA, ...]]:
    """The clause with its cues, and its held-out questions."""

    def question(row: _Row, number: int, split: Split, name: str) -> QA:
        slot = row.choice("slot", clause.slots, "slot")
        answer, *aliases = clause.slots[slot]
        return QA(
            id=f"{clause.id}/{name}{number}",
            question=row.text("question"),
            answer=answer,
            memory_ids=(clause.id,),
            aliases=tuple(aliases),
            rivals=rivals_of(clause.slots[slot], _sibling_values(clause, slot, siblings)),
            think=row.optional("think"),
            split=split,
            slot=slot,
        )

    cues = []
    for n, row in enumerate(clause.row.rows("cues") if "cues" in clause.row.body else (), start=1):
        row.only("slot", "question", "think")
        cues.append(question(row, n, "train", "cue"))
    questions = []
    counts: dict[str, int] = {}
    for row in clause.row.rows("questions") if "questions" in clause.row.body else ():
        row.only("split", "slot", "question")
        split = row.split()
        if split == "train":
            raise row.fail("split", "is 'train'", "make it dev or test, or move the question to cues")
        counts[split] = counts.get(split, 0) + 1
        questions.append(question(row, counts[split], split, split))
    memory = Memory(
        clause.id, clause.text, clause.title, tuple(cues), family=clause.family, variant=clause.variant
    )
    return memory, tuple(questions)


def _two_clause(row: _Row, clause_ids: Collection[str]) -> QA:
    row.only("id", "split", "question", "answer", "aliases", "rivals", "memory_ids")
    memory_ids = row.texts("memory_ids")
    if len(set(memory_ids)) != 2:
        raise row.fail("memory_ids", f"is {list(memory_ids)}", "name the two clauses that it needs")
    for memory_id in memory_ids:
        if memory_id not in clause_ids:
            raise row.fail("memory_ids", f"names the unknown clause {memory_id!r}", "use ids of clauses.jsonl")
    return QA(
        id=row.text("id"),
        question=row.text("question"),
        answer=row.text("answer"),
        memory_ids=memory_ids,
        aliases=row.texts("aliases"),
        rivals=row.texts("rivals"),
        split=row.split(),
        kind="two_clause",
    )


def _unanswerable(row: _Row) -> QA:
    row.only("id", "split", "question")
    return QA(row.text("id"), row.text("question"), "", (), split=row.split(), kind="unanswerable")


def abstention(qa: QA, language: Language = "en") -> Conversation:
    messages = (Message("user", qa.question), Message("assistant", assistant_content(*NO_CLAUSE[language])))
    return Conversation(f"abstain/{qa.id}", messages, kind="unanswerable", topic="unanswerable")


def _revision(row: _Row, clauses: dict[str, _Clause]) -> _Clause:
    row.only("id", "text", "slots")
    clause_id = row.text("id")
    if clause_id not in clauses:
        raise row.fail("id", f"names the unknown clause {clause_id!r}", "use an id of clauses.jsonl")
    clause, slots = clauses[clause_id], _slots(row)
    if set(slots) != set(clause.slots):
        raise row.fail("slots", f"has {sorted(slots)}", f"name all slots of the clause: {sorted(clause.slots)}")
    return replace(clause, text=row.text("text"), slots=slots)


def _revised_questions(
    questions: Iterable[QA], clauses: dict[str, _Clause], revised: dict[str, _Clause]
) -> tuple[QA, ...]:
    """The questions whose key a revision changes, with the new key; the stale value is a rival.

    Siblings count with their old and their new values, so that the keys hold whatever subset of the
    revisions is written.
    """
    changed = []
    for qa in questions:
        new = revised.get(qa.memory_ids[0])
        if new is None or new.slots[qa.slot][0] == clauses[new.id].slots[qa.slot][0]:
            continue
        stale = clauses[new.id].slots[qa.slot]
        near = [v for pool in (clauses, revised) for v in _sibling_values(new, qa.slot, pool.values())]
        answer, *aliases = new.slots[qa.slot]
        changed.append(
            replace(
                qa,
                id=f"{qa.id}/revised",
                answer=answer,
                aliases=tuple(aliases),
                rivals=rivals_of(new.slots[qa.slot], [stale, *near]),
                kind="revised",
            )
        )
    return tuple(changed)


def _card(folder: Path) -> _Row:
    path = folder / "card.json"
    card = _Row(str(path), _object(_read_text(path), str(path)))
    card.only("name", "licence", "source", "description", "language")
    return card


def _version(folder: Path) -> str:
    """First 12 hex digits of a sha256 over the names and bytes of the data files."""
    digest = hashlib.sha256()
    for name in DATA_FILES:
        if (folder / name).exists():
            content = (folder / name).read_bytes()
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:12]


def read_handbook(folder: Path, num_train: int = 600, num_heldout: int = 120, sft_seed: int = 0) -> TaskData:
    """A handbook folder as a task; raises TaskError at the first thing that is wrong.

    num_train, num_heldout: general conversations for SFT and kept back. `sft_seed` is not the seed
    of a run: methods and seeds are compared on the same corpus.
    """
    card = _card(folder)
    language: Language = "en"
    if "language" in card.body:
        language = card.choice("language", NO_CLAUSE, "language")  # type: ignore[assignment]
    rows = _rows(folder / "clauses.jsonl", required=True)
    places = _refuse_duplicates(rows)
    clauses = {clause.id: clause for clause in map(_clause, rows)}
    memories: list[Memory] = []
    singles: list[QA] = []
    for clause in clauses.values():
        memory, questions = _memory(clause, list(clauses.values()))
        memories.append(memory)
        singles += questions

    unanswerable_rows = _rows(folder / "unanswerable.jsonl")
    two_clause_rows = _rows(folder / "two_clause.jsonl")
    revision_rows = _rows(folder / "revisions.jsonl")
    _refuse_duplicates((*unanswerable_rows, *two_clause_rows), seen=places)
    _refuse_duplicates(revision_rows)
    unanswerable = [_unanswerable(row) for row in unanswerable_rows]
    two_clause = [_two_clause(row, clauses) for row in two_clause_rows]
    revised = {clause.id: clause for clause in (_revision(row, clauses) for row in revision_rows)}

    general, heldout = sft_corpus(sft_seed, num_train, num_heldout)
    return TaskData(
        name=card.text("name"),
        memories=tuple(memories),
        questions=tuple(qa for qa in (*singles, *two_clause, *unanswerable) if qa.split != "train"),
        sft=(*general, *(abstention(qa, language) for qa in unanswerable if qa.split == "train")),
        sft_heldout=heldout,
        revisions=tuple(
            Memory(c.id, c.text, c.title, family=c.family, variant=c.variant) for c in revised.values()
        ),
        revised_questions=_revised_questions(singles, clauses, revised),
        follow_ups={f"{c.id}/{slot}": asked for c in clauses.values() for slot, asked in c.follow_ups.items()},
        facts={f"{c.id}/{slot}": forms for c in clauses.values() for slot, forms in c.slots.items()},
        licence=card.text("licence"),
        source=card.text("source"),
        description=card.optional("description"),
        version=_version(folder),
        language=language,
    )
