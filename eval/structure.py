"""Is the answer's form whole? Judged on its parts as its ids cut them, never on its text (`methods.parts`).

The form that every method is trained on: `<think>` REASONING `</think>` ANSWER, where a recall inside
the think reads `<recall><|memory_pad|>` TEXT `</recall>` and reasoning goes on behind it. That a model
stops once it has recalled is the failure that the specification names (docs/SPEC.zh.md, 4.4).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from eval.records import RecordError, TurnRecord
from eval.retention import correct
from eval.scoring import is_abstention, overlap_f1, recites
from eval.stats import Sample, sample
from methods.base import Answer
from methods.parts import (
    MEMORY_PAD,
    RECALL,
    RECALL_END,
    THINK,
    THINK_END,
    TURN_MARK,
    Part,
    final_text,
    read,
    recalled_texts,
    thought,
)

NO_PAD = "<recall> without its <|memory_pad|>"
TRUNCATED = "cut at its token cap"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
SAME_STEP_F1 = 0.6  # two steps count as the same from this token F1 on


@dataclass(frozen=True)
class Structure:
    """What the control tokens of one answer say about its form."""

    well_formed: bool
    faults: tuple[str, ...]  # in plain words; empty where well formed
    think_closed: bool  # one <think>, then one </think>
    num_recalls: int  # inside the think, or before one
    stopped_after_recall: bool  # the last recall is followed by no reasoning inside the think
    leaks: tuple[str, ...]  # control tokens that stand where none belongs, and turn marks that are spelt out
    steps: tuple[str, ...]  # reasoning sentences of the think, recalled texts left out
    steps_after_recall: tuple[str, ...]  # those behind the last recall


def sentences(text: str) -> tuple[str, ...]:
    """Steps of a chain: its sentences and lines that hold a letter or a digit."""
    return tuple(part.strip() for part in _SENTENCE_END.split(text) if re.search(r"\w", part))


@lru_cache(maxsize=16384)
def parse(parts: tuple[Part, ...], finished: bool = True, given: str = "") -> Structure:
    """The form of one answer, from the first new token to the stop token.

    Well formed: the first token is the only `<think>`; one `</think>` closes it; text stands inside and
    behind it; every `<recall>` lies in the think, is followed at once by its `<|memory_pad|>` (one for each
    vector of the memory) and is closed by `</recall>` there; no other control token stands anywhere, but for
    the one that ended it, and no chat template's turn mark is spelt out; it was not cut at its token cap.

    finished: False where it was cut. given: texts that the model had at hand, which it may quote, marks and all.
    """
    pieces = read(parts, given)
    tokens = [text for kind, text in pieces if kind == "control"]
    opened, closed = tokens.count(THINK), tokens.count(THINK_END)
    leaks: list[str] = []
    faults: list[str] = [] if finished else [TRUNCATED]
    reasoning = [""]  # text of the think outside recalls, anew from each recall on
    place = "before"  # before, think, pad (right behind <recall>), recall, answer
    for before, (kind, text) in zip(["", *(text for _, text in pieces)], pieces, strict=False):
        if kind != "control":
            if place == "before" and text.strip():
                faults.append("text before <think>")
            elif place == "pad":
                faults.append(NO_PAD)
                place = "recall"
            if kind == "think":
                reasoning[-1] += text
            if kind != "recalled":
                leaks += [mark[1] for mark in TURN_MARK.finditer(text) if mark[1] and mark[1] not in given]
            continue
        if place == "pad" and text != MEMORY_PAD:
            faults.append(NO_PAD)
            place = "recall"
        if text == THINK and place == "before":
            place = "think"
        elif text == THINK_END and place in ("think", "recall"):
            if place == "recall":
                faults.append("a recall is not closed before </think>")
            place = "answer"
        elif text == RECALL and place in ("think", "before", "recall"):
            if place != "think":
                faults.append("a recall outside the think" if place == "before" else "a recall inside a recall")
                leaks.append(text)
            reasoning.append("")
            place = "pad"
        elif text == MEMORY_PAD and (place == "pad" or (place == "recall" and before == MEMORY_PAD)):
            place = "recall"
        elif text == RECALL_END and place == "recall":
            place = "think"
        else:
            leaks.append(text)
    if place in ("pad", "recall"):
        faults.append("a recall is never closed")
    if leaks:
        faults.append("control tokens where none belongs: " + " ".join(dict.fromkeys(leaks)))
    if opened != 1 or closed != 1:
        faults.append(f"<think> opened {opened} and closed {closed} times")
    if not thought(pieces):
        faults.append("nothing is thought")
    if not final_text(pieces):
        faults.append("no answer behind </think>")

    num_recalls = len(reasoning) - 1
    after = sentences(reasoning[-1]) if num_recalls else ()
    return Structure(
        well_formed=not faults,
        faults=tuple(dict.fromkeys(faults)),
        think_closed=opened == 1 and closed == 1 and tokens.index(THINK) < tokens.index(THINK_END),
        num_recalls=num_recalls,
        stopped_after_recall=num_recalls > 0 and not after,
        leaks=tuple(leaks),
        steps=tuple(step for block in reasoning for step in sentences(block)),
        steps_after_recall=after,
    )


def structure_of(record: TurnRecord) -> Structure:
    """As `parse`, with what the record's lookups say of its recalls.

    Where each recall is followed by the very text that was looked up, no pad is missed. Where the last one chose
    the null memory, "no clause covers this", an abstention behind the closed think needs no reasoning between.
    """
    answer = record.answer
    texts = [lookup.text.strip() for lookup in answer.lookups]
    found = parse(answer.parts, answer.finished, "\n".join([record.question, record.memory_text, *texts]))
    padded = Part("control", MEMORY_PAD) in answer.parts
    if NO_PAD in found.faults and not padded and recalled_texts(answer.pieces) == texts:
        faults = tuple(fault for fault in found.faults if fault != NO_PAD)
        found = replace(found, well_formed=not faults, faults=faults)
    null = found.num_recalls == len(texts) > 0 and not answer.lookups[-1].memory_id
    if found.stopped_after_recall and null and found.think_closed and is_abstention(answer.final):
        found = replace(found, stopped_after_recall=False)
    return found


def gold_text(record: TurnRecord) -> str:
    """The text of the clauses that answer a question. Raises RecordError where its record does not hold it."""
    if not record.memory_text.strip():
        raise RecordError(f"record {record.id}: there is no text of its clause (memory_text); run it again")
    return record.memory_text


# --- steps --------------------------------------------------------------------------------------


def reference_steps(text: str) -> tuple[str, ...]:
    """Steps of a reference chain, given bare or as a whole reply `<think>` CHAIN `</think>` ANSWER."""
    return parse((Part("text", text),)).steps if THINK in text else sentences(text)


def chain_kept(steps: Sequence[str], reference: Sequence[str]) -> float:
    """Share of the reference's steps that stand in the produced chain, in the same order, in [0, 1].

    Longest common subsequence of steps, where two steps are the same from a token F1 of 0.6 on; divided
    by the longer chain's length, so that padding the chain does not help.
    """
    if not reference:
        raise ValueError("there is no reference chain to compare with")
    lengths = [[0] * (len(reference) + 1) for _ in range(len(steps) + 1)]
    for i, step in enumerate(steps):
        for j, wanted in enumerate(reference):
            same = overlap_f1(step, wanted) >= SAME_STEP_F1
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if same else max(lengths[i][j + 1], lengths[i + 1][j])
    return lengths[-1][-1] / max(len(steps), len(reference))


def _reasoning_after_clause(answer: Answer, structure: Structure, memory_text: str) -> tuple[bool, int]:
    """Does a clause stand in the think, recalled or quoted, and how many sentences follow it?

    Recalled: any recall with text. Quoted: the run of sentences most like the gold clause has a token F1
    of 0.6 or more with it; a sibling's clause passes too, since form and content are judged apart.
    """
    if any(recalled_texts(answer.pieces)):
        return True, len(structure.steps_after_recall)
    steps = sentences(answer.think)
    length = max(1, len(sentences(memory_text)))
    best, end = 0.0, 0
    for start in range(len(steps)):
        score = overlap_f1(" ".join(steps[start : start + length]), memory_text)
        if score > best:
            best, end = score, min(start + length, len(steps))
    return best >= SAME_STEP_F1, len(steps) - end if best >= SAME_STEP_F1 else len(steps)


def steps_kept_of(record: TurnRecord) -> float | None:
    """Share of the reference's step structure that one answer keeps, in [0, 1]; None where there is none.

    An ordinary turn is compared with the corpus's own chain (`chain_kept`). An ask that a clause answers
    has three parts: the clause, recalled or quoted; at least one sentence of reasoning behind it; an
    answer outside a closed think.
    """
    structure = structure_of(record)
    if record.kind == "ordinary":
        if not record.reference_think:
            return None
        reference = reference_steps(record.reference_think)
        if not reference:
            raise RecordError(f"record {record.id}: its reference_think holds no sentence")
        return chain_kept(structure.steps, reference)
    if record.qa is None or not record.qa.memory_ids:
        return None
    clause, following = _reasoning_after_clause(record.answer, structure, gold_text(record))
    answered = structure.think_closed and bool(record.answer.final)
    return (clause + (clause and following > 0) + answered) / 3


# --- metrics over the records of one method -----------------------------------------------------


def well_formed(records: Sequence[TurnRecord]) -> Sample:
    """Share of all generated answers that are well formed (see `parse`)."""
    return sample(records, lambda r: structure_of(r).well_formed, "no generated answer")


def think_closed(records: Sequence[TurnRecord]) -> Sample:
    """Share of all generated answers with one `<think>` that was closed before the token limit."""
    return sample(records, lambda r: structure_of(r).think_closed, "no generated answer")


def truncated(records: Sequence[TurnRecord]) -> Sample:
    """Share of all generated answers that were cut at their token cap: whatever else they are, not well formed."""
    return sample(records, lambda r: not r.answer.finished, "no generated answer")


def leaked(records: Sequence[TurnRecord]) -> Sample:
    """Share of all generated answers with a control token where none belongs, or a turn mark spelt out."""
    return sample(records, lambda r: bool(structure_of(r).leaks), "no generated answer")


def stopped_after_recall(records: Sequence[TurnRecord]) -> Sample:
    """Of the answers with a recall: share where no reasoning follows the last one inside the think.

    Also where the recall never closes, so that thinking never resumes. It did not stop where the last recall
    chose the null memory, the think was closed and the answer abstains, as it is trained to; without the
    abstention it did. docs/SPEC.zh.md, 4.4.
    """
    return sample(
        records,
        lambda r: structure_of(r).stopped_after_recall if structure_of(r).num_recalls else None,
        "no answer holds a <recall>",
    )


def correct_and_well_formed(records: Sequence[TurnRecord]) -> Sample:
    """Share of the scored answers that are both correct (eval.scoring) and well formed."""

    def value(record: TurnRecord) -> bool | None:
        right = correct(record)
        return None if right is None else right and structure_of(record).well_formed

    return sample(records, value, "no scored answer")


def steps_kept(records: Sequence[TurnRecord]) -> Sample:
    """Mean share of the reference's step structure that is kept (`steps_kept_of`), over ordinary turns
    with a reference chain and answerable asks."""
    return sample(records, steps_kept_of, "no answer has a reference structure")


def chain_kept_on_ordinary(records: Sequence[TurnRecord]) -> Sample:
    """Mean `chain_kept` over ordinary turns with a reference chain."""
    return sample(
        records,
        lambda r: steps_kept_of(r) if r.kind == "ordinary" else None,
        "no ordinary turn with a reference chain",
    )


def recited(record: TurnRecord) -> bool:
    """Does the gold clause's text stand in the think, whitespace aside?"""
    return recites(record.answer.think, gold_text(record))
