"""The wrong answers of a method, worst first, and what went wrong in each.

A wrong value that sounds right does more harm than no answer, so the value of a near-miss clause comes
first and an answer that never came comes last.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from eval.records import TurnRecord
from eval.retention import correct
from eval.scoring import held_values, is_abstention

# Worst first.
KINDS = (
    "gave the value of a near-miss clause",
    "answered although no clause covers the question",
    "had the right clause and answered wrong",
    "looked up another clause",
    "looked nothing up and answered wrong",
    "declined although a clause covers the question",
    "never got to an answer",
)
RIVAL, UNCOVERED, MISREAD, ELSEWHERE, UNAIDED, DECLINED, NO_ANSWER = range(len(KINDS))


@dataclass(frozen=True)
class Failure:
    """A wrong answer."""

    record: TurnRecord
    rank: int  # index in KINDS: 0 is worst
    detail: str = ""  # the rival value that was given

    @property
    def kind(self) -> str:
        return KINDS[self.rank]


def failures(turns: Iterable[TurnRecord], method: str) -> list[Failure]:
    """Every wrong answer of `method`, worst first."""
    found = [_diagnose(record) for record in turns if record.method == method and correct(record) is False]
    return sorted(found, key=lambda f: (f.rank, f.record.distance or 0, f.record.id))


def pick(found: Iterable[Failure], limit: int) -> list[Failure]:
    """`limit` of them to show: the worst of each kind first, no clause twice while others are left."""
    kinds: dict[int, list[tuple[int, int, Failure]]] = defaultdict(list)
    shown: Counter[tuple[int, str]] = Counter()
    for number, failure in enumerate(found):
        clause = failure.rank, _clause_of(failure.record)
        kinds[failure.rank].append((shown[clause], number, failure))
        shown[clause] += 1
    turns = [
        (place, rank, failure)
        for rank, queue in kinds.items()
        for place, (_, _, failure) in enumerate(sorted(queue, key=lambda entry: entry[:2]))
    ]
    return [failure for _, _, failure in sorted(turns, key=lambda entry: entry[:2])[:limit]]


def _clause_of(record: TurnRecord) -> str:
    return record.qa.memory_ids[0] if record.qa and record.qa.memory_ids else record.cluster or record.id


def _diagnose(record: TurnRecord) -> Failure:
    """What went wrong in a wrong answer."""
    final, qa = record.answer.final, record.qa
    assert qa is not None, record.id
    if not final.strip():
        return Failure(record, NO_ANSWER)
    _, rivals = held_values(final, qa)
    if rivals:
        return Failure(record, RIVAL, rivals[0])
    if not qa.memory_ids:
        return Failure(record, UNCOVERED)
    if is_abstention(final):
        return Failure(record, DECLINED)
    looked_up = {lookup.memory_id for lookup in record.answer.lookups if lookup.memory_id}
    if looked_up & set(qa.memory_ids):
        return Failure(record, MISREAD)
    return Failure(record, ELSEWHERE if looked_up else UNAIDED)
