"""Why a method loses: the chain from the question to the right answer, link by link.

Recall: it triggers, finds the clause, decodes its text word for word, answers from it. RAG: it always
looks up, so its chain is retrieved x used. SFT keeps the clauses in its weights: recited x used. The
columns `gold` (did the clause's text reach the think or the prompt?) and `used` (right answers among
those) mean the same for all three, and accuracy = gold x used + (1 - gold) x unaided.

Each metric takes the records of one method. All but `false_recall` and `null_on_unanswerable` are over
answerable asks: scored turns that a clause answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.records import TurnRecord
from eval.retention import answerable_key_of, correct, key_of
from eval.scoring import verbatim
from eval.stats import Sample, sample
from eval.structure import gold_text, recited
from methods.base import MemoryPath


def memory_path(records: Sequence[TurnRecord]) -> MemoryPath:
    """How memories reach the answers of one method, as its records say; one that looks nothing up says so too."""
    paths = {record.answer.memory_path for record in records}
    return "recall" if "recall" in paths else "retrieve" if "retrieve" in paths else "weights"


def _found(record: TurnRecord) -> bool:
    """Is the first lookup a gold clause?"""
    qa, lookups = answerable_key_of(record), record.answer.lookups
    return qa is not None and bool(lookups) and lookups[0].memory_id in qa.memory_ids


def _single(record: TurnRecord) -> bool:
    qa = answerable_key_of(record)
    return qa is not None and len(qa.memory_ids) == 1


def trigger(records: Sequence[TurnRecord]) -> Sample:
    """Share of answerable asks with at least one lookup, be it of the null memory."""
    return sample(records, lambda r: bool(r.answer.lookups) if answerable_key_of(r) else None, "no answerable ask")


def hit_at_1(records: Sequence[TurnRecord]) -> Sample:
    """Given a lookup: share whose first one is a gold clause."""
    return sample(
        records,
        lambda r: _found(r) if answerable_key_of(r) and r.answer.lookups else None,
        "no lookup on an answerable ask",
    )


def hit_at_k(records: Sequence[TurnRecord]) -> Sample:
    """Given a lookup: share with a gold clause among all lookups and their candidates."""

    def value(record: TurnRecord) -> bool | None:
        qa = answerable_key_of(record)
        if qa is None or not record.answer.lookups:
            return None
        seen = {lookup.memory_id for lookup in record.answer.lookups}
        seen |= {memory_id for lookup in record.answer.lookups for memory_id, _ in lookup.candidates}
        return not seen.isdisjoint(qa.memory_ids)

    return sample(records, value, "no lookup on an answerable ask")


def verbatim_given_hit(records: Sequence[TurnRecord]) -> Sample:
    """Given that the first lookup is the gold clause: share whose text is the clause word for word.

    Questions with one gold clause only. For RAG it is the passage as put into the prompt.
    """
    return sample(
        records,
        lambda r: verbatim(r.answer.lookups[0].text, gold_text(r)) if _single(r) and _found(r) else None,
        "no gold clause was looked up first",
    )


def correct_given_verbatim(records: Sequence[TurnRecord]) -> Sample:
    """Given the gold clause, first and word for word: share of right answers."""
    return sample(
        records,
        lambda r: (
            correct(r) if _single(r) and _found(r) and verbatim(r.answer.lookups[0].text, gold_text(r)) else None
        ),
        "no gold clause was looked up first and word for word",
    )


def recited_in_think(records: Sequence[TurnRecord]) -> Sample:
    """Share of answerable asks with one gold clause whose text stands in the think word for word."""
    return sample(records, lambda r: recited(r) if _single(r) else None, "no answerable ask with one clause")


def gold_in_hand(record: TurnRecord, path: MemoryPath) -> bool | None:
    """Did the gold clause's text reach the answer? None where no single clause answers.

    recall: some lookup is the gold clause and was decoded word for word. retrieve: the clause is among
    the passages. weights: it is recited in the think.
    """
    qa = answerable_key_of(record)
    if qa is None or not _single(record):
        return None
    if path == "weights":
        return recited(record)
    lookups = [lookup for lookup in record.answer.lookups if lookup.memory_id in qa.memory_ids]
    if path == "retrieve":
        return bool(lookups)
    return any(verbatim(lookup.text, gold_text(record)) for lookup in lookups)


def gold(records: Sequence[TurnRecord], path: MemoryPath) -> Sample:
    """Share of answerable asks where the gold clause's text reached the answer (`gold_in_hand`)."""
    return sample(records, lambda r: gold_in_hand(r, path), "no answerable ask with one clause")


def used(records: Sequence[TurnRecord], path: MemoryPath) -> Sample:
    """Given the gold clause's text: share of right answers."""
    return sample(
        records,
        lambda r: correct(r) if gold_in_hand(r, path) else None,
        "the gold clause's text never reached the answer",
    )


def unaided(records: Sequence[TurnRecord], path: MemoryPath) -> Sample:
    """Without the gold clause's text: share of right answers (from weights, the history, or by luck)."""
    return sample(
        records,
        lambda r: correct(r) if gold_in_hand(r, path) is False else None,
        "the gold clause's text always reached the answer",
    )


def false_recall(records: Sequence[TurnRecord], path: MemoryPath) -> Sample:
    """Share of ordinary turns with a lookup of a real memory. For methods that decide themselves."""
    if path != "recall":
        why = {
            "retrieve": "it retrieves on every turn by design",
            "weights": "it keeps no memory that could be looked up",
        }
        return sample((), lambda r: None, why[path])
    return sample(
        records,
        lambda r: any(lk.memory_id for lk in r.answer.lookups) if r.kind == "ordinary" else None,
        "no ordinary turn",
    )


def missed_recall(records: Sequence[TurnRecord], path: MemoryPath) -> Sample:
    """Share of answerable asks without a lookup of a real memory. For methods that look up."""
    if path == "weights":
        return sample((), lambda r: None, "it keeps no memory that could be looked up")
    return sample(
        records,
        lambda r: not any(lk.memory_id for lk in r.answer.lookups) if answerable_key_of(r) else None,
        "no answerable ask",
    )


def null_on_unanswerable(records: Sequence[TurnRecord], path: MemoryPath) -> Sample:
    """Share of unanswerable questions with no lookup of a real memory. For methods that decide themselves."""
    if path != "recall":
        return false_recall((), path)

    def value(record: TurnRecord) -> bool | None:
        qa = key_of(record)
        if qa is None or qa.memory_ids:
            return None
        return not any(lookup.memory_id for lookup in record.answer.lookups)

    return sample(records, value, "no unanswerable question")
