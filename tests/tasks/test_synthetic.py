"""Synthetic handbooks: made from (seed, i) alone, without collisions, sound at any size, in constant memory."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections import Counter

import pytest

from pipelines.cli import compose_config
from pipelines.config import resolve
from tasks import synthetic
from tasks.base import QA, TaskData, TaskError
from tasks.handbook import stands_in
from tasks.synthetic import DATA, FAMILY, clauses, load, place_name
from tasks.validate import content_words, problems

MAX_GROWTH_BYTES = 2_000_000


def small(num_clauses: int, seed: int = 0, **options: int) -> TaskData:
    return load(num_clauses, seed, num_train=60, num_heldout=60, **options)


def test_a_shorter_handbook_is_the_beginning_of_a_longer_one() -> None:
    longer = list(clauses(200, seed=3))
    assert list(clauses(77, seed=3)) == longer[:77]
    assert len({memory.id for memory in longer}) == len({memory.text for memory in longer}) == 200
    assert [m.text for m in clauses(77, seed=4)] != [m.text for m in longer[:77]]


def test_a_clause_does_not_depend_on_what_was_made_before() -> None:
    wanted = list(clauses(90, seed=5))[60:63]
    synthetic._rule_order.cache_clear()
    synthetic._name_step.cache_clear()
    assert [synthetic._memory(synthetic._family(20, 5), k) for k in range(FAMILY)] == wanted


def test_twenty_thousand_clauses_take_constant_memory() -> None:
    stream = clauses(20_000, seed=1)
    list(itertools.islice(stream, 300))  # rules and caches are read
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        num_left = sum(1 for _ in stream)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert num_left == 19_700
    assert peak - before < MAX_GROWTH_BYTES


def test_no_two_places_of_a_hundred_thousand_clauses_share_a_name() -> None:
    num_families = 33_334
    assert len({place_name(number, seed=2) for number in range(num_families)}) == num_families


@pytest.mark.parametrize(("num_clauses", "seed"), [(3, 4), (10, 0), (18, 7), (45, 1), (300, 2)])
def test_it_is_sound_at_any_size(num_clauses: int, seed: int) -> None:
    task = small(num_clauses, seed)
    assert problems(task) == []
    assert len(task.memories) == -(-num_clauses // FAMILY) * FAMILY


def test_each_family_is_three_near_misses_one_of_them_uncued() -> None:
    families = Counter((m.family, m.cued) for m in clauses(300))
    names = {family for family, _ in families}
    assert len(names) == 100
    assert all((families[name, True], families[name, False]) == (2, 1) for name in names)


def test_every_rule_comes_up_and_there_are_many() -> None:
    rules = {m.family.split("/")[0] for m in clauses(3 * len(synthetic._rules()))}
    assert rules == {rule.name for rule in synthetic._rules()}
    assert len(rules) >= 24


def test_the_facts_of_a_family_differ_and_stand_in_their_clauses() -> None:
    task = small(300)
    texts = {m.id: m.text for m in task.memories}
    family_of = {m.id: m.family for m in task.memories}
    seen: dict[tuple[str, str], set[str]] = {}
    for key, (answer, *_) in task.facts.items():
        memory_id, _, slot = key.rpartition("/")
        assert stands_in(answer, texts[memory_id]), key
        others = seen.setdefault((family_of[memory_id], slot), set())
        assert answer not in others, key
        others.add(answer)
    assert set(task.follow_ups) == set(task.facts)


def test_no_form_of_a_slot_stands_in_another_one() -> None:
    for number in range(3 * len(synthetic._rules())):
        for values in synthetic._family(number, 8).values.values():
            for one, other in itertools.permutations(values, 2):
                assert not any(stands_in(form, mine) for form in other for mine in one), (one, other)


def test_cues_reason_in_the_one_frame() -> None:
    for memory in clauses(120):
        for cue in memory.cues:
            assert cue.think.startswith("The question asks ")
            assert cue.think.endswith(f" {cue.answer}, so the answer is {cue.answer}.")


def test_two_clause_answers_are_the_larger_amount() -> None:
    task = small(300)
    asked = [qa for qa in task.questions if qa.kind == "two_clause"]
    assert {qa.split for qa in asked} == {"dev", "test"}
    for qa in asked:
        right, wrong = _compared(task, qa)
        assert right > wrong, qa.id
        assert stands_in(qa.answer, qa.question) and stands_in(qa.rivals[0], qa.question)


def _compared(task: TaskData, qa: QA) -> tuple[int, int]:
    """The amounts of the clause that is the answer, and of the other one."""
    amounts = {}
    for memory_id in qa.memory_ids:
        memory = task.memory(memory_id)
        facts = [task.facts[key][0] for key in task.facts if key.startswith(f"{memory_id}/")]
        amounts[memory.variant.removeprefix("the ")] = next(int(f.split()[0]) for f in facts if f[0].isdigit())
    return amounts[qa.answer], amounts[qa.rivals[0]]


def test_a_revision_changes_the_key_and_makes_the_old_one_a_rival() -> None:
    task = small(300)
    old = {qa.id: qa for qa in task.questions}
    assert len(task.revisions) >= 15
    for qa in task.revised_questions:
        before = old[qa.id.removesuffix("/revised")]
        assert qa.answer != before.answer
        assert before.answer in qa.rivals


def test_a_large_handbook_is_asked_about_in_part() -> None:
    task = small(900, num_asked=30)
    asked = {memory_id for qa in task.questions for memory_id in qa.memory_ids}
    assert len(task.memories) == 900
    assert len(asked) == 30
    assert {key.rpartition("/")[0] for key in task.facts} == asked


def test_things_that_no_rule_is_about_share_no_word_with_the_rules() -> None:
    unknown = json.loads((DATA / "unknown.json").read_text(encoding="utf-8"))
    things = [thing for split in ("train", "dev", "test") for thing in unknown[split]]
    rules = content_words((DATA / "rules.jsonl").read_text(encoding="utf-8") + " ".join(synthetic._TAILS))
    assert not rules & {word for thing in things for word in content_words(thing)}
    counts = Counter(word for thing in things for word in thing.split())
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("num_clauses", [-3, 2, 100_001])
def test_a_size_out_of_range_is_refused(num_clauses: int) -> None:
    with pytest.raises(TaskError, match=rf"num_clauses={num_clauses}.*3 to 100000"):
        load(num_clauses)


def test_too_few_asked_clauses_are_refused() -> None:
    with pytest.raises(TaskError, match=r"num_asked=2.*at least 3"):
        load(30, num_asked=2)


def test_the_version_tells_handbooks_apart() -> None:
    versions = {small(30).version, small(30, seed=1).version, small(60).version}
    assert len(versions) == 3
    assert small(30).version in versions


def test_the_command_line_sets_its_size_and_how_much_is_asked() -> None:
    words = ["task=synthetic", "task.num_clauses=90", "task.num_asked=12"]
    task = resolve(compose_config("compare", words)).task.load(seed=1)
    assert len(task.memories) == 90
    assert len({memory_id for qa in task.questions for memory_id in qa.memory_ids}) == 12
