"""A person's own documents as a task: `task=local path=<folder>`.

The folder's documents are cut into clauses (tasks.documents.cutting). Questions come from `questions.jsonl` or
`questions.csv` in the folder; without it they are made by rule from the text, and the task says so. Clauses
have no training questions unless the file marks rows with the split `train`. Questions that the documents
certainly do not answer come from a packaged stock: at least half of a question's content words stand nowhere
in the documents, and no clause holds more than a third of them. Where the documents are Chinese, so are these
questions, the abstentions that are trained and the re-asks.

Columns of the questions file, `question` alone being needed in every row:

    question   what is asked
    answer     the short key; empty for a question that the documents do not answer
    aliases    other right forms of the answer (a list, or in CSV parted by |)
    clause     id of the clause that holds the answer, as `python -m tasks.check` lists them; two ids (a list,
               or parted by |) for a question that needs two clauses; or instead
    quote      a few words of the text that stand in one clause only; without both, the one clause that holds
               the answer is taken (yes or no needs one of the two)
    split      train, dev or test; without it one question in four is dev, the others are test
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.assertion import key_says
from tasks.base import QA, Conversation, Language, Memory, Split, TaskData, TaskError
from tasks.chinese import is_chinese
from tasks.conflicts import Conflicts, same_answer
from tasks.documents.cutting import Clause, Cut, cut
from tasks.documents.folder import Folder, read_folder
from tasks.documents.form import Problem, Unreadable, clean
from tasks.documents.row_files import Row, read_rows
from tasks.handbook import abstention, rivals_of
from tasks.keys import key_problems
from tasks.labels import gives_away
from tasks.rule_questions import RuleQuestions, facts
from tasks.similarity import candidate_pairs, components
from tasks.slicing import slice_task
from tasks.think_problems import DATA
from tasks.think_sft import IN_ENGLISH, sft_corpus
from tasks.validate import (
    COVERED_OVERLAP,
    LEAST_IN_COMMON,
    content_words,
    coverage,
    gives,
    nearly_equal,
    words,
)
from tasks.values import stands_in

STOCK: dict[Language, Path] = {"en": DATA / "uncovered.jsonl", "zh": DATA / "uncovered_zh.jsonl"}
FOLLOW_UPS: dict[Language, str] = {"en": "And what about this: {variant}?", "zh": "那么，{variant}呢？"}
COLUMNS = ("question", "answer", "aliases", "clause", "clause_id", "quote", "document", "split", "id")
DEV_EVERY = 4
ENOUGH_UNANSWERABLE = 8  # a person's own in the test split; below, the packaged stock joins them
MACHINE_MADE = "The held-out questions were made by rule from the text; no person has written or checked them."


@dataclass
class Questions:
    """The questions of a task and what became of every row or draft: found = used + refused."""

    file: str = ""  # "" where they were made by rule
    num_found: int = 0
    used: list[QA] = field(default_factory=list)  # of all splits
    refused: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    num_refused: int = 0  # refused rows, those included that could not be read
    num_stock: int = 0  # of the used ones: taken from the packaged stock


@dataclass(frozen=True)
class Local:
    """A folder as it was read, with everything that a check shows."""

    folder: Folder
    cut: Cut
    questions: Questions
    task: TaskData


def load(
    path: str = "",
    num_clauses: int | None = None,
    seed: int = 0,
    num_train: int = 600,
    num_heldout: int = 120,
) -> TaskData:
    """The folder's task, or a seeded slice of it; a folder with fewer clauses gives all it has.

    Raises TaskError where nothing can be compared: no folder, no clause, no question.
    """
    task = read(path, num_train, num_heldout).task
    if not task.memories:
        raise TaskError(f"path={path}: no clause was found; python -m tasks.check path={path} says why")
    if not any(True for _ in task.held_out("test")):
        raise TaskError(f"path={path}: no test question is left; python -m tasks.check path={path} says why")
    wanted = min(num_clauses, len(task.memories)) if num_clauses else num_clauses
    return slice_task(task, wanted, seed)


def read(path: str, num_train: int = 600, num_heldout: int = 120) -> Local:
    """Everything that can be read, problems and all; raises TaskError only where there is no such folder."""
    if not str(path).strip():
        raise TaskError("task=local needs path=<folder with your documents>")
    folder = read_folder(Path(str(path)))
    pieces = cut(folder.sections)
    clauses = {clause.id: clause for clause in pieces.clauses}
    language: Language = "zh" if is_chinese(" ".join(clause.text for clause in pieces.clauses)) else "en"
    if folder.questions is not None:
        questions = _from_file(folder.questions, QuestionReader(folder.questions.name, pieces))
    else:
        questions = _by_rule(list(clauses.values()))
    abstentions = _add_stock(questions, list(clauses.values()), language)
    cues: dict[str, list[QA]] = defaultdict(list)
    for qa in questions.used:
        if qa.split == "train" and qa.kind == "single":
            cues[qa.memory_ids[0]].append(qa)
    general, heldout = sft_corpus(0, num_train, num_heldout)
    follow_ups, known = _facts(questions.used, clauses, language)
    made = "questions made by rule" if folder.questions is None else f"questions of {folder.questions.name}"
    task = TaskData(
        name="local",
        memories=tuple(_memory(clause, cues[clause.id]) for clause in clauses.values()),
        questions=tuple(qa for qa in questions.used if qa.split != "train"),
        sft=(*general, *abstentions),
        sft_heldout=heldout,
        follow_ups=follow_ups,
        facts=known,
        licence="not stated: the documents are the user's own",
        source=f"{_count(len(folder.documents), 'file')} of the folder {_name(folder.path)}",
        description=f"{_count(len(clauses), 'clause')} cut from {_count(len(folder.documents), 'file')}, {made}.",
        version=_version(folder),
        machine_made=folder.questions is None,
        language=language,
        notes=((MACHINE_MADE,) if folder.questions is None else ()) + ((IN_ENGLISH,) if language == "zh" else ()),
    )
    return Local(folder, pieces, questions, task)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _name(path: Path) -> str:
    return path.name or path.resolve().name


def _memory(clause: Clause, cues: Sequence[QA]) -> Memory:
    return Memory(clause.id, clause.text, clause.title, tuple(cues), clause.family, clause.variant)


def _version(folder: Folder) -> str:
    """First 12 hex digits of a sha256 over the names and bytes of the files that were read."""
    digest = hashlib.sha256()
    root = folder.path if folder.path.is_dir() else folder.path.parent
    read_files = [document.file for document in folder.documents]
    for file in (*read_files, *([folder.questions.name] if folder.questions else [])):
        digest.update(f"{file}\n".encode())
        with (root / file).open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:12]


def _siblings(clauses: Iterable[Clause]) -> dict[str, list[Clause]]:
    """clause id -> the other clauses of its family."""
    families: dict[str, list[Clause]] = defaultdict(list)
    for clause in clauses:
        if clause.family:
            families[clause.family].append(clause)
    return {
        clause.id: [other for other in members if other.id != clause.id]
        for members in families.values()
        for clause in members
    }


def _facts(
    used: Sequence[QA], clauses: dict[str, Clause], language: Language
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """(follow-ups, facts) by "clause id/slot"; a sibling that its title sets apart can be followed up."""
    known: dict[str, tuple[str, ...]] = {}
    for clause in clauses.values():
        if clause.family:
            known |= {f"{clause.id}/{fact.slot}": (fact.answer,) for fact in facts(clause)}
    for qa in used:
        if qa.kind == "single" and key_says(qa.answer) is None:
            known[f"{qa.memory_ids[0]}/{qa.slot}"] = (qa.answer, *qa.aliases)
    follow_ups = {}
    for key, forms in known.items():
        variant = clauses[key.rpartition("/")[0]].variant
        asked = FOLLOW_UPS[language].format(variant=variant)
        if variant and not any(stands_in(form, asked) for form in forms):
            follow_ups[key] = asked
    return follow_ups, known


# ------------------------------------------------------------------------------- questions by rule


def _by_rule(clauses: Sequence[Clause]) -> Questions:
    """Held-out questions from the text; drafts that are too alike are dropped and counted."""
    found = Questions()
    siblings, by_rule = _siblings(clauses), RuleQuestions(clauses)
    drafts: list[tuple[QA, Clause]] = []
    for clause in clauses:
        near = siblings.get(clause.id, [])
        values = {other.id: {fact.slot: (fact.answer,) for fact in facts(other)} for other in near}
        for number, (split, question, fact) in enumerate(by_rule.make(clause, near), start=1):
            others = [forms[fact.slot] for forms in values.values() if fact.slot in forms]
            rivals = [r for r in rivals_of((fact.answer,), others) if not stands_in(r, clause.text)]
            qa = QA(
                id=f"{clause.id}/{split}{number}",
                question=question,
                answer=fact.answer,
                memory_ids=(clause.id,),
                rivals=tuple(rivals),
                split="dev" if split == "dev" else "test",
                slot=fact.slot,
            )
            drafts.append((qa, clause))
    drafts.sort(key=lambda draft: draft[0].split == "dev")  # of two that are too alike the test one stays
    found.num_found = len(drafts)
    clashes = _clashes([qa for qa, _ in drafts])
    for number, (qa, clause) in enumerate(drafts):
        if number not in clashes:
            found.used.append(qa)
            continue
        said = f"a draft by rule was dropped: {qa.question!r} is too like another one"
        found.refused.append(Problem(clause.file, clause.place, clause.unit, said))
    found.num_refused = len(found.refused)
    return found


def _clashes(questions: Sequence[QA]) -> dict[int, int]:
    """Index of each question that validation would not let stand beside an earlier one -> that one's index."""
    found: dict[int, int] = {}
    plain = [" ".join(words(qa.question)) for qa in questions]
    for i, j in candidate_pairs([frozenset(words(qa.question)) for qa in questions], LEAST_IN_COMMON):
        if i in found or j in found:
            continue
        one, two = questions[i], questions[j]
        if plain[i] == plain[j]:
            found[j] = i
        elif one.split == two.split == "train":
            continue
        elif (one.split != two.split or one.memory_ids == two.memory_ids) and nearly_equal(
            one.question, two.question
        ):
            found[j] = i
    return found


# ----------------------------------------------------------------------------- questions by a person


def _from_file(path: Path, reader: QuestionReader) -> Questions:
    """The rows of the questions file; each that cannot be used is refused with its line and the reason."""
    found = Questions(file=path.name)
    try:
        rows = read_rows(path, path.name, ("question",), COLUMNS)
    except Unreadable as error:
        found.num_found = found.num_refused = 1
        found.refused.append(Problem(path.name, error.place, "line", f"{error} (no row of it was used)"))
        return found
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    found.num_found = len(rows.rows) + rows.num_refused
    found.num_refused = rows.num_refused
    found.notes = rows.problems
    accepted: list[tuple[Row, QA, bool]] = []
    for row in rows.rows:
        try:
            accepted.append((row, *reader.question(row)))
        except Unreadable as error:
            _refuse(found, row.line, str(error))
    _settle_splits(found, _without_conflicts(found, accepted))
    return found


def _refuse(found: Questions, line: int, said: str) -> None:
    found.refused.append(Problem(found.file, line, "line", said))
    found.num_refused += 1


def _without_conflicts(found: Questions, rows: Sequence[tuple[Row, QA, bool]]) -> list[tuple[Row, QA, bool]]:
    """The rows but for those of one question with two answers: each of these is refused and names another."""
    asked: dict[str, list[tuple[Row, QA]]] = defaultdict(list)
    for row, qa, _ in rows:
        asked[" ".join(words(qa.question))].append((row, qa))
    kept = []
    for row, qa, named in rows:
        for other_row, other in asked[" ".join(words(qa.question))]:
            one, two = (qa.answer, *qa.aliases), (other.answer, *other.aliases)
            if other is qa or (bool(qa.answer) == bool(other.answer) and same_answer(one, two)):
                continue
            said = f"asks {qa.question!r} and answers {qa.answer!r}, line {other_row.line} {other.answer!r}"
            _refuse(found, row.line, f"{said}; say in each question what sets them apart, or strike one")
            break
        else:
            kept.append((row, qa, named))
    return kept


class QuestionReader:
    """Turns rows into questions against the clauses."""

    def __init__(self, file: str, pieces: Cut) -> None:
        clauses = {clause.id: clause for clause in pieces.clauses}
        self.file = file
        self.clauses = clauses
        self.conflicts = Conflicts(pieces.clauses)
        self._of_file: dict[str, set[str]] = defaultdict(set)
        for clause, kept in (*((c, c) for c in pieces.clauses), *pieces.duplicates):
            self._of_file[clause.file.lower()].add(kept.id)
        self.siblings = _siblings(clauses.values())
        self.facts = {clause.id: facts(clause) for clause in clauses.values()}
        self._ids: dict[str, int] = {}
        self._plain = {clause.id: f" {' '.join(words(clause.text))} " for clause in clauses.values()}

    def question(self, row: Row) -> tuple[QA, bool]:
        """(the question, whether the row names its split). Raises Unreadable with the reason and the fix."""
        question, answer = row.text("question"), row.text("answer")
        aliases = self._list(row, "aliases")
        split = row.text("split").lower()
        if split not in ("", "train", "dev", "test"):
            raise Unreadable(f"names the split {split!r}; use train, dev or test, or leave it empty")
        memory_ids = self._clauses(row, answer, aliases) if answer else ()
        own_id = row.text("id") or f"row {row.line}"
        if own_id in self._ids:
            raise Unreadable(f"repeats the id {own_id!r} of line {self._ids[own_id]}; give each row its own")
        self._ids[own_id] = row.line
        for form in (answer, *aliases):
            if form and gives_away(question, form):
                raise Unreadable(f"holds its answer {form!r} in its own words; ask without it")
        qa = QA(
            id=f"{self.file}/{own_id}",
            question=question,
            answer=answer,
            memory_ids=memory_ids,
            aliases=aliases,
            split="train" if split == "train" else "dev" if split == "dev" else "test",
            kind="two_clause" if len(memory_ids) == 2 else "single" if answer else "unanswerable",
        )
        if qa.kind == "unanswerable":
            self._check_uncovered(row, qa)
        if qa.kind == "two_clause" and split == "train":
            raise Unreadable("is a training question on two clauses; train on one clause at a time")
        qa = self._with_slot(qa) if qa.kind == "single" else qa
        if qa.kind == "single" and (
            clash := self.conflicts.against(self.clauses[memory_ids[0]], question, (answer, *aliases))
        ):
            said = f"is answered {answer!r} by {memory_ids[0]} and otherwise by {clash[0].id} ({clash[1]!r})"
            raise Unreadable(f"{said}; say in the question what sets them apart, or strike one of the two texts")
        if unscored := key_problems(qa):
            raise Unreadable(f"cannot be scored: {unscored[0]}")
        return qa, bool(split)

    def _list(self, row: Row, name: str) -> tuple[str, ...]:
        value = row.values.get(name) or []
        parts = value.split("|") if isinstance(value, str) else value if isinstance(value, list) else [value]
        return tuple(dict.fromkeys(clean(str(part)) for part in parts if clean(str(part))))

    def _clauses(self, row: Row, answer: str, aliases: Sequence[str]) -> tuple[str, ...]:
        ids = self._list(row, "clause") or self._list(row, "clause_id")
        for memory_id in ids:
            if memory_id not in self.clauses:
                raise Unreadable(f"names the clause {memory_id!r}, which is not there; {self._nearest(row)}")
        if len(ids) > 2:
            raise Unreadable(f"names {len(ids)} clauses; name one or two")
        yes_or_no = key_says(answer) is not None
        if not ids and yes_or_no and not row.text("quote"):
            raise Unreadable(f"has the answer {answer!r}, no clause and no quote; quote the words that say so")
        if not ids:
            ids = (self._by_quote(row) if row.text("quote") else self._by_answer(row, (answer, *aliases)),)
        qa = QA("", row.text("question"), answer, ids, tuple(aliases))
        if len(ids) == 1 and not yes_or_no and not gives(self.clauses[ids[0]].text, qa):
            raise Unreadable(
                f"has the answer {answer!r}, which does not stand in {ids[0]}; mend it or add an alias"
            )
        return ids

    def _nearest(self, row: Row) -> str:
        """Advice: the clause that shares most words with the row."""
        asked = content_words(f"{row.text('question')} {row.text('quote')} {row.text('answer')}")
        best = max(
            self.clauses.values(),
            key=lambda clause: len(asked & content_words(f"{clause.title} {clause.text}")),
            default=None,
        )
        return f"the nearest one is {best.id!r}" if best else "no clause was read"

    def quoted(self, quote: str) -> list[str]:
        """Ids of the clauses that hold the quote's words in a row."""
        wanted = f" {' '.join(words(quote))} "
        return [memory_id for memory_id, plain in self._plain.items() if wanted in plain]

    def _by_quote(self, row: Row) -> str:
        quoted = set(self.quoted(row.text("quote")))
        holders = [clause.id for clause in self._candidates(row) if clause.id in quoted]
        if len(holders) == 1:
            return holders[0]
        if holders:
            raise Unreadable(
                f"quotes words that {len(holders)} clauses hold, {holders[0]!r} first; quote more of it"
            )
        raise Unreadable(
            f"quotes words that stand in no one clause; quote part of a sentence ({self._nearest(row)})"
        )

    def _candidates(self, row: Row) -> list[Clause]:
        """All clauses, or those of the document that the row names."""
        name = row.text("document")
        if not name:
            return list(self.clauses.values())
        if name.lower() not in self._of_file:
            raise Unreadable(f"names the document {name!r}, of which nothing was read; {self._nearest(row)}")
        return [self.clauses[memory_id] for memory_id in self._of_file[name.lower()]]

    def _by_answer(self, row: Row, forms: Sequence[str]) -> str:
        holders = [c.id for c in self._candidates(row) if any(stands_in(form, c.text) for form in forms)]
        if len(holders) == 1:
            return holders[0]
        said = f"{len(holders)} clauses hold" if holders else "no clause holds"
        raise Unreadable(f"has no clause and no quote, and {said} its answer {forms[0]!r}; add a quote")

    def _check_uncovered(self, row: Row, qa: QA) -> None:
        if row.text("quote") or self._list(row, "clause"):
            raise Unreadable("names a clause or a quote and no answer; write the answer")
        for clause in self.clauses.values():
            if coverage(qa.question, _memory(clause, ())) >= COVERED_OVERLAP:
                raise Unreadable(f"has no answer, and {clause.id} seems to cover it; write the answer")

    def _with_slot(self, qa: QA) -> QA:
        """The slot of the fact that it asks for, so that siblings' values become its rivals."""
        memory_id, own_slot = qa.memory_ids[0], f"asked-{'-'.join(words(qa.answer))}"
        for fact in self.facts[memory_id]:
            if stands_in(qa.answer, fact.answer) or stands_in(fact.answer, qa.answer):
                others = [
                    (other_fact.answer,)
                    for other in self.siblings.get(memory_id, ())
                    for other_fact in self.facts[other.id]
                    if other_fact.slot == fact.slot
                ]
                forms = (qa.answer, *qa.aliases)
                texts = (self.clauses[memory_id].text, qa.question)
                rivals = [r for r in rivals_of(forms, others) if not any(stands_in(r, text) for text in texts)]
                slot = fact.slot if fact.answer.lower() == qa.answer.lower() else own_slot
                return replace(qa, slot=slot, rivals=tuple(rivals))
        return replace(qa, slot=own_slot)


def _settle_splits(found: Questions, rows: Sequence[tuple[Row, QA, bool]]) -> None:
    """Rows without a mark get a split, near-equal questions the same one; what then clashes is refused."""
    questions = [qa for _, qa, _ in rows]
    pairs = [
        (i, j)
        for i, j in candidate_pairs([frozenset(words(qa.question)) for qa in questions], LEAST_IN_COMMON)
        if nearly_equal(questions[i].question, questions[j].question)
    ]
    groups = components(len(rows), pairs)
    grouped = {n for group in groups for n in group}
    groups = sorted([*groups, *([n] for n in range(len(rows)) if n not in grouped)])
    num_free: Counter[str] = Counter()  # kind -> groups without a mark so far
    for group in groups:
        marks = {questions[n].split for n in group if rows[n][2]} - {"train"}
        split: Split = "test"
        if marks:
            split = max(marks)
        elif not all(rows[n][2] for n in group):
            kind = questions[group[0]].kind
            num_free[kind] += 1
            split = "dev" if num_free[kind] % DEV_EVERY == 0 else "test"
        for n in group:
            if not rows[n][2]:
                questions[n] = replace(questions[n], split=split)
    rank = {"train": 0, "test": 1, "dev": 2}
    order = sorted(range(len(rows)), key=lambda n: (rank[questions[n].split], n))
    clashes = _clashes([questions[n] for n in order])
    for position, n in enumerate(order):
        row, qa = rows[n][0], questions[n]
        if position in clashes:
            other = order[clashes[position]]
            said = f"is nearly the {questions[other].split} question of line {rows[other][0].line}"
            _refuse(found, row.line, f"{said}; word it differently")
        else:
            found.used.append(qa)
    places = {qa.id: n for n, qa in enumerate(questions)}
    found.used.sort(key=lambda qa: places[qa.id])
    found.refused.sort(key=lambda problem: problem.place)


# --------------------------------------------------------------------------------- unanswerable stock


def _add_stock(found: Questions, clauses: Sequence[Clause], language: Language) -> list[Conversation]:
    """Adds held-out questions that no clause covers, unless the person gave enough; returns the trained ones."""
    trained = [qa for qa in found.used if qa.kind == "unanswerable" and qa.split == "train"]
    own = sum(qa.kind == "unanswerable" and qa.split == "test" for qa in found.used)
    held = [content_words(f"{clause.title} {clause.text}") for clause in clauses]
    anywhere = frozenset[str]().union(*held)
    for line in STOCK[language].read_text(encoding="utf-8").splitlines():
        body = json.loads(line)
        asked = content_words(body["question"])
        absent = len(asked - anywhere)
        if 2 * absent < len(asked) or any(3 * len(asked & clause) > len(asked) for clause in held):
            continue
        qa = QA(body["id"], body["question"], "", (), split=body["split"], kind="unanswerable")
        if qa.split == "train":
            trained.append(qa)
        elif own < ENOUGH_UNANSWERABLE:
            found.used.append(qa)
            found.num_stock += 1
    return [abstention(qa, language) for qa in trained]


def split_counts(questions: Iterable[QA]) -> Counter[tuple[str, str]]:
    """(split, kind) -> how many."""
    return Counter((qa.split, qa.kind) for qa in questions)
