"""Ordinary ability before and after a fit, and with a memory vector in context. DESIGN section 5, "Ability".

Two local tasks are built from held-out general conversations, as many as wanted, and run through lm-eval on
the live model (`eval.ability_pass`); any lm-eval task can be added by name.

multiple_choice   the question in the chat template, the right final answer against three wrong ones of the
                  same topic and shape, ranked by the log-likelihood of answer + stop token (lm-eval's acc).
                  The answer follows the assistant header at once: the one form that asks for nothing that
                  only fitted models know, so it favours the untouched model if any.
generation        the question in the chat template, answered freely through the one decode loop, greedily;
                  exact match of the final answer after normalisation (`eval.scoring.normalise`). The final
                  answer stands behind `</think>`; a think that never closed is wrong; an answer without any
                  think (the untouched model's form) counts as a whole. Nothing is recalled or retrieved:
                  this is what the weights can do. What is *reasoned*: one think, opened and closed with the
                  answer behind it, that goes through the reference's steps, half of them at least, and ends in
                  the right answer. `ability/reasoning_kept` is the share of the problems that the model before
                  the fit reasoned through which it still does: the chain of thought that a method keeps.

Topics whose answer has more than one right wording are left out: small talk, `unknown` (an admission in free
words) and rewriting (half of it is about capitals, which normalisation takes away). So are multiple-choice
questions without three wrong answers of the same shape (yes or no).

`ability/before`, `ability/after` and `ability/with_memory` are the multiple-choice accuracies, which compare;
generation has keys of its own, since there the untouched model does not know the answer's format. Why with a
vector: one optimised vector in context took a model's MMLU from 63.2 to 0.0, a random one to 62.7
(Progressive Cramming); `with_random` is that control.

Everything here is a pure function over the task or over records and needs no model.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from eval.records import AbilityArm, AbilityRecord, RecordError
from eval.scoring import normalise, spans
from eval.stats import (
    Difference,
    Estimate,
    Sample,
    StatsError,
    estimate,
    missing,
    paired_difference,
)
from eval.structure import chain_kept, parse, sentences
from methods.parts import CONTROL_TOKENS, Part, final_text, read
from tasks.base import Conversation, TaskData
from tasks.spelling import MONTHS
from tasks.think_problems import TOPICS
from tasks.think_sft import chain_of_thought, draw_problems, final_answer, further_conversations

MULTIPLE_CHOICE, GENERATION = "multiple_choice", "generation"
LOCAL_TASKS = (MULTIPLE_CHOICE, GENERATION)
FREE_TOPICS = frozenset({"small_talk", "unknown", "rewriting"})  # more than one right wording
DRAWN_TOPICS = tuple(topic for topic in TOPICS if topic not in FREE_TOPICS | {"reading"})  # as many as wanted
NUM_CHOICES = 4
STEPS_KEPT = 0.5  # of the reference's, from which on a chain counts as gone through
POOL = 120  # fresh problems of a topic whose answers serve as wrong ones
POOL_SEED = 90_001  # far from the seeds of the corpora
WEEKDAYS = frozenset(["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"])
NO_BANK = "it holds no memory vectors that could sit in context"
NOT_RUN = "the ability pass was not run"


# --- items --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """One held-out question with its one right answer."""

    id: str  # of the conversation
    topic: str
    question: str
    gold: str
    choices: tuple[str, ...] = ()  # multiple choice: the right answer among wrong ones, in seeded order
    chain: str = ""  # the reference's reasoning


def shape(answer: str) -> str:
    """What an answer looks like: wrong answers of another shape would give themselves away.

    Numbers, days, months and clock times stand for their kind, units for themselves; answers in words are
    told apart by the number of words and by a capital at the beginning.
    """
    if answer.lower() in ("yes", "no"):
        return "yes or no"
    words, kinds = normalise(answer).split(), []
    for word in words:
        if re.fullmatch(r"\d+(?:\.\d+)?", word):
            kinds.append("#")
        elif re.fullmatch(r"\d\d:\d\d", word):
            kinds.append("clock")
        elif word in WEEKDAYS:
            kinds.append("day")
        elif word in MONTHS:
            kinds.append("month")
        else:
            kinds.append(word)
    if {"#", "clock", "day", "month"} & set(kinds):
        return " ".join(kinds)
    return f"{'Words' if answer[:1].isupper() else 'words'} {len(words)}"


def _eligible(task: TaskData, num_items: int) -> list[Item]:
    """The first exchange of held-out conversations with one right answer: the task's own, and as many more of its
    generated topics as make twice `num_items` in all.
    """
    missing = 2 * num_items - len(task.sft_heldout)
    drawn = Counter(c.topic for c in task.sft_heldout)
    more = further_conversations(DRAWN_TOPICS, max(0, -(-missing // len(DRAWN_TOPICS))), drawn)
    trained = {c.messages[0].content for c in task.sft}
    return [
        Item(c.id, c.topic, c.messages[0].content, _answer(c), chain=chain_of_thought(c.messages[1].content))
        for c in (*task.sft_heldout, *more)
        if c.topic not in FREE_TOPICS and normalise(_answer(c)) and c.messages[0].content not in trained
    ]


def _answer(conversation: Conversation) -> str:
    return final_answer(conversation.messages[1].content)


def _drawn(items: Sequence[Item], seed: int, num_items: int, what: str) -> list[Item]:
    return random.Random(f"ability/{what}/{seed}").sample(items, min(num_items, len(items)))


def generation_items(task: TaskData, seed: int, num_items: int) -> list[Item]:
    """A seeded draw of held-out questions with one right answer."""
    return _drawn(_eligible(task, num_items), seed, num_items, GENERATION)


def multiple_choice_items(task: TaskData, seed: int, num_items: int) -> list[Item]:
    """A seeded draw of held-out questions, each with three wrong answers; the right one stands anywhere.

    Wrong answers are answers to other problems of the topic, those that stand in the question first; of a
    list to sort they are its other orders. All four differ after normalisation.
    """
    eligible = _eligible(task, num_items)
    pools: dict[str, list[str]] = {}
    for item in eligible:
        pools.setdefault(item.topic, []).append(item.gold)
    for topic, answers in pools.items():
        if topic in TOPICS:
            answers += [problem.answer for problem in draw_problems(topic, POOL, POOL_SEED + seed, heldout=False)]
    built = []
    for item in eligible:
        rng = random.Random(f"ability/choices/{seed}/{item.id}")
        wrong = _wrong_answers(item, pools[item.topic], rng)
        if len(wrong) == NUM_CHOICES - 1:
            built.append(replace(item, choices=tuple(rng.sample((item.gold, *wrong), NUM_CHOICES))))
    return _drawn(built, seed, num_items, MULTIPLE_CHOICE)


def _wrong_answers(item: Item, pool: Sequence[str], rng: random.Random) -> list[str]:
    """Up to three answers of the gold's shape, none the same as another after normalisation."""
    parts = item.gold.split(", ")
    if item.topic == "sorting" and len(parts) > 2:
        orders = list(permutations(parts))[1:]
        candidates = [", ".join(order) for order in rng.sample(orders, min(len(orders), 12))]
    else:
        looks = shape(item.gold)
        fitting = sorted({answer for answer in pool if shape(answer) == looks})
        rng.shuffle(fitting)
        candidates = sorted(fitting, key=lambda answer: not spans(answer, item.question))
    taken, wrong = {normalise(item.gold)}, list[str]()
    for candidate in candidates:
        if len(wrong) < NUM_CHOICES - 1 and normalise(candidate) not in taken:
            taken.add(normalise(candidate))
            wrong.append(candidate)
    return wrong


# --- metrics ------------------------------------------------------------------------------------


def final_of(output: str) -> str:
    """The final answer in a generated text, its control tokens spelt out as lm-eval hands it over."""
    return final_text(read((Part("text", output),)))


def matches(output: str, gold: str) -> bool:
    """Is the final answer in a generated text the right one, after normalisation?"""
    return normalise(final_of(output)) == normalise(gold)


def correct(record: AbilityRecord) -> float:
    """1.0 or 0.0 for the local tasks; lm-eval's own score in [0, 1] for a task by name.

    Multiple choice: the first choice of highest log-likelihood is the right one (lm-eval's acc). Generation:
    exact match. Raises RecordError with the record's id where it cannot be scored.
    """
    if record.score is not None:
        return record.score
    if record.task == MULTIPLE_CHOICE:
        values = record.log_likelihoods
        if len(values) != len(record.choices) or record.gold not in record.choices or any(map(math.isnan, values)):
            raise RecordError(
                f"record {record.id}: needs one log-likelihood a choice and the right answer among the choices; "
                "remove the line and continue the run"
            )
        return float(record.choices[int(np.argmax(values))] == record.gold)
    if record.task == GENERATION:
        return float(matches(record.output, record.gold))
    raise RecordError(f"record {record.id}: lm-eval left no score; remove the line and continue the run")


def reasoned(record: AbilityRecord) -> float:
    """1.0 or 0.0: one think that goes through half of the reference's steps or more, and the right answer."""
    found = parse(tuple(_parts(record.output)))
    well = found.well_formed and bool(record.chain)
    well = well and chain_kept(found.steps, sentences(record.chain)) >= STEPS_KEPT
    return float(well and matches(record.output, record.gold))


def _parts(output: str) -> Iterator[Part]:
    """Of a text with its control tokens spelt out."""
    for piece in re.split("(" + "|".join(map(re.escape, CONTROL_TOKENS)) + ")", output):
        if piece:
            yield Part("control" if piece in CONTROL_TOKENS else "text", piece)


def items_reasoned(records: Sequence[AbilityRecord], arm: AbilityArm) -> Sample:
    """What was reasoned through, item by item, of one method's arm."""
    right = items_right(records, arm, GENERATION)
    kept = [record for record in records if record.arm == arm and record.task == GENERATION]
    return replace(right, values=np.array([reasoned(record) for record in kept], dtype=np.float64))


def reasoning_kept(records: Sequence[AbilityRecord]) -> Estimate:
    """Of the problems that the model before the fit reasoned through, the share that it still does."""
    before, after = items_reasoned(records, "before"), items_reasoned(records, "after")
    had = {item for item, value in zip(before.items, before.values, strict=True) if value}
    kept = np.array([item in had for item in after.items], dtype=bool)
    if not kept.any():
        return missing("the model before the fit reasons through no problem" if len(after) else NOT_RUN)
    ids = tuple(item for item in after.items if item in had)
    seeds = tuple(seed for seed, item in zip(after.seeds, after.items, strict=True) if item in had)
    return estimate(Sample(after.values[kept], ids, seeds, ids))


def items_right(records: Sequence[AbilityRecord], arm: AbilityArm, task: str = MULTIPLE_CHOICE) -> Sample:
    """Right or wrong, item by item, of one method's arm. Every item is a cluster of its own."""
    kept = [record for record in records if record.arm == arm and record.task == task]
    ids = tuple(f"{record.task}/{record.item_id}" for record in kept)
    return Sample(
        values=np.array([correct(record) for record in kept], dtype=np.float64),
        clusters=ids,
        seeds=tuple(record.seed for record in kept),
        items=ids,
        reason="" if kept else NOT_RUN,
    )


def ability_metrics(records: Sequence[AbilityRecord]) -> dict[str, Estimate]:
    """All ability/* metrics of one method.

    before, after, with_memory, with_random: multiple-choice accuracy. .../generation: exact match;
    .../<lm-eval task>: lm-eval's score. change: after - before, memory_change: with_memory - after, paired
    by item, in [-1, 1], each with its interval.
    """
    if not records:
        names = ("before", "after", "with_memory", "reasoning_kept")
        return dict.fromkeys((f"ability/{name}" for name in names), missing(NOT_RUN))
    no_vectors = all(record.arm in ("before", "after") for record in records)
    tasks = dict.fromkeys((*LOCAL_TASKS, *(record.task for record in records)))

    def change(arm: AbilityArm, reference: AbilityArm, task: str) -> Estimate:
        try:
            found = paired_difference(items_right(records, arm, task), items_right(records, reference, task))
        except StatsError as error:
            return missing(NO_BANK if no_vectors and arm == "with_memory" else str(error))
        return Estimate(found.value, found.low, found.high, found.n)

    metrics: dict[str, Estimate] = {}
    fits: tuple[AbilityArm, ...] = ("before", "after")
    for task in tasks:
        suffix = "" if task == MULTIPLE_CHOICE else f"/{task}"
        for arm in fits:
            metrics[f"ability/{arm}{suffix}"] = estimate(items_right(records, arm, task))
        metrics[f"ability/change{suffix}"] = change("after", "before", task)
    in_context: tuple[AbilityArm, ...] = ("with_memory", "with_random")
    for arm in in_context:
        found = missing(NO_BANK) if no_vectors else estimate(items_right(records, arm))
        metrics[f"ability/{arm}"] = found
    for arm in fits:
        metrics[f"ability/{arm}/reasoned"] = estimate(items_reasoned(records, arm))
    metrics["ability/reasoning_kept"] = reasoning_kept(records)
    metrics["ability/memory_change"] = change("with_memory", "after", MULTIPLE_CHOICE)
    return metrics


def ability_evidence(records: Sequence[AbilityRecord]) -> tuple[dict[str, Difference], str]:
    """Evidence for H4 of one method: after - before on both local tasks and on each lm-eval task that was named,
    and what is missing.

    Each task is a part of its own: a gain in the trained format cannot make up for a loss elsewhere.
    """
    evidence: dict[str, Difference] = {}
    if not records:
        return evidence, ""
    for task in dict.fromkeys((*LOCAL_TASKS, *(record.task for record in records))):
        try:
            evidence[task.replace("_", " ")] = paired_difference(
                items_right(records, "after", task), items_right(records, "before", task)
            )
        except StatsError as error:
            return evidence, f"needs {task} before and after the fit ({error})"
    return evidence, ""
