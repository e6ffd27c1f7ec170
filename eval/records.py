"""What a run leaves behind: one record a generated turn, one a timed answer, as JSON lines.

Every number in every table is a pure function of these records, so it can be computed again
without a model. Records are flushed as they come; a file cut in the middle of a line is named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import lzma
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.fields import FieldError, decode
from eval.shapes import Shapes
from methods.base import Answer, Usage
from tasks.base import QA, TurnKind

SCHEMA = 3

AbilityArm = Literal[
    "before",  # the untouched backbone
    "after",  # the fitted method's backbone
    "with_memory",  # the same, a memory's vector in context
    "with_random",  # the same, a random vector of that length in context
]


LifecycleStep = Literal["write", "update", "forget", "growth"]
LifecyclePhase = Literal[
    "before",  # the fitted method, unchanged
    "after",  # the step was taken
    "recall_off",  # the step was taken and recall is switched off: what the weights know
]


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
    cluster: str = ""  # what the statistics cluster on: the asked clause's family; an unanswerable question itself
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
    peak_bytes: int  # of a process that holds this method alone, while it answers; see `memory_kind`
    memory_kind: str  # "vram" (allocated, CUDA) or "rss" (resident set, CPU)
    peaks_bytes: tuple[int, ...] = ()  # the measurements of which peak_bytes is the highest; (): it alone
    reserved_bytes: int | None = None  # most that the CUDA allocator held at once; None: no CUDA, or an old record
    serial_s: float | None = None  # of the same answer, a token a forward; None: not measured
    shapes: Shapes | None = None  # what the answer ran through, for its FLOPs; None: not told, or an old record
    qa: QA | None = None  # the question's key, by which `final` is right or wrong
    final: str = ""  # the answer, behind `</think>`
    cluster: str = ""  # the asked clause's family


@dataclass(frozen=True)
class AbilityRecord:
    """One item of the ability pass: what the model made of it, not yet scored."""

    method: str
    seed: int
    arm: AbilityArm
    task: str  # "multiple_choice", "generation", or the name of an lm-eval task
    item_id: str
    question: str
    gold: str
    topic: str = ""
    choices: tuple[str, ...] = ()  # multiple choice: gold is one of them
    log_likelihoods: tuple[float, ...] = ()  # nats, one a choice
    output: str = ""  # generation: the text up to the stop token, control tokens included
    chain: str = ""  # generation: the reference's reasoning
    memory_id: str = ""  # with_memory: whose vector was in context
    score: float | None = None  # lm-eval tasks by name: in [0, 1], as lm-eval scored the item

    @property
    def id(self) -> str:
        return f"{self.method}/{self.seed}/{self.arm}/{self.task}/{self.item_id}"


@dataclass(frozen=True)
class EditRecord:
    """One change of a fitted method's memories in the lifecycle pass, and what it cost."""

    method: str
    seed: int
    step: LifecycleStep
    memory_ids: tuple[str, ...]  # what was written, replaced or forgotten at once
    seconds: float
    trained_tokens: int = 0
    bytes_before: int | None = None  # bank or index; None where it was not told
    bytes_after: int | None = None
    num_added: int = 0  # growth: memories beyond the fitted ones, once done
    refit: bool = False  # the method cannot change its memories: it was fitted again on the changed set
    rewritten: bool = False  # write: the fit knew every clause, so this one was forgotten first
    threads: int = 0  # of a refit, on which its seconds were taken; 0: not told


@dataclass(frozen=True)
class LifecycleRecord:
    """One answer of the lifecycle pass: a question asked on its own, before or after a step."""

    step: LifecycleStep
    phase: LifecyclePhase
    role: Literal["target", "neighbour"]  # about a changed clause, or about one that must not suffer
    turn: TurnRecord  # its dialogue is the question alone
    old: tuple[str, ...] = ()  # update: the forms of the value before, any of which is stale
    num_added: int = 0  # growth: memories beyond the fitted ones
    refit: bool = False

    @property
    def method(self) -> str:
        return self.turn.method

    @property
    def seed(self) -> int:
        return self.turn.seed

    @property
    def id(self) -> str:
        step = f"{self.step}+{self.num_added}" if self.num_added else self.step
        return f"{self.method}/{self.seed}/{step}/{self.phase}/{self.role}/{self.turn.dialogue_id}"


Record = TurnRecord | CostRecord | AbilityRecord | EditRecord | LifecycleRecord


def _encode(record: Record) -> str:
    body = {"schema": SCHEMA, "type": type(record).__name__, **dataclasses.asdict(record)}
    return json.dumps(body, ensure_ascii=False)


TYPES: dict[str, type[Record]] = {
    kind.__name__: kind for kind in (TurnRecord, CostRecord, AbilityRecord, EditRecord, LifecycleRecord)
}


PACKED = "records.jsonl.xz"


class RecordWriter:
    """Appends records to a file, each on the disk before the next is computed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def write(self, records: Iterable[Record]) -> None:
        """All of them or, where the disk takes no more, none. Raises OSError then."""
        body = "".join(_encode(record) + "\n" for record in records).encode(errors="surrogatepass")
        size = self._file.seek(0, os.SEEK_END)
        try:
            while body:
                body = body[self._file.write(body) :]
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(size)
            raise

    def close(self) -> None:
        self._file.close()


def read_records(path: Path) -> tuple[list[TurnRecord], list[CostRecord]]:
    """The turns and the timings of a file, in order. Raises RecordError with file and line."""
    records = read_all_records(path)
    return [r for r in records if isinstance(r, TurnRecord)], [r for r in records if isinstance(r, CostRecord)]


def records_file(folder: Path) -> Path:
    """The records of a run folder: as they were written, or packed (`pipelines.keep`)."""
    plain, packed = folder / "records.jsonl", folder / PACKED
    return packed if packed.exists() and not plain.exists() else plain


def read_all_records(path: Path) -> list[Record]:
    """All records of a file, of every type, in order. Raises RecordError with file and line."""
    records: list[Record] = []
    # As bytes: a cut may go through the middle of a character.
    with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            try:
                body = json.loads(line)
            except (ValueError, RecursionError) as error:
                cause = getattr(error, "msg", "no UTF-8, or nested too deeply")
                raise RecordError(
                    f"{where}: not a whole JSON line ({cause}); the run was cut here, remove this "
                    "line to read what was finished"
                ) from error
            if not isinstance(body, dict) or body.pop("schema", None) != SCHEMA:
                raise RecordError(
                    f"{where}: written by another version of the record format; this one reads {SCHEMA}"
                )
            kind = body.pop("type", None)
            if not isinstance(kind, str) or kind not in TYPES:
                raise RecordError(f"{where}: unknown record type {kind!r}; it is one of {', '.join(TYPES)}")
            try:
                records.append(decode(TYPES[kind], body))
            except FieldError as error:
                raise RecordError(
                    f"{where}: {error}; the line was edited, or another version wrote it: run it again"
                ) from error
    return records
