"""The scorer against answers that people judged: pairs by hand, and answers that are wrong to any question."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_cases import canaries, held_out, pairs, qa

from eval.scoring import asserts_key, is_correct
from tasks import spelling
from tasks.registry import load_task

# Forms of English and Chinese answers, right and wrong, each judged by hand and none by the scorer.
# The second file was written without sight of the scorer's code. Known errors: "before 4 January" and
# "after 8:00" count as the date and the time, because some questions ask for just such a limit.
AUDIT = [pair for name in ("gold_audit.csv", "gold_audit_second.csv") for pair in pairs(name)]
MOST_WRONG = 0.01


@pytest.mark.parametrize(("answer", "key", "right"), pairs("scoring_pairs.csv"), ids=map(str, count(2)))
def test_a_pair_that_went_wrong_once(answer: str, key: object, right: bool) -> None:
    assert is_correct(answer, key) is right  # type: ignore[arg-type]


def test_the_audit_is_large_and_holds_both_sides() -> None:
    right = sum(right for _, _, right in AUDIT)
    assert len(AUDIT) >= 400 and right >= 150 and len(AUDIT) - right >= 150
    assert sum("\u4e00" <= char <= "\u9fff" for answer, _, _ in AUDIT for char in answer[:1]) >= 60


def test_the_scorer_agrees_with_the_audit() -> None:
    wrong = [(answer, key.answer, right) for answer, key, right in AUDIT if is_correct(answer, key) is not right]
    assert len(wrong) <= MOST_WRONG * len(AUDIT), wrong


def test_the_looser_figure_is_never_below() -> None:
    assert all(asserts_key(answer, key) for answer, key, _ in AUDIT if is_correct(answer, key))


@pytest.mark.parametrize("name", ["regs", "manual", "regs_zh"])
def test_no_canary_is_right(name: str) -> None:
    task = load_task(name)
    right = [
        (key.id, answer)
        for key, text in held_out(task)
        for answer in canaries(key, text, task)
        if is_correct(answer, key)
    ]
    assert right == []


@given(st.integers(2, 5000), st.sampled_from(["days", "euros", "metres", "percent", "pieces"]), st.data())
def test_a_value_is_right_alone_and_wrong_beside_another(number: int, unit: str, data: st.DataObject) -> None:
    other = data.draw(st.integers(2, 5000).filter(lambda n: n != number))
    key = qa(f"{number} {unit}")
    for right in (
        f"{number:,} {unit}",
        f"It is {number} {unit}.",
        f"{other} {unit} is wrong; it is {number} {unit}",
    ):
        assert is_correct(right, key), right
    for wrong in (f"{other} {unit}", f"{number} {unit} or {other} {unit}", f"{number} or {other} {unit}"):
        assert not is_correct(wrong, key), wrong
    for wrong in (f"It is not {number} {unit}.", f"more than {number} {unit}", f"{number} {unit}, {other} {unit}"):
        assert not is_correct(wrong, key), wrong


@given(st.integers(1, 23), st.integers(0, 59))
def test_a_time_of_day_in_both_clocks(hour: int, minute: int) -> None:
    half, twelve = "am" if hour < 12 else "pm", hour % 12 or 12
    key = qa(f"{hour}:{minute:02d}")
    assert is_correct(f"{twelve}:{minute:02d} {half}", key)
    assert not is_correct(f"{twelve}:{minute:02d} {'pm' if half == 'am' else 'am'}", key)


@given(st.integers(1, 99), st.integers(1, 59))
def test_a_sum_of_units_is_one_value(hours: int, minutes: int) -> None:
    key = qa(f"{60 * hours + minutes} minutes")
    assert is_correct(f"{hours} hours and {minutes} minutes", key)
    assert not is_correct(f"{hours} hours and {minutes % 59 + 1} minutes", key) or minutes % 59 + 1 == minutes
    assert not is_correct(f"{minutes} minutes", key)


def test_rules_of_spelling_that_are_skipped_would_change_nothing() -> None:
    found = [
        text
        for name in ("scoring_pairs.csv", "gold_audit.csv")
        for answer, key, _ in pairs(name)
        for text in (answer, key.answer)
    ]
    for text in found:
        for rules, start in zip(spelling._STAGES, (text, text.lower()), strict=True):
            whole = start
            for _, pattern, new in rules:
                whole = pattern.sub(new, whole)
            assert spelling._rewritten(start, rules) == whole
