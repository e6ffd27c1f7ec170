"""Recorded work: when it is recorded, replayed, or runs as written. No card is at hand, so `torch.cuda` counts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

from methods import graphs
from methods.graphs import Recorded, as_written, next_size, recordable

CARD = torch.device("cuda", 0)


class Cuda:
    """What is asked of a card. fails: what a recording raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: Exception | None = None) -> None:
        self.recorded = self.replayed = 0
        self.current = "usual"
        outer = self

        class Graph:
            def replay(self) -> None:
                outer.replayed += 1

        @contextmanager
        def graph(_graph: Graph, **_settings: Any) -> Iterator[None]:
            outer.recorded += 1
            outer.current = "aside"
            try:
                yield
            finally:  # what a recording left is closed in any case
                if fails is not None:
                    raise fails
            outer.current = "usual"

        class Stream:
            def wait_stream(self, _other: object) -> None:
                pass

        monkeypatch.setattr(graphs, "_failed", set())
        monkeypatch.setattr(graphs, "_streams", {})
        for name, value in {
            "CUDAGraph": Graph,
            "graph": graph,
            "Stream": lambda *_: Stream(),
            "current_stream": lambda *_: Stream(),
            "stream": lambda _stream: nullcontext(),
            "synchronize": lambda *_: None,
            "set_stream": lambda _stream: setattr(self, "current", "usual"),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)


def counted(kind: str = "work") -> tuple[Recorded[int], list[int]]:
    calls: list[int] = []

    def compute() -> int:
        calls.append(len(calls))
        return len(calls)

    return Recorded(compute, CARD, kind), calls


def test_the_first_call_runs_as_written_the_second_is_recorded_and_the_rest_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Cuda(monkeypatch)
    work, calls = counted()
    assert work() == 1
    assert (cuda.recorded, cuda.replayed) == (0, 0)
    assert [work() for _ in range(4)] == [2, 2, 2, 2]  # what the recording left: the same tensors every time
    assert (cuda.recorded, cuda.replayed, len(calls)) == (1, 4, 2)


def test_what_cannot_be_recorded_is_said_once_and_runs_as_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cuda = Cuda(monkeypatch, RuntimeError("operation not permitted\nand more"))
    with caplog.at_level(logging.WARNING, logger="methods"):
        first, _ = counted()
        second, _ = counted()
        assert [first(), first(), first()] == [1, 3, 4]  # the second was tried once and then computed
        assert [second(), second()] == [1, 2]
    assert (cuda.recorded, cuda.replayed, cuda.current) == (1, 0, "usual")
    assert [r.getMessage() for r in caplog.records] == [
        "work could not be recorded and runs as written: operation not permitted"
    ]
    other, _ = counted("other work")  # of another kind nothing is known yet
    other(), other()
    assert cuda.recorded == 2


def test_too_little_memory_is_for_the_caller_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch, torch.OutOfMemoryError("no room"))
    work, _ = counted()
    work()
    with pytest.raises(torch.OutOfMemoryError):
        work()
    assert cuda.current == "usual"


def test_a_recording_that_found_no_room_and_cannot_be_ended_either_is_too_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Cuda(monkeypatch, RuntimeError("operation failed due to a previous error during capture"))
    calls: list[int] = []

    def compute() -> int:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("no room")
        return len(calls)

    work = Recorded(compute, CARD, "work")
    work()
    with pytest.raises(torch.OutOfMemoryError):
        work()
    assert cuda.current == "usual"
    assert not graphs._failed  # it may be recorded in halves


def test_nothing_is_recorded_on_a_cpu_nor_where_that_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)
    assert not recordable(torch.device("cpu"))
    assert recordable(CARD)
    monkeypatch.setattr(graphs, "RECORDS", False)
    assert not recordable(CARD)
    work, calls = counted()
    assert [work(), work(), work()] == [1, 2, 3]
    assert (cuda.recorded, len(calls)) == (0, 3)


def test_nothing_is_recorded_where_work_is_to_run_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)
    work, calls = counted()
    with as_written():
        assert not recordable(CARD)
        assert [work(), work(), work()] == [1, 2, 3]
    assert recordable(CARD)
    assert (cuda.recorded, len(calls)) == (0, 3)


@pytest.mark.parametrize(
    ("size", "smallest", "expected"),
    [
        (1, 1, 1),
        (2, 1, 2),
        (3, 1, 3),
        (5, 1, 6),
        (17, 1, 24),
        (64, 64, 64),
        (65, 64, 96),
        (97, 64, 128),
        (9, 64, 64),
    ],
)
def test_sizes_are_powers_of_two_and_halves_between(size: int, smallest: int, expected: int) -> None:
    assert next_size(size, smallest) == expected


def test_few_sizes_and_little_is_filled_up() -> None:
    sizes = {next_size(size, 64) for size in range(1, 2049)}
    assert len(sizes) == 11
    assert all(next_size(size, 64) <= 1.5 * size for size in range(64, 2049))
