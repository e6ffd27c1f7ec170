"""What the tests of scoring share, whatever the language."""

from __future__ import annotations

from collections.abc import Sequence

from eval.scoring import held_values, is_abstention, is_correct, normalise
from tasks.base import QA, TaskData


def qa(
    answer: str, *, aliases: tuple[str, ...] = (), rivals: tuple[str, ...] = (), ids: tuple[str, ...] = ("c1",)
) -> QA:
    kind = "single" if ids else "unanswerable"
    return QA("q1", "?", answer, ids, aliases=aliases, rivals=rivals, kind=kind)  # type: ignore[arg-type]


def assert_one_value(forms: Sequence[str]) -> None:
    assert {form: normalise(form) for form in forms} == dict.fromkeys(forms, normalise(forms[0]))


def assert_scored_as_meant(task: TaskData, sentence: str) -> None:
    """Every key and alias is right, every rival wrong, every clause holds its keys, no clause abstains.

    sentence: with a place for the answer, like "It is {}."
    """
    texts = {memory.id: memory.text for memory in task.memories}
    for key in (*task.questions, *task.revised_questions, *(cue for m in task.memories for cue in m.cues)):
        if not key.memory_ids:
            continue
        for form in (key.answer, *key.aliases):
            assert is_correct(form, key), (key.id, form)
            assert is_correct(sentence.format(form), key), (key.id, form)
        for rival in key.rivals:
            assert not is_correct(rival, key), (key.id, rival)
        if key.kind == "single":
            assert held_values(texts[key.memory_ids[0]], key) == (True, ()), key.id
    assert not any(map(is_abstention, texts.values()))
