"""What the tests of scoring share, whatever the language."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from eval.scoring import held_values, is_abstention, is_correct, normalise
from tasks.base import NO_CLAUSE, QA, TaskData


def qa(
    answer: str,
    *,
    aliases: tuple[str, ...] = (),
    rivals: tuple[str, ...] = (),
    beside: tuple[str, ...] = (),
    ids: tuple[str, ...] = ("c1",),
    question: str = "?",
) -> QA:
    kind = "single" if ids else "unanswerable"
    return QA("q1", question, answer, ids, aliases, rivals, beside, kind=kind)  # type: ignore[arg-type]


def pairs(name: str) -> Iterator[tuple[str, QA, bool]]:
    """(answer, question, whether it is right) of each row of a file beside this one; no key: unanswerable."""
    with (Path(__file__).parent / name).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            aliases, rivals, beside = (
                tuple(form for form in (row.get(column) or "").split("|") if form)
                for column in ("aliases", "rivals", "beside")
            )
            ids = ("c1",) if row["key"] else ()
            key = qa(row["key"], aliases=aliases, rivals=rivals, beside=beside, ids=ids)
            yield row["answer"], QA(**{**vars(key), "question": row.get("question") or "?"}), row["right"] == "yes"


def assert_one_value(forms: Sequence[str]) -> None:
    assert {form: normalise(form) for form in forms} == dict.fromkeys(forms, normalise(forms[0]))


def held_out(task: TaskData) -> Iterator[tuple[QA, str]]:
    """Every held-out question with the text that it rests on."""
    old, new = ({memory.id: memory.text for memory in part} for part in (task.memories, task.revisions))
    for key in (*task.questions, *task.revised_questions):
        texts = new if key.kind == "revised" else old
        yield key, " ".join(texts[memory_id] for memory_id in key.memory_ids)


def assert_scored_as_meant(task: TaskData, sentence: str) -> None:
    """Every key and alias is right, every rival wrong, every clause holds its key, no clause abstains.

    sentence: with a place for the answer, like "It is {}."
    """
    for key, text in held_out(task):
        if not key.memory_ids:
            assert is_correct(NO_CLAUSE[task.language][1], key), key.id
            continue
        for form in (key.answer, *key.aliases):
            assert is_correct(form, key), (key.id, form)
            assert is_correct(sentence.format(form), key), (key.id, form)
        for rival in key.rivals:
            assert not is_correct(rival, key), (key.id, rival)
        if key.kind != "two_clause":
            assert held_values(text, key) == (True, ()), key.id
    assert not any(is_abstention(memory.text) for memory in task.memories)


def canaries(key: QA, text: str, task: TaskData) -> Iterator[str]:
    """Answers that are wrong to any question: the clause, its facts, the question again, hedges, inventions."""
    chinese = task.language == "zh"
    said = NO_CLAUSE[task.language][1]
    yield from (key.question, key.question.rstrip("?？"), "", "42.")
    if not key.memory_ids:
        yield from ("Yes.", "是的。", f"{said} It is usually 5 days.", f"{said}一般是5天。")
        return
    facts = [forms[0] for place, forms in task.facts.items() if place.rpartition("/")[0] in key.memory_ids]
    yield from (text, said, ", ".join(facts), "、".join(facts), *key.beside)
    for rival in key.rivals[:3]:
        yield from (rival, f"{key.answer}或{rival}" if chinese else f"{rival} or {key.answer}")
        yield f"是{rival}，不是{key.answer}。" if chinese else f"It is {rival}, not {key.answer}."
    yield f"不是{key.answer}。" if chinese else f"It is not {key.answer}."
