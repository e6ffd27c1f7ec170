"""Retention metrics on planted methods and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import (
    ABSTAINS,
    FORGETS_AFTER,
    UNANSWERABLE,
    always_right,
    answer,
    copies_the_old_value,
    dialogues,
    forgets,
    never_closes,
    question,
    raw_of,
    right,
    right_with,
    turn,
    unclosed,
    wrong,
)

from eval.records import RecordError, TurnRecord
from eval.retention import (
    abstention_precision,
    abstention_recall,
    accuracy,
    at_distance,
    behind_a_clause,
    by_kind,
    by_turn,
    consistency,
    exact_matches,
    f1,
    first_ask,
    flips,
    repeats,
    same_facts,
)
from eval.stats import estimate


def says(final: str) -> TurnRecord:
    return turn(3, "re_ask", answer(raw_of("Hm.", final)), index=1)


def test_always_right() -> None:
    records = dialogues(always_right)
    assert accuracy(records).mean == consistency(records).mean == 1.0
    assert len(accuracy(records)) == 20 * 5 * 3  # ordinary turns are not scored
    assert flips(records).mean == 0.0
    assert abstention_precision(records).mean == abstention_recall(records).mean == 1.0


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_right_with_probability_p_is_inside_the_interval(p: float) -> None:
    """Twenty planted runs; a 95% interval misses at most three of them (probability 0.016 of more)."""
    missed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        records = dialogues(right_with(p, rng))
        found = estimate(first_ask(records))
        assert found.low is not None and found.high is not None and found.n == 100
        missed += not found.low <= p <= found.high
    assert missed <= 3


def test_forgetting_shows_at_the_planted_distance() -> None:
    records = dialogues(forgets)
    for d in (0, 1, 2, 4, 8):
        expected = float(d <= FORGETS_AFTER)
        assert at_distance(records, d).mean == expected
        assert at_distance(records, d, "re_ask").mean == expected
        assert at_distance(records, d, cued=False).mean == expected
    assert at_distance(records, 3).reason == "no first_ask at distance 3"
    assert first_ask(records).mean == 0.6


def test_an_unclosed_think_is_wrong_even_if_it_holds_the_answer() -> None:
    records = dialogues(never_closes)
    assert accuracy(records).mean == exact_matches(records).mean == f1(records).mean == 0.0
    assert consistency(records).mean == 0.0
    assert abstention_precision(records).reason == "it never abstains"
    assert abstention_recall(records).mean == 0.0


def test_copying_the_old_value_flips_every_re_ask() -> None:
    records = dialogues(copies_the_old_value)
    assert first_ask(records).mean == 1.0
    assert by_kind(records, "re_ask").mean == 0.0
    assert flips(records).mean == 1.0
    assert consistency(records).mean == 0.0


def test_cued_and_uncued_first_asks_apart() -> None:
    records = [
        turn(0, "first_ask", right(0)),
        turn(2, "first_ask", wrong(2)),
        turn(1, "first_ask", right(1)),
        turn(4, "re_ask", wrong(4)),
    ]
    assert first_ask(records, cued=True).values.tolist() == [1, 0]
    assert first_ask(records, cued=False).values.tolist() == [1]
    assert first_ask(records).mean == pytest.approx(2 / 3)
    assert first_ask(records[:2], cued=False).reason == "no first ask about an uncued clause"


def test_by_kind_and_by_turn() -> None:
    records = [
        turn(1, "first_ask", right(1), index=0),
        turn(1, "follow_up", wrong(1), index=2, dialogue="d1"),
        turn(2, "first_ask", wrong(2), index=0),
        turn(2, "near_miss", right(2), index=2),
        turn(2, "ordinary", right(2), index=3),
    ]
    assert by_kind(records, "follow_up").mean == 0.0
    assert by_kind(records, "near_miss").mean == 1.0
    assert by_kind(records, "two_clause").mean is None
    curves = {kind: {at: drawn.mean for at, drawn in curve.items()} for kind, curve in by_turn(records).items()}
    assert curves == {"first_ask": {0: 0.5}, "follow_up": {2: 0.0}, "near_miss": {2: 1.0}}


def test_a_curve_over_the_distance_rests_on_the_same_facts() -> None:
    records = [
        turn(1, "first_ask", right(1), distance=0, dialogue="a"),
        turn(2, "first_ask", wrong(2), distance=0, dialogue="b"),
        turn(2, "first_ask", right(2), distance=4, index=4, dialogue="c"),
        turn(3, "first_ask", right(3), distance=8, index=8, dialogue="d"),
    ]
    assert [r.dialogue_id for r in same_facts(records, 4)] == ["b", "c"]
    assert [r.dialogue_id for r in same_facts(records, 8)] == ["d"]


def test_behind_a_clause_is_later_in_the_same_dialogue() -> None:
    records = [
        turn(1, "ordinary", right(1), index=0, dialogue="a"),
        turn(1, "first_ask", right(1), index=1, dialogue="a"),
        turn(1, "ordinary", right(1), index=2, dialogue="a"),
        turn(1, "ordinary", right(1), index=2, dialogue="b"),
    ]
    assert behind_a_clause(records) == [records[2]]


def test_consistency_compares_what_is_said() -> None:
    first = turn(3, "first_ask", right(3), index=0)
    assert consistency([first, says("EUR 103.")]).mean == 1.0
    assert consistency([first, says("one hundred and three euros a day")]).mean == 1.0
    assert consistency([first, says("503 euros")]).mean == 0.0
    assert consistency([first, says(ABSTAINS)]).mean == 0.0
    assert consistency([first, turn(3, "re_ask", unclosed(3), index=1)]).mean == 0.0
    both_wrong = [turn(3, "first_ask", wrong(3), index=0), says("That would be 503 euros")]
    assert consistency(both_wrong).mean == 1.0 and flips(both_wrong).mean is None


def test_a_repeat_is_of_the_latest_earlier_ask_of_the_same_fact_in_the_same_dialogue() -> None:
    first = turn(3, "first_ask", right(3), index=0)
    other_slot = turn(3, "first_ask", wrong(3), index=1, qa=question(3, "form"))
    claimed = turn(3, "contradiction", wrong(3), index=2)
    later = turn(3, "re_ask", right(3), index=4)
    other_seed = turn(3, "first_ask", wrong(3), index=0, seed=1)
    records = [later, other_seed, claimed, other_slot, first]
    assert repeats(records) == [(claimed, later)]
    assert repeats(records, "contradiction") == [(first, claimed)]
    assert flips(records, "contradiction").mean == 1.0
    assert flips(records).mean is None  # it was wrong just before


def test_abstention_precision_and_recall_by_hand() -> None:
    no = answer(raw_of("Hm.", ABSTAINS))
    records = [
        turn(1, "unanswerable", no, qa=UNANSWERABLE),
        turn(2, "unanswerable", right(2), qa=UNANSWERABLE),
        turn(3, "first_ask", no),
        turn(4, "first_ask", no),
        turn(5, "first_ask", right(5)),
        turn(6, "ordinary", no),
    ]
    assert abstention_precision(records).mean == pytest.approx(1 / 3)
    assert abstention_recall(records).mean == 0.5
    assert accuracy(records).mean == pytest.approx(2 / 5)


def test_broken_records_are_named() -> None:
    first = turn(3, "first_ask", right(3), index=0)
    with pytest.raises(RecordError, match=r"recall/0/d3/0.*distance"):
        at_distance([replace(first, distance=None)], 0)
    with pytest.raises(RecordError, match=r"recall/0/d3/0.*cued"):
        first_ask([replace(first, cued=None)])
    with pytest.raises(RecordError, match=r"recall/0/d3/1.*earlier record"):
        consistency([says("40")])
    broken = replace(first, qa=replace(question(3), answer="!?"))
    with pytest.raises(RecordError, match=r"recall/0/d3/0.*c3/amount"):
        accuracy([broken])


def test_a_scored_turn_without_a_key_is_named() -> None:
    """Left out, it would raise no question and lower no share."""
    keyless = replace(turn(3, "first_ask", right(3)), qa=None)
    for metric in (accuracy, first_ask, by_turn, abstention_recall):
        with pytest.raises(RecordError, match=r"recall/0/d3/0: a first_ask without a key"):
            metric([keyless])
