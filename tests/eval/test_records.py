"""Records survive the file, and a file that is not whole is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import UNANSWERABLE, answer, plain, raw_of, right, timed, turn, unclosed

from eval.records import RecordError, RecordWriter, read_records

TURNS = [
    turn(1, "first_ask", right(1)),
    turn(2, "unanswerable", plain(2, "unanswerable"), qa=UNANSWERABLE, distance=None),
    turn(3, "ordinary", answer(raw_of('Zwei\u2028Zeilen 🦊 "quoted" \\n', "ß")), distance=None),
    turn(4, "re_ask", unclosed(4), seed=2, index=7),
]
COSTS = [timed("recall", "q1", stage_s={"search": 0.25}), timed("rag", "q2", 3, memory_kind="vram")]


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "records.jsonl"
    writer = RecordWriter(path)
    writer.write([TURNS[0], COSTS[0]])
    writer.write(TURNS[1:])
    writer.write(COSTS[1:])
    writer.close()
    assert read_records(path) == (TURNS, COSTS)
    assert len(path.read_text(encoding="utf-8").split("\n")) == len(TURNS) + len(COSTS) + 1


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_any_text_and_any_float_survive(tmp_path_factory: pytest.TempPathFactory, text: str, time: float) -> None:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    record = turn(1, "first_ask", answer(text))
    cost = timed("recall", "q", total_s=time)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate is no text
        return
    writer = RecordWriter(path)
    writer.write([record, cost])
    writer.close()
    assert read_records(path) == ([record], [cost])


def test_writing_goes_on_where_a_run_stopped(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    for record in TURNS[:2]:
        writer = RecordWriter(path)
        writer.write([record])
        assert read_records(path)[0][-1] == record  # flushed before the file is closed
        writer.close()
    assert read_records(path)[0] == TURNS[:2]


def test_ids_are_distinct() -> None:
    assert TURNS[0].id == "recall/0/d1/0"
    assert TURNS[3].id == "recall/2/d4/7"
    assert len({record.id for record in TURNS}) == len(TURNS)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (lambda line: line[: len(line) // 2], "not a whole JSON line"),
        (lambda line: line.replace('"schema": 1', '"schema": 99'), "another version"),
        (lambda line: line.replace('"schema": 1, ', ""), "another version"),
        (lambda line: line.replace("TurnRecord", "WalkRecord"), "unknown record type 'WalkRecord'"),
        (lambda line: line.replace('"dialogue_id"', '"dialog"'), "missing or unknown"),
        (lambda line: line.replace('"prompt_tokens"', '"tokens"'), "missing or unknown"),
        (
            lambda line: json.dumps({k: v for k, v in json.loads(line).items() if k != "answer"}),
            "missing or unknown",
        ),
        (
            lambda line: json.dumps({k: v for k, v in json.loads(line).items() if k != "seed"}),
            "missing or unknown",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, broken: object, problem: str) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    writer.write(TURNS[:2])
    writer.close()
    first, second = path.read_text(encoding="utf-8").splitlines()
    path.write_text(f"{first}\n{broken(second)}\n", encoding="utf-8")  # type: ignore[operator]
    with pytest.raises(RecordError, match=problem) as error:
        read_records(path)
    assert f"{path}:2" in str(error.value)
