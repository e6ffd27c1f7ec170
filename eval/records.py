"""What a run leaves behind: one record a generated turn, one a timed answer, as JSON lines.

Every number in every table is a pure function of these records, so it can be computed again
without a model. Records are flushed as they come; a file cut in the middle of a line is named.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.base import Answer, Lookup, Usage
from tasks.base import QA, TurnKind

SCHEMA = 1


class RecordError(ValueError):
    """A record file that cannot be read: names the file, the line and the fix."""


@dataclass(frozen=True)
class TurnRecord:
    """One generated answer of the retention pass (batched, no times)."""

    method: str
    seed: int
    dialogue_id: str
    turn: int  # index in the dialogue, filler turns counted
    kind: TurnKind
    question: str
    answer: Answer
    qa: QA | None = None
    distance: int | None = None
    cluster: str = ""  # clause id the statistics cluster on
    cued: bool | None = None  # did the clause have training questions; None where no clause is asked
    memory_text: str = ""  # text of the gold clause(s), for `verbatim`
    reference_think: str = ""  # for ordinary turns: the corpus's own chain
    topic: str = ""

    @property
    def id(self) -> str:
        return f"{self.method}/{self.seed}/{self.dialogue_id}/{self.turn}"


@dataclass(frozen=True)
class CostRecord:
    """One timed answer of the cost pass (batch 1, warmed up, methods interleaved)."""

    method: str
    seed: int
    question_id: str
    round: int
    usage: Usage
    peak_bytes: int  # of a process that holds this method alone; see `memory_kind`
    memory_kind: str  # "vram" (allocated, CUDA) or "rss" (resident set, CPU)


def _encode(record: TurnRecord | CostRecord) -> str:
    body = {"schema": SCHEMA, "type": type(record).__name__, **dataclasses.asdict(record)}
    return json.dumps(body, ensure_ascii=False)


def _turn(body: dict[str, Any]) -> TurnRecord:
    answer = body.pop("answer")
    lookups = tuple(
        Lookup(**{**lk, "candidates": tuple((c[0], c[1]) for c in lk["candidates"])})
        for lk in answer.pop("lookups")
    )
    usage = Usage(**answer.pop("usage"))
    qa = body.pop("qa")
    if qa is not None:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in qa.items()}
        qa = QA(**fields)
    return TurnRecord(answer=Answer(lookups=lookups, usage=usage, **answer), qa=qa, **body)


def _cost(body: dict[str, Any]) -> CostRecord:
    return CostRecord(usage=Usage(**body.pop("usage")), **body)


class RecordWriter:
    """Appends records to a file, each flushed before the next is computed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, records: Iterable[TurnRecord | CostRecord]) -> None:
        for record in records:
            self._file.write(_encode(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_records(path: Path) -> tuple[list[TurnRecord], list[CostRecord]]:
    """All records of a file, in order. Raises RecordError with file and line."""
    turns: list[TurnRecord] = []
    costs: list[CostRecord] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            try:
                body = json.loads(line)
            except json.JSONDecodeError as error:
                raise RecordError(
                    f"{where}: not a whole JSON line ({error.msg}); the run was cut here, remove this "
                    "line to read what was finished"
                ) from error
            if not isinstance(body, dict) or body.pop("schema", None) != SCHEMA:
                raise RecordError(
                    f"{where}: written by another version of the record format; this one reads {SCHEMA}"
                )
            kind = body.pop("type", None)
            try:
                if kind == "TurnRecord":
                    turns.append(_turn(body))
                elif kind == "CostRecord":
                    costs.append(_cost(body))
                else:
                    raise TypeError(f"unknown record type {kind!r}")
            except (TypeError, KeyError) as error:
                raise RecordError(f"{where}: a field is missing or unknown ({error})") from error
    return turns, costs
