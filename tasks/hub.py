"""Public data sets as tasks: hub/obliqa, hub/emanual, hub/techqa, hub/covidqa, hub/multidoc2dial, and more.

Each adapter turns rows into outcomes; hub_build makes a task of these, hub_cards says what each set is. Read
are Parquet and JSON files only, by the generic readers of `datasets`: no code of a data set is ever run.
"""

from __future__ import annotations

import fnmatch
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.base import TaskData, TaskError
from tasks.hub_build import Asked, Dropped, Outcome, Unknown, build, clean
from tasks.hub_cards import CARDS, Card
from tasks.slicing import slice_task
from tasks.values import stands_in

Row = Mapping[str, Any]
Parts = Mapping[str, Sequence[Row]]  # part of a data set -> its rows

READERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}  # file name ending -> reader of `datasets`

# A quotation, a menu path, a code, a file name, a number with its unit, a numbered thing, a name.
_VALUES = tuple(
    re.compile(pattern)
    for pattern in (
        r"[\"“]([^\"“”]{2,60})[\"”]",
        r"\b[A-Z][\w&]*(?: [A-Z&][\w&]*)*(?: ?> ?[A-Z][\w&]*(?: [A-Z&][\w&]*)*)+",
        r"\b[A-Z][\w&]*(?: ?> ?[A-Z][\w&]*(?: [A-Z&][\w&]*)*)+",
        r"\b(?=[\w.-]*\d)(?=[\w.-]*[A-Za-z])\w[\w.-]*\w\b",
        r"\b[\w-]+\.[a-z]{2,4}\b",
        r"\b\d(?:[\d.,:]*\d)?(?:\s?%|\s+[A-Za-z]{2,})",
        r"\b\d(?:[\d.,:]*\d)?",
        r"\b[A-Z][a-z]+(?: [A-Z][A-Za-z]*| \d+)+\b",
    )
)


def _text(value: Any) -> str:
    """The text of a field; the first text of a nested list; "" for nothing."""
    while isinstance(value, (list, tuple)):
        value = value[0] if value else ""
    return "" if value is None else str(value)


def _texts(value: Any) -> list[str]:
    """All texts of a nested list, in order."""
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item)]
    return [] if value is None else [str(value)]


def shared_value(answer: str, evidence: str, question: str) -> str:
    """The longest short value of the evidence that the reference answer holds too and the question does not.

    "" where they share none. "Open Settings > Sound first." -> "Settings > Sound"
    """
    text = clean(evidence)
    found = [match[match.lastindex or 0] for values in _VALUES for match in values.finditer(text)]
    fit = [value for value in found if stands_in(value, clean(answer)) and not stands_in(value, clean(question))]
    return max(fit, key=len, default="")


def _rule_numbers(rows: Sequence[Row]) -> dict[str, list[str]]:
    """document -> the numbers of its rules, in the order of the rows."""
    numbers: dict[str, dict[str, None]] = {}
    for row in rows:
        for passage in row["Passages"] or []:
            document = numbers.setdefault(_text(passage.get("DocumentID")), {})
            document[_text(passage.get("PassageID"))] = None
    return {document: list(found) for document, found in numbers.items()}


def _obliqa(parts: Parts) -> Iterator[Outcome]:
    numbers = _rule_numbers(parts["rows"])
    for row in parts["rows"]:
        row_id, passages = _text(row["QuestionID"]), row["Passages"] or []
        if len(passages) != 1:
            reason = "it rests on several passages" if passages else "its passage is missing"
            yield Dropped(row_id, reason)
            continue
        (passage,) = passages
        number, document = _text(passage.get("PassageID")), _text(passage.get("DocumentID"))
        place = numbers[document].index(number)
        yield Asked(
            row_id=row_id,
            question=f"{_text(row['Question'])} Which rule says so?" if row["Question"] else "",
            answer=number,
            passage=_text(passage.get("Passage")),
            document=f"document {document}",
            title=f"Document {document}, rule {number}",
            prefix=f"Rule {number} of document {document}: ",
            rivals=tuple(n for n in numbers[document][max(0, place - 2) : place + 3] if n != number),
        )


def _ragbench(parts: Parts) -> Iterator[Outcome]:
    for row in parts["rows"]:
        row_id, question = _text(row["id"]), _text(row["question"])
        relevant, documents = set(row["all_relevant_sentence_keys"] or []), row["documents"] or []
        if not documents:
            yield Dropped(row_id, "its passage is missing")
            continue
        if not relevant:
            yield Unknown(row_id, question)
            continue
        sentences = [
            (number, pair[1])
            for number, group in enumerate(row["documents_sentences"] or [])
            for pair in group
            if pair[0] in relevant
        ]
        response = _text(row["response"])
        valued = [(number, text, shared_value(response, text, question)) for number, text in sentences]
        number, text, value = max(valued, key=lambda found: len(found[2]), default=(0, "", ""))
        if not value or number >= len(documents):
            yield Dropped(row_id, "answer and evidence share no short value")
            continue
        passage = documents[number]
        yield Asked(row_id, question, value, passage, document=clean(passage)[:60], evidence=text)


def _multidoc2dial(parts: Parts) -> Iterator[Outcome]:
    documents = {_text(row["doc_id"]): row for row in parts["document"]}
    for row in parts["dialogue"]:
        row_id, turns = _text(row["dial_id"]), row["turns"] or []
        if len(turns) < 2 or turns[0]["role"] != "user" or turns[1]["role"] != "agent":
            yield Dropped(row_id, "it does not begin with a user's question and an agent's answer")
            continue
        question, reply = _text(turns[0]["utterance"]), turns[1]
        if reply["da"] == "respond_no_solution":
            yield Unknown(row_id, question)
            continue
        references = reply["references"] or []
        document = documents.get(_text(references[0]["doc_id"])) if references else None
        if document is None:
            yield Dropped(row_id, "its passage is missing")
            continue
        wanted = {_text(r["id_sp"]) for r in references if r["doc_id"] == document["doc_id"]}
        spans = [span for span in document["spans"] or [] if _text(span["id_sp"]) in wanted]
        valued = [(shared_value(_text(reply["utterance"]), span["text_sp"], question), span) for span in spans]
        value, span = max(valued, key=lambda found: len(found[0]), default=("", row))
        if not value:
            yield Dropped(row_id, "answer and evidence share no short value")
            continue
        yield Asked(
            row_id,
            question,
            value,
            _text(span["text_sec"]),
            document=_text(document["doc_id"]),
            title=_text(span["title"]) or _text(document["title"]),
            evidence=_text(span["text_sp"]),
        )


def _longmemeval(parts: Parts) -> Iterator[Outcome]:
    for row in parts["rows"]:
        row_id, answer = _text(row["question_id"]), _text(row["answer"])
        chat = f"chat {row_id}"
        question = f"In {chat}: {_text(row['question'])}" if row["question"] else ""
        if row_id.endswith("_abs"):
            yield Unknown(row_id, question)
            continue
        sessions = zip(
            row["haystack_session_ids"] or [],
            row["haystack_dates"] or [],
            row["haystack_sessions"] or [],
            strict=False,
        )
        evidence = [
            (session, date, turn) for session, date, turns in sessions for turn in turns if turn.get("has_answer")
        ]
        if not evidence:
            yield Dropped(row_id, "its passage is missing")
            continue
        evidence.sort(key=lambda found: found[1])
        holding = [found for found in evidence if stands_in(clean(answer), clean(_text(found[2]["content"])))]
        session, date, turn = (holding or evidence)[-1]
        yield Asked(
            row_id,
            question,
            answer,
            _text(turn["content"]),
            document=_text(session),
            title=f"{chat[0].upper()}{chat[1:]}, {date}",
            prefix=f"{chat[0].upper()}{chat[1:]}, {date}, {turn['role']}: ",
        )


def _as_question(prompt: str) -> str:
    """ "The name of the spouse of X is" -> "What is the name of the spouse of X?" """
    if prompt.endswith("?"):
        return prompt
    open_end = re.fullmatch(r"The (.+) is", prompt)
    return f"What is the {open_end[1]}?" if open_end else f"How does this go on: {prompt} ...?"


def _prompts(row: Row, part: str, kind: str) -> list[Row]:
    """The prompts of one kind of a KnowEdit row; [] where it has none."""
    return ((row.get(part) or {}).get(kind)) or []


def _knowedit(parts: Parts) -> Iterator[Outcome]:
    for number, row in enumerate(parts["rows"]):
        subject, prompt, target = (
            clean(_text(row["subject"])),
            clean(_text(row["prompt"])),
            _text(row["target_new"]),
        )
        row_id = f"row {number}"
        if not prompt:
            yield Dropped(row_id, "its question is empty")
            continue
        aliased = [_text(p.get("prompt")) for p in _prompts(row, "portability", "Subject_Aliasing")]
        wordings = [_as_question(clean(text)) for text in (*aliased, row.get("rephrase_prompt") or "") if text]
        nearby = _prompts(row, "locality", "Relation_Specificity")
        yield Asked(
            row_id,
            question=(wordings or [_as_question(prompt)])[0],
            answer=target,
            passage=f"{prompt} {clean(target)}." if target else "",
            document=subject,
            title=subject,
            rivals=tuple(text for text in _texts(row.get("ground_truth")) if text != target),
            reworded=f"What do the notes hold on {subject}?",
            beside=tuple(_as_question(clean(_text(p.get("prompt")))) for p in nearby[:1] if p.get("prompt")),
        )


def _squad_v2(parts: Parts) -> Iterator[Outcome]:
    for row in parts["rows"]:
        row_id, question = _text(row["id"]), _text(row["question"])
        answers = _texts((row["answers"] or {}).get("text"))
        if not answers:
            yield Unknown(row_id, question)
            continue
        yield Asked(
            row_id,
            question,
            answers[0],
            _text(row["context"]),
            document=_text(row["title"]),
            title=_text(row["title"]).replace("_", " "),
            aliases=tuple(answers[1:]),
        )


ADAPTERS: dict[str, Callable[[Parts], Iterable[Outcome]]] = {
    "obliqa": _obliqa,
    "emanual": _ragbench,
    "techqa": _ragbench,
    "covidqa": _ragbench,
    "multidoc2dial": _multidoc2dial,
    "longmemeval": _longmemeval,
    "knowedit": _knowedit,
    "squad_v2": _squad_v2,
}


def _local_files(card: Card, folder: Path) -> dict[str, list[str]]:
    """part -> its files in a local copy: a clone of the repository, or a folder with the files of one part.

    Where nothing lies at the repository's paths, a set of one part takes every data file, and one of several
    parts the files whose path holds the part's name.
    """
    if not folder.is_dir():
        raise TaskError(f"task hub/{card.name}: there is no folder {folder}; give one with the set's files")
    files = sorted(file for file in folder.rglob("*") if file.suffix in READERS and file.is_file())
    inside = {file: file.relative_to(folder).with_suffix("").as_posix() for file in files}
    found = {}
    for part, pattern in card.files.items():
        wanted = f"/{pattern.rpartition('.')[0]}".replace("/**/", "*/")
        placed = [file for file in files if fnmatch.fnmatch(f"/{inside[file]}", wanted)]
        loose = [file for file in files if len(card.files) == 1 or part in inside[file]]
        found[part] = [str(file) for file in placed or loose]
        if not found[part]:
            known = ", ".join(f"*{ending}" for ending in READERS)
            raise TaskError(
                f"task hub/{card.name}: {folder} holds no file of its {part}; put {pattern} of {card.repo} there, "
                f"as {known}"
            )
    return found


def _read(file: str, cache: str | None) -> list[Row]:
    """The rows of a Parquet or JSON file, by the generic readers of `datasets`; cache: None for its own."""
    import datasets

    reader = READERS[Path(file).suffix]
    return list(datasets.load_dataset(reader, data_files={"rows": [file]}, split="rows", cache_dir=cache))


def _read_local(card: Card, file: str) -> list[Row]:
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as cache:
            return _read(file, cache)
    except Exception as error:  # each reader raises its own kinds; all mean the same to a person
        raise TaskError(
            f"task hub/{card.name}: {file} cannot be read ({_said(error)}); replace it with a whole "
            f"{Path(file).suffix} file"
        ) from error
    finally:
        if shown:
            datasets.enable_progress_bars()


def _read_hub(card: Card, part: str) -> list[Row]:
    """File by file, since files of one set may differ in their columns."""
    from huggingface_hub import HfFileSystem

    place = f"the data set {card.repo} at {card.revision}"
    try:
        files = HfFileSystem().glob(f"datasets/{card.repo}@{card.revision}/{card.files[part]}")
        tables = [_read(f"hf://{file}", None) for file in sorted(files)]
    except Exception as error:  # network clients raise their own kinds; all mean the same to a person
        raise TaskError(
            f"task hub/{card.name}: {place} cannot be read from the Hub ({_said(error)}); connect to a network, "
            "or give a local copy of its files with path=<folder>"
        ) from error
    if not tables:
        raise TaskError(
            f"task hub/{card.name}: {place} has no file {card.files[part]} any more; "
            "give a local copy of its files with path=<folder>"
        )
    return [row for table in tables for row in _checked(card, part, table, card.repo)]


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")


def _checked(card: Card, part: str, rows: list[Row], place: str) -> list[Row]:
    if not rows:
        raise TaskError(f"task hub/{card.name}: {place} has no rows for its {part}; give a whole file")
    missing = [column for column in card.columns[part] if column not in rows[0]]
    if missing:
        raise TaskError(
            f"task hub/{card.name}: {place} has no column {missing[0]!r} for its {part} (it has: "
            f"{', '.join(rows[0])}); give a file of {card.repo}"
        )
    return rows


def read_parts(card: Card, path: str = "") -> dict[str, list[Row]]:
    """All rows of a set, from a local copy or from the Hub at the card's revision."""
    parts: dict[str, list[Row]] = {}
    if path:
        for part, files in _local_files(card, Path(path)).items():
            parts[part] = [row for file in files for row in _checked(card, part, _read_local(card, file), file)]
    else:
        parts = {part: _read_hub(card, part) for part in card.files}
    return parts


def load(
    name: str,
    num_clauses: int | None = None,
    seed: int = 0,
    path: str = "",
    num_train: int = 600,
    num_heldout: int = 120,
) -> TaskData:
    """The data set `name` as a task, or a seeded slice of it.

    path: a folder with its Parquet or JSON files; "" reads the Hub. num_train, num_heldout: general
    conversations, see think_sft. Raises TaskError where the files cannot be had or are not the set's.
    """
    card = CARDS[name]
    task = build(card, ADAPTERS[name](read_parts(card, path)), num_train, num_heldout)
    if not task.memories:
        raise TaskError(f"task hub/{name}: no row can be used ({' '.join(task.notes[1:3])}); give more of the set")
    return slice_task(task, num_clauses, seed)
