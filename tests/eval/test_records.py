"""Records survive the file, and a file that is not whole is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import UNANSWERABLE, answer, plain, raw_of, right, timed, turn, unclosed

from eval.records import SCHEMA, RecordError, RecordWriter, read_records
from eval.shapes import Shapes, TransformerShape

TURNS = [
    turn(1, "first_ask", right(1)),
    turn(2, "unanswerable", plain(2, "unanswerable"), qa=UNANSWERABLE, distance=None),
    turn(3, "ordinary", answer(raw_of('Zwei\u2028Zeilen 🦊 "quoted" \\n', "ß")), distance=None),
    turn(4, "re_ask", unclosed(4), seed=2, index=7),
]
COSTS = [
    timed("recall", "q1", stage_s={"search": 0.25}),
    replace(
        timed("rag", "q2", 3, memory_kind="vram"),
        peaks_bytes=(900, 1000),
        reserved_bytes=2000,
        shapes=Shapes(TransformerShape(1, 2, 3, 4), TransformerShape(5, 6, 7, 8)),
    ),
    replace(timed("sft", "q3"), shapes=Shapes(None)),
]


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "records.jsonl"
    writer = RecordWriter(path)
    writer.write([TURNS[0], COSTS[0]])
    writer.write(TURNS[1:])
    writer.write(COSTS[1:])
    writer.close()
    assert read_records(path) == (TURNS, COSTS)
    assert len(path.read_text(encoding="utf-8").split("\n")) == len(TURNS) + len(COSTS) + 1


def test_timings_from_before_a_field_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    writer.write(COSTS[:1])
    writer.close()
    body = json.loads(path.read_text(encoding="utf-8"))
    for field in ("peaks_bytes", "reserved_bytes", "shapes"):
        del body[field]
    for field in ("searched_vectors", "encoder_tokens"):
        del body["usage"][field]
    path.write_text(json.dumps(body) + "\n", encoding="utf-8")
    assert read_records(path) == ([], COSTS[:1])


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


def edited(line: str, *path: str | int, to: object) -> str:
    """The line with the value at the path replaced."""
    body = json.loads(line)
    place = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return json.dumps(body)


@pytest.mark.parametrize(
    ("path", "to", "problem"),
    [
        (("answer", "parts", 1, 1), None, "answer.parts[1][1] is null and must be a text"),
        (("answer", "parts", 1, 0), "think", 'answer.parts[1][0] is "think" and must be one of text, control'),
        (("answer", "parts", 1), ["text"], 'answer.parts[1] is ["text"] and must be a list of 2'),
        (("answer", "usage", "new_tokens"), "30", 'answer.usage.new_tokens is "30" and must be a whole number'),
        (("answer", "usage", "new_tokens"), True, "answer.usage.new_tokens is true and must be a whole number"),
        (("answer", "usage", "ttft_s"), "fast", 'answer.usage.ttft_s is "fast" and must be a number'),
        (("answer", "usage", "stage_s"), {"embed": None}, "answer.usage.stage_s.embed is null and must be a num"),
        (("answer", "usage"), [], "answer.usage is [] and must be an object"),
        (("answer", "finished"), 1, "answer.finished is 1 and must be true or false"),
        (("answer", "lookups"), {}, "answer.lookups is {} and must be a list"),
        (("answer", "lookups", 0), "c1", 'answer.lookups[0] is "c1" and must be an object'),
        (("answer", "lookups", 0, "candidates"), [["c1"]], 'candidates[0] is ["c1"] and must be a list of 2'),
        (("answer", "lookups", 0, "candidates"), [[1, 0.5]], "candidates[0][0] is 1 and must be a text"),
        (("qa", "memory_ids"), "c1", 'qa.memory_ids is "c1" and must be a list'),
        (("kind",), "first", 'kind is "first" and must be one of first_ask, re_ask,'),
        (("turn",), 0.5, "turn is 0.5 and must be a whole number"),
        (("cued",), "yes", 'cued is "yes" and must be true or false'),
        (("answer",), None, "answer is null and must be an object"),
        (("type",), ["TurnRecord"], "unknown record type ['TurnRecord']"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_named(
    tmp_path: Path, path: tuple[str | int, ...], to: object, problem: str
) -> None:
    file = tmp_path / "records.jsonl"
    writer = RecordWriter(file)
    writer.write([turn(1, "first_ask", right(1))] * 2)
    writer.close()
    first, second = file.read_text(encoding="utf-8").splitlines()
    file.write_text(f"{first}\n{edited(second, *path, to=to)}\n", encoding="utf-8")
    with pytest.raises(RecordError) as error:
        read_records(file)
    assert f"{file}:2: " in str(error.value) and problem in str(error.value)


def test_a_whole_number_is_a_time_too(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    writer = RecordWriter(file)
    writer.write([timed("recall", "q", total_s=2.0)])
    writer.close()
    line = file.read_text(encoding="utf-8")
    file.write_text(edited(line, "usage", "total_s", to=2) + "\n", encoding="utf-8")
    (cost,) = read_records(file)[1]
    assert isinstance(cost.usage.total_s, float) and cost.usage.total_s == 2.0


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (lambda line: line[: len(line) // 2], "not a whole JSON line"),
        (lambda line: line.replace(f'"schema": {SCHEMA}', '"schema": 99'), "another version"),
        (lambda line: line.replace(f'"schema": {SCHEMA}, ', ""), "another version"),
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
