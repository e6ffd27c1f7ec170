"""Two runs, or two of lm-eval's logs, against each other: paired by question, refused where nothing pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import dialogues, right_with

from eval.lm_eval_log import is_log, log_files, read_log, task_of
from eval.records import RecordError, TurnRecord
from eval.two_runs import IncomparableError, Row, compare_runs, sides_of_logs, sides_of_run

RNG = np.random.default_rng
GREEDY = {"sampling.do_sample": False}


def run(share: float, seeds: tuple[int, ...] = (0,), at: int = 0) -> list[TurnRecord]:
    return [record for seed in seeds for record in dialogues(right_with(share, RNG([seed, at])), 12, seed=seed)]


def rows_of(a: list[TurnRecord], b: list[TurnRecord]) -> dict[str, Row]:
    sides = [sides_of_run(turns, GREEDY)["recall"] for turns in (a, b)]
    return {row.metric: row for row in compare_runs([(sides[0], sides[1])])}


# --- runs ---------------------------------------------------------------------------------------


def test_a_run_is_not_told_apart_from_itself() -> None:
    turns = run(0.6)
    for row in rows_of(turns, turns).values():
        assert (row.outcome, row.difference.value, row.unpaired) == ("not told apart", 0.0, (0, 0))


def test_a_planted_difference_is_found_whatever_the_order_of_records() -> None:
    better, worse = run(0.9), run(0.4, at=1)
    row = rows_of(better, worse)["retention/accuracy"]
    assert row.outcome == "different" and row.difference.low > 0
    assert rows_of(better[::-1], worse)["retention/accuracy"] == row
    assert rows_of(worse, better)["retention/accuracy"].difference.value == -row.difference.value


def test_copies_of_one_share_are_rarely_different() -> None:
    found = [rows_of(run(0.6, at=2 * i), run(0.6, at=2 * i + 1)) for i in range(10)]
    assert sum(rows["retention/accuracy"].outcome == "different" for rows in found) <= 2


def test_other_seeds_are_paired_by_question() -> None:
    """Every clause is asked for in every seed: all questions pair, by their means over a run's seeds."""
    row = rows_of(run(0.9, (0, 1)), run(0.4, (2, 3), at=1))["retention/accuracy"]
    assert row.outcome == "different"
    assert row.difference.n == 12 * 2 + 1  # a question a clause and kind; the unanswerable one is the same for all


def test_a_question_that_one_side_lacks_is_counted() -> None:
    turns = run(0.6)
    fewer = [record for record in turns if record.dialogue_id != "c0/0"]
    row = rows_of(turns, fewer)["retention/accuracy"]
    assert row.difference.n == sum(record.kind != "ordinary" for record in fewer)
    assert row.unpaired == (3, 0)


def rekeyed(turns: list[TurnRecord]) -> list[TurnRecord]:
    return [r if r.qa is None else replace(r, qa=replace(r.qa, answer="9 euros")) for r in turns]


def renamed(turns: list[TurnRecord]) -> list[TurnRecord]:
    return [r if r.qa is None else replace(r, qa=replace(r.qa, id=f"other/{r.qa.id}")) for r in turns]


@pytest.mark.parametrize(
    ("change", "said"), [(rekeyed, "another scorer or other data"), (renamed, "other data: 0")]
)
def test_other_questions_and_other_keys_are_incomparable(
    change: Callable[[list[TurnRecord]], list[TurnRecord]], said: str
) -> None:
    with pytest.raises(IncomparableError, match=said):
        rows_of(run(0.6), change(run(0.6)))


def test_another_decoding_is_incomparable() -> None:
    a, b = (sides_of_run(run(0.6), {"sampling.do_sample": sampled})["recall"] for sampled in (False, True))
    with pytest.raises(IncomparableError, match=r"another decoding: .*False against .*True"):
        compare_runs([(a, b)])


# --- lm-eval's logs -----------------------------------------------------------------------------


def write(path: Path, right: list[bool], **changed: Any) -> Path:
    """As lm-eval writes them: a line a document, with the value of its metric under the metric's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metric = changed.pop("metric", "acc")
    with path.open("w", encoding="utf-8") as file:
        for number, found in enumerate(right):
            settings = {"until": ["\n"], "temperature": changed.get("temperature", 0.0)}
            body = {
                "doc_id": number + changed.get("shift", 0),
                "doc": {"question": f"What is {number}?"},
                "target": "4",
                "arguments": {"gen_args_0": {"arg_0": "a prompt", "arg_1": settings}},
                "filter": "none",
                "metrics": [metric],
                "doc_hash": f"{changed.get('data', 'hash')}{number}",
                "target_hash": "t",
                metric: float(found),
            }
            file.write(json.dumps(body) + "\n")
    return path


RIGHT = [bool(x) for x in RNG(0).random(200) < 0.7]
WRONG_MORE = [right and bool(x) for right, x in zip(RIGHT, RNG(1).random(200) < 0.7, strict=True)]


def logged(a: Path, b: Path) -> list[Row]:
    (one,), (other,) = (sides_of_logs([read_log(file)]).values() for file in (a, b))
    return compare_runs([(one, other)])


def test_logs_are_paired_by_document(tmp_path: Path) -> None:
    a = write(tmp_path / "samples_arc.jsonl", RIGHT)
    (row,) = logged(a, write(tmp_path / "b" / "samples_arc.jsonl", WRONG_MORE))
    value = float(np.mean(RIGHT) - np.mean(WRONG_MORE))
    assert (row.name, row.metric, row.outcome) == ("arc", "acc", "different")
    assert row.difference.value == pytest.approx(value)
    half = 1.972 * np.std(np.array(RIGHT, float) - WRONG_MORE, ddof=1) / np.sqrt(200)
    assert row.difference.high - value == pytest.approx(half, rel=0.02)


def test_documents_keep_their_names_where_the_numbers_changed(tmp_path: Path) -> None:
    a = write(tmp_path / "samples_arc.jsonl", RIGHT)
    (row,) = logged(a, write(tmp_path / "b" / "samples_arc.jsonl", RIGHT, shift=7))
    assert (row.difference.n, row.difference.value) == (200, 0.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"metric": "exact_match"}, "another scorer: arc has acc against exact_match"),
        ({"data": "other"}, "other data: 0 questions in common"),
        ({"temperature": 0.7}, r"another decoding: .*0\.0.* against .*0\.7"),
    ],
)
def test_logs_that_do_not_compare_say_why(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    a = write(tmp_path / "samples_arc.jsonl", RIGHT)
    with pytest.raises(IncomparableError, match=said):
        logged(a, write(tmp_path / "b" / "samples_arc.jsonl", WRONG_MORE, **changed))


def test_what_lm_eval_writes_is_read(tmp_path: Path) -> None:
    """By lm-eval's own writer, two filters and a figure that is no number."""
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(tmp_path))
    tracker.general_config_tracker.model_name_sanitized = "model"
    tracker.date_id = "2026-01-31T12-00-00.123456"
    samples = [
        {
            "doc_id": number,
            "doc": {},
            "target": 4,
            "arguments": [("a prompt", {"until": ["\n"], "do_sample": False})],
            "resps": [["4"]],
            "filtered_resps": ["4"],
            "filter": name,
            "metrics": ["exact_match", "word_perplexity"],
            "doc_hash": str(number),
            "prompt_hash": "",
            "target_hash": "",
            "exact_match": float(number),
            "word_perplexity": (0.5, 3),
        }
        for number in (0, 1)
        for name in ("strict-match", "flexible-extract")
    ]
    tracker.save_results_samples("gsm8k", samples)
    (file,) = log_files(tmp_path / "model")
    log = read_log(file)
    assert log.task == task_of(file) == "gsm8k"
    assert log.metrics == {
        f"exact_match, {name}": {"0": 0.0, "1": 1.0} for name in ("strict-match", "flexible-extract")
    }
    assert json.loads(log.decoding["0"]) == {"until": ["\n"], "do_sample": False}


def test_the_newest_log_of_a_task_counts(tmp_path: Path) -> None:
    for day in ("01", "02"):
        write(tmp_path / f"samples_arc_2026-01-{day}T12-00-00.5.jsonl", RIGHT)
    write(tmp_path / "samples_boolq_2026-01-01T12-00-00.5.jsonl", RIGHT)
    assert [file.name[:23] for file in log_files(tmp_path)] == [
        "samples_arc_2026-01-02T",
        "samples_boolq_2026-01-0",
    ]
    assert is_log(tmp_path) and not is_log(tmp_path / "absent")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"doc_id": 0, "acc": ', "not a whole JSON line"),
        ('{"acc": 1.0}', "doc_id is missing"),
        ('{"doc_id": 0, "filter": "none", "metrics": ["acc"], "acc": 1.0}', "comes twice"),
    ],
)
def test_a_log_that_is_none_is_named_by_its_line(tmp_path: Path, line: str, said: str) -> None:
    file = write(tmp_path / "samples_arc.jsonl", [True])
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(RecordError, match=rf"samples_arc\.jsonl:2: .*{said}"):
        read_log(file)
