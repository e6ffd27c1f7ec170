"""Is the answer's form whole? Judged on the raw tokens, control tokens included.

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
from eval.scoring import overlap_f1, recites
from eval.stats import Sample, sample

THINK, END_THINK = "<think>", "</think>"
RECALL, PAD, END_RECALL = "<recall>", "<|memory_pad|>", "</recall>"
STOP_TOKENS = frozenset({"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "</s>", "<eos>", "<end_of_turn>"})
NO_PAD = "<recall> without its <|memory_pad|>"
_CONTROL = re.compile(r"(</?think>|</?recall>|<\|[A-Za-z0-9_]+\|>|</?s>|<(?:pad|bos|eos|unk|end_of_turn)>)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
SAME_STEP_F1 = 0.6  # two steps count as the same from this token F1 on


@dataclass(frozen=True)
class Structure:
    """What the control tokens of one answer say about its form."""

    well_formed: bool
    faults: tuple[str, ...]  # in plain words; empty where well formed
    think_closed: bool  # one <think>, then one </think>
    num_recalls: int
    stopped_after_recall: bool  # the last recall is followed by no reasoning inside the think
    leaks: tuple[str, ...]  # control tokens that stand where none belongs
    recalled: tuple[str, ...]  # texts between <|memory_pad|> (or <recall>) and </recall>, in order
    think: str  # text of the think without control tokens, recalled texts included
    steps: tuple[str, ...]  # reasoning sentences of the think, recalled texts left out
    steps_after_recall: tuple[str, ...]  # those behind the last recall
    answer: str  # text behind </think>, control tokens left out


def sentences(text: str) -> tuple[str, ...]:
    """Steps of a chain: its sentences and lines that hold a letter or a digit."""
    return tuple(part.strip() for part in _SENTENCE_END.split(text) if re.search(r"\w", part))


@lru_cache(maxsize=16384)
def parse(raw: str) -> Structure:
    """Reads the raw text of one answer, from the first new token to the stop token.

    Well formed: the first token is the only `<think>`; one `</think>` closes it; text stands inside and
    behind it; every `<recall>` lies in the think, is followed at once by its `<|memory_pad|>` (one for each
    vector of the memory) and is closed by `</recall>` there; no other control token stands anywhere, but for
    one stop token at the end.
    """
    parts = [part for part in _CONTROL.split(raw) if part]
    while parts and not parts[-1].strip():
        parts.pop()
    if parts and parts[-1] in STOP_TOKENS:
        parts.pop()
    tokens = [part for part in parts if _CONTROL.fullmatch(part)]
    opened, closed = tokens.count(THINK), tokens.count(END_THINK)

    leaks: list[str] = []
    faults: list[str] = []
    recalled: list[str] = []
    think: list[str] = []  # all text of the think
    reasoning: list[list[str]] = [[]]  # text outside recalls, a new list from each recall on
    answer: list[str] = []
    place = "before"  # before, think, pad (right behind <recall>), recall, answer
    for before, part in zip(["", *parts], parts, strict=False):
        if _CONTROL.fullmatch(part) is None:
            if place == "before" and part.strip():
                faults.append("text before <think>")
            if place == "answer":
                answer.append(part)
            elif place == "pad":
                faults.append(NO_PAD)
                place = "recall"
            if place == "recall":
                recalled[-1] += part
            elif place in ("think", "before"):
                reasoning[-1].append(part)
            if place not in ("answer", "before"):
                think.append(part)
            continue
        if place == "pad" and part != PAD:
            faults.append(NO_PAD)
            place = "recall"
        if part == THINK and place == "before":
            place = "think"
        elif part == END_THINK and place in ("think", "recall"):
            if place == "recall":
                faults.append("a recall is not closed before </think>")
            place = "answer"
        elif part == RECALL and place in ("think", "before", "recall"):
            if place == "before":
                faults.append("a recall outside the think")
                leaks.append(part)
            elif place == "recall":
                faults.append("a recall inside a recall")
                leaks.append(part)
            recalled.append("")
            reasoning.append([])
            place = "pad"
        elif part == PAD and (place == "pad" or (place == "recall" and before == PAD)):
            place = "recall"
        elif part == END_RECALL and place == "recall":
            place = "think"
        else:
            leaks.append(part)
    if place in ("pad", "recall"):
        faults.append("a recall is never closed")
    if leaks:
        faults.append("control tokens where none belongs: " + " ".join(dict.fromkeys(leaks)))
    if opened != 1 or closed != 1:
        faults.append(f"<think> opened {opened} and closed {closed} times")
    if not "".join(think).strip():
        faults.append("nothing is thought")
    if not "".join(answer).strip():
        faults.append("no answer behind </think>")

    after = sentences("".join(reasoning[-1])) if recalled else ()
    return Structure(
        well_formed=not faults,
        faults=tuple(dict.fromkeys(faults)),
        think_closed=opened == 1 and closed == 1 and tokens.index(THINK) < tokens.index(END_THINK),
        num_recalls=len(recalled),
        stopped_after_recall=bool(recalled) and not after,
        leaks=tuple(leaks),
        recalled=tuple(text.strip() for text in recalled),
        think="".join(think).strip(),
        steps=tuple(step for block in reasoning for step in sentences("".join(block))),
        steps_after_recall=after,
        answer="".join(answer).strip(),
    )


def structure_of(record: TurnRecord) -> Structure:
    """As `parse`; where each recall is followed by the very text that was looked up, no pad is missed."""
    found = parse(record.answer.raw)
    given = tuple(lookup.text.strip() for lookup in record.answer.lookups)
    if NO_PAD not in found.faults or PAD in record.answer.raw or found.recalled != given:
        return found
    faults = tuple(fault for fault in found.faults if fault != NO_PAD)
    return replace(found, well_formed=not faults, faults=faults)


def gold_text(record: TurnRecord) -> str:
    """The text of the clauses that answer a question. Raises RecordError where its record does not hold it."""
    if not record.memory_text.strip():
        raise RecordError(f"record {record.id}: there is no text of its clause (memory_text); run it again")
    return record.memory_text


# --- steps --------------------------------------------------------------------------------------


def reference_steps(text: str) -> tuple[str, ...]:
    """Steps of a reference chain, given bare or as a whole reply `<think>` CHAIN `</think>` ANSWER."""
    return parse(text).steps if THINK in text else sentences(text)


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


def _reasoning_after_clause(structure: Structure, memory_text: str) -> tuple[bool, int]:
    """Does a clause stand in the think, recalled or quoted, and how many sentences follow it?

    Recalled: any recall with text. Quoted: the run of sentences most like the gold clause has a token F1
    of 0.6 or more with it; a sibling's clause passes too, since form and content are judged apart.
    """
    if any(structure.recalled):
        return True, len(structure.steps_after_recall)
    thought = sentences(structure.think)
    length = max(1, len(sentences(memory_text)))
    best, end = 0.0, 0
    for start in range(len(thought)):
        score = overlap_f1(" ".join(thought[start : start + length]), memory_text)
        if score > best:
            best, end = score, min(start + length, len(thought))
    return best >= SAME_STEP_F1, len(thought) - end if best >= SAME_STEP_F1 else len(thought)


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
    clause, following = _reasoning_after_clause(structure, gold_text(record))
    answered = structure.think_closed and bool(structure.answer)
    return (clause + (clause and following > 0) + answered) / 3


# --- metrics over the records of one method -----------------------------------------------------


def well_formed(records: Sequence[TurnRecord]) -> Sample:
    """Share of all generated answers that are well formed (see `parse`)."""
    return sample(records, lambda r: structure_of(r).well_formed, "no generated answer")


def think_closed(records: Sequence[TurnRecord]) -> Sample:
    """Share of all generated answers with one `<think>` that was closed before the token limit."""
    return sample(records, lambda r: structure_of(r).think_closed, "no generated answer")


def leaked(records: Sequence[TurnRecord]) -> Sample:
    """Share of all generated answers with a control token where none belongs."""
    return sample(records, lambda r: bool(structure_of(r).leaks), "no generated answer")


def stopped_after_recall(records: Sequence[TurnRecord]) -> Sample:
    """Of the answers with a recall: share where no reasoning follows the last one inside the think.

    Also where the recall never closes, so that thinking never resumes. docs/SPEC.zh.md, 4.4.
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
    return recites(structure_of(record).think, gold_text(record))
