"""Work on a card, recorded once a shape and replayed: one launch for thousands.

A small model's kernels take less time than it takes to launch them. A CUDA graph keeps the launches: the same
kernels on the same tensors, so what is recorded works on tensors that stay where they are. Elsewhere the same code
runs as it is written; this file alone asks which.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import torch

from methods.prefixes import within

log = logging.getLogger(__name__)

T = TypeVar("T")
CALLS_BEFORE = 1  # calls that run as written: libraries set themselves up in the first one of a shape
RECORDS = True  # False: nothing is recorded nor laid out for it: what recorded work is compared with
_plain: ContextVar[bool] = ContextVar("plain", default=False)
_failed: set[str] = set()  # kinds of work that could not be recorded: said once, and not tried again


def recordable(device: torch.device) -> bool:
    """Whether shapes are to be few and tensors to stay where they are, so that work can be recorded."""
    return device.type == "cuda" and RECORDS and not _plain.get()


def as_written() -> AbstractContextManager[None]:
    """Nothing that this thread computes in the block is recorded.

    For a model that is being trained: PEFT's layers fetch indices from the host, and under autocast a recording
    would read weights as they were cast outside of it, which are gone afterwards.
    """
    return within(_plain, True)


class Recorded(Generic[T]):
    """A computation on tensors that stay where they are; its result is good until the next call.

    kind: what is recorded, in the message where that fails. pool: of the memory of recordings that are never at
    work at once and keep nothing from call to call; they share it.
    """

    def __init__(self, compute: Callable[[], T], device: torch.device, kind: str, pool: Any = None) -> None:
        self._compute, self._device, self._kind, self._pool = compute, device, kind, pool
        self._calls = 0
        self._graph: Any = None
        self._result: T | None = None

    def __call__(self) -> T:
        if self._graph is None and self._calls >= CALLS_BEFORE and self._may_record():
            self._record()
        self._calls += 1
        if self._graph is None:
            return self._as_written()
        self._graph.replay()
        assert self._result is not None
        return self._result

    def _may_record(self) -> bool:
        return recordable(self._device) and self._kind not in _failed

    def _as_written(self) -> T:
        """On a stream beside the usual one, as the recording will be."""
        if not self._may_record():
            return self._compute()
        aside, usual = _stream(self._device), torch.cuda.current_stream(self._device)
        aside.wait_stream(usual)
        with torch.cuda.stream(aside):
            result = self._compute()
        usual.wait_stream(aside)
        return result

    def _record(self) -> None:
        graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.graph(
                graph, pool=self._pool, stream=_stream(self._device), capture_error_mode="thread_local"
            ):
                self._result = self._compute()
        except Exception as error:
            torch.cuda.set_stream(usual)  # a recording that broke off leaves its own one current
            for each in (error, error.__context__):  # to end one that found no room may fail in turn
                if isinstance(each, torch.OutOfMemoryError):
                    raise each from None
            torch.cuda.synchronize(self._device)
            _failed.add(self._kind)
            log.warning(
                "%s could not be recorded and runs as written: %s", self._kind, str(error).partition("\n")[0]
            )
            return
        self._graph = graph


_streams: dict[torch.device, Any] = {}


def _stream(device: torch.device) -> Any:
    """The one on which everything of a device is recorded."""
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)
    return _streams[device]


def new_pool(device: torch.device) -> Any:
    """For recordings that share memory; None where nothing is recorded."""
    return torch.cuda.graph_pool_handle() if recordable(device) else None


def next_size(size: int, smallest: int) -> int:
    """The least of smallest, 1.5 smallest, 2 smallest, 3 smallest, 4 smallest ... that is not below `size`."""
    found = smallest
    while found < size:
        half_more = found + found // 2
        found = half_more if half_more >= size else 2 * found
    return found
