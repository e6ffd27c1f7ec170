"""What the packaged manual promises beyond test_packaged.py: its shape, and questions that name their entry."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from tasks.base import Memory
from tasks.handbook import stands_in
from tasks.registry import load_task
from tasks.validate import nearly_equal

MANUAL = load_task("manual")


def _facts(memory: Memory) -> dict[str, tuple[str, ...]]:
    """slot -> answer, aliases"""
    prefix = f"{memory.id}/"
    return {key.removeprefix(prefix): forms for key, forms in MANUAL.facts.items() if key.startswith(prefix)}


def test_it_has_chapters_of_families_and_entries_of_one_length() -> None:
    chapters = {memory.family.rpartition("/")[0] for memory in MANUAL.memories}
    assert len(chapters) >= 8
    assert len({memory.family for memory in MANUAL.memories}) >= 27
    for memory in MANUAL.memories:
        assert 25 <= len(memory.text.split()) <= 60, memory.id
        assert len(_facts(memory)) == 3, memory.id


def test_the_held_out_questions_of_an_entry_cover_its_facts() -> None:
    """One of the three for dev; each fact of a family is a dev question of just one of its entries."""
    dev = Counter[tuple[str, str]]()
    for memory in MANUAL.memories:
        asked = [qa for qa in MANUAL.questions if qa.kind == "single" and qa.memory_ids == (memory.id,)]
        assert sorted(qa.slot for qa in asked) == sorted(_facts(memory)), memory.id
        dev.update((memory.family, qa.slot) for qa in asked if qa.split == "dev")
    assert set(dev.values()) == {1}
    assert len(dev) == len(MANUAL.memories)


def test_every_question_names_what_sets_its_entry_apart() -> None:
    """Else a sibling's value would be as right an answer."""
    for memory in MANUAL.memories:
        own = [qa for qa in MANUAL.questions if qa.kind == "single" and qa.memory_ids == (memory.id,)]
        asked = [qa.question for qa in (*memory.cues, *own)]
        for question in asked:
            assert memory.variant.lower() in question.lower(), question
        for sibling in MANUAL.memories:
            if sibling.family == memory.family and sibling.id != memory.id:
                assert not any(stands_in(sibling.variant, question) for question in asked), memory.id


def _frame(memory: Memory) -> str:
    """The text with a blank for its variant and for each value."""
    text = memory.text
    parts = [memory.variant, *(forms[0] for forms in _facts(memory).values())]
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, "_").replace(part[0].upper() + part[1:], "_")
    return text


def test_siblings_tell_the_same_rule_with_other_values() -> None:
    for one, two in combinations(MANUAL.memories, 2):
        if one.family == two.family:
            assert _frame(one) == _frame(two)
            for slot, forms in _facts(one).items():
                assert not set(forms) & set(_facts(two)[slot]), (one.id, two.id, slot)


def test_a_title_gives_no_value_away() -> None:
    for memory in MANUAL.memories:
        for forms in _facts(memory).values():
            assert not any(stands_in(form, memory.title) for form in forms), memory.id


def test_a_revision_changes_values_and_keeps_the_rule() -> None:
    """Some of what it changes is asked for in the test split; the text keeps its shape."""
    asked = {qa.memory_ids[0] for qa in MANUAL.revised_questions if qa.split == "test"}
    for revision in MANUAL.revisions:
        old = MANUAL.memory(revision.id)
        assert revision.id in asked
        assert len(revision.text.split()) == len(old.text.split()), revision.id
        assert (revision.title, revision.variant) == (old.title, old.variant)


def test_it_shares_no_question_with_the_handbook() -> None:
    """So that the two domains can be told apart, and a model trained on one meets the other unprepared."""
    handbook = load_task("regs")
    ours = {qa.question for qa in MANUAL.questions}
    theirs = [qa.question for qa in (*handbook.questions, *(cue for m in handbook.memories for cue in m.cues))]
    assert not [(one, two) for one in ours for two in theirs if nearly_equal(one, two)]
