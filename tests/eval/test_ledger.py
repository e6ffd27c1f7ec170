"""The chain from question to answer, link by link, by hand and on planted methods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import (
    UNANSWERABLE,
    always_right,
    answer,
    clause,
    dialogues,
    plain,
    question,
    raw_of,
    recall_raw,
    recalls_at_random,
    right,
    turn,
    wrong,
)

from eval.ledger import (
    correct_given_verbatim,
    false_recall,
    gold,
    hit_at_1,
    hit_at_k,
    memory_path,
    missed_recall,
    null_on_unanswerable,
    recited_in_think,
    trigger,
    unaided,
    used,
    verbatim_given_hit,
)
from eval.records import RecordError
from eval.retention import accuracy
from eval.stats import estimate
from methods.base import Lookup
from tasks.base import QA


def test_recall_link_by_link() -> None:
    garbled = answer(recall_raw("Staff may", "101 euros"), (Lookup("c1", 0.9, "Staff may"),))
    null = answer(recall_raw("", "102 euros"), (Lookup("", 0.9, ""),))
    silent = answer(raw_of("Hm.", "103 euros"))
    misused = answer(recall_raw(clause(5), "999 euros"), (Lookup("c5", 0.9, clause(5)),))
    records = [
        turn(0, "first_ask", right(0)),
        turn(1, "first_ask", garbled),
        turn(2, "first_ask", null),
        turn(3, "first_ask", silent),
        turn(4, "first_ask", wrong(4)),
        turn(5, "first_ask", misused),
        turn(6, "unanswerable", plain(6, "unanswerable"), qa=UNANSWERABLE),
        turn(7, "unanswerable", right(7), qa=UNANSWERABLE),
        turn(8, "ordinary", right(8)),
        turn(9, "ordinary", null),
    ]
    assert memory_path(records) == "recall"
    assert trigger(records).values.tolist() == [1, 1, 1, 0, 1, 1]
    assert hit_at_1(records).values.tolist() == [1, 1, 0, 0, 1]
    assert hit_at_k(records).values.tolist() == [1, 1, 0, 1, 1]
    assert verbatim_given_hit(records).values.tolist() == [1, 0, 1]
    assert correct_given_verbatim(records).values.tolist() == [1, 0]
    assert gold(records, "recall").values.tolist() == [1, 0, 0, 0, 0, 1]
    assert used(records, "recall").values.tolist() == [1, 0]
    assert unaided(records, "recall").values.tolist() == [1, 1, 1, 0]
    assert recited_in_think(records).values.tolist() == [1, 0, 0, 0, 0, 1]
    assert missed_recall(records, "recall").values.tolist() == [0, 0, 1, 1, 0, 0]
    assert false_recall(records, "recall").values.tolist() == [1, 0]  # the null memory is no recall
    assert null_on_unanswerable(records, "recall").values.tolist() == [1, 0]


def test_rag_is_retrieved_times_used() -> None:
    def passages(*numbers: int) -> tuple[Lookup, ...]:
        return tuple(Lookup(f"c{n}", 0.5, clause(n)) for n in numbers)

    records = [
        turn(1, "first_ask", answer(raw_of("Hm.", "101 euros"), passages(1, 2)), method="rag"),
        turn(2, "first_ask", answer(raw_of("Hm.", "999 euros"), passages(3, 2)), method="rag"),
        turn(4, "first_ask", answer(raw_of("Hm.", "104 euros"), passages(5, 6)), method="rag"),
        turn(5, "ordinary", answer(raw_of("Hm.", "7"), passages(5, 6)), method="rag"),
    ]
    assert memory_path(records) == "retrieve"
    assert trigger(records).mean == 1.0
    assert hit_at_1(records).values.tolist() == [1, 0, 0]
    assert hit_at_k(records).values.tolist() == [1, 1, 0]
    assert verbatim_given_hit(records).values.tolist() == [1]
    assert gold(records, "retrieve").values.tolist() == [1, 1, 0]
    assert used(records, "retrieve").values.tolist() == [1, 0]
    assert unaided(records, "retrieve").values.tolist() == [1]
    assert false_recall(records, "retrieve").reason == "it retrieves on every turn by design"
    assert missed_recall(records, "retrieve").mean == 0.0


def test_sft_is_recited_times_used() -> None:
    records = [
        turn(1, "first_ask", answer(raw_of(f"{clause(1)}\nSo 101.", "101 euros")), method="sft"),
        turn(2, "first_ask", answer(raw_of(f"{clause(2)}\nSo 102.", "999 euros")), method="sft"),
        turn(3, "first_ask", answer(raw_of("Hm.", "103 euros")), method="sft"),
    ]
    assert memory_path(records) == "weights"
    assert recited_in_think(records).values.tolist() == [1, 1, 0]
    assert gold(records, "weights").values.tolist() == [1, 1, 0]
    assert used(records, "weights").values.tolist() == [1, 0]
    assert unaided(records, "weights").values.tolist() == [1]
    assert false_recall(records, "weights").reason == missed_recall(records, "weights").reason


def test_a_recall_method_that_never_triggers_is_one_still() -> None:
    records = [turn(1, "first_ask", answer(raw_of("Hm.", "101 euros"), memory_path="recall"), method="m")]
    assert memory_path(records) == "recall"
    assert trigger(records).mean == 0.0
    assert missed_recall(records, "recall").mean == 1.0
    assert hit_at_1(records).reason == "no lookup on an answerable ask"


def test_accuracy_is_the_sum_over_the_ledger() -> None:
    rng = np.random.default_rng(3)
    answers = recalls_at_random(4, 0.0, rng)
    asks = [record for record in dialogues(answers, num_clauses=4) if record.kind in ("first_ask", "re_ask")]
    have, use, lack = gold(asks, "recall").mean, used(asks, "recall").mean, unaided(asks, "recall").mean
    assert have and use is not None and lack is not None
    assert accuracy(asks).mean == pytest.approx(have * use + (1 - have) * lack)


def test_recall_at_random_hits_and_misfires_as_planted() -> None:
    num_clauses, p_ordinary = 20, 0.3
    rng = np.random.default_rng(0)
    records = dialogues(recalls_at_random(num_clauses, p_ordinary, rng), num_clauses)
    hits = estimate(hit_at_1(records))
    misfires = estimate(false_recall(records, "recall"))
    assert hits.low is not None and hits.high is not None and misfires.low is not None
    assert misfires.high is not None
    assert hits.low <= 1 / num_clauses <= hits.high and hits.n == 200
    assert misfires.low <= p_ordinary <= misfires.high and misfires.n == 100
    assert trigger(records).mean == 1.0


def test_a_clause_without_its_text_is_named() -> None:
    """Nothing comes back as nothing word for word: such a record would score 0 at every link."""
    textless = [replace(turn(3, "first_ask", right(3)), memory_text="")]
    for metric in (verbatim_given_hit, correct_given_verbatim, recited_in_think):
        with pytest.raises(RecordError, match=r"record recall/0/d3/0: .*no text"):
            metric(textless)
    for path in ("recall", "weights"):
        with pytest.raises(RecordError, match=r"record recall/0/d3/0: .*no text"):
            gold(textless, path)


def test_two_clause_questions_have_hits_but_no_verbatim_column() -> None:
    both = QA("t", "?", "204 euros", ("c1", "c2"), split="test", kind="two_clause")
    records = [turn(1, "two_clause", right(1), qa=both)]
    assert hit_at_1(records).mean == 1.0
    assert len(verbatim_given_hit(records)) == len(gold(records, "recall")) == 0


def test_planted_always_right() -> None:
    records = dialogues(always_right)
    for metric in (trigger, hit_at_1, hit_at_k, verbatim_given_hit, correct_given_verbatim):
        assert metric(records).mean == 1.0
    assert false_recall(records, "recall").mean == missed_recall(records, "recall").mean == 0.0
    assert question(1).id == "c1/amount"
