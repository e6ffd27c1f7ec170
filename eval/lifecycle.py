"""What a method's knowledge costs to change, and what a change breaks: write, update, forget, growth.

DESIGN section 5. After its fit every method goes through the same plan:

    write    clauses that the fit never saw, several a call (`written_at_once`), as a batch of news comes in
    update   clauses with a new text under their old id, one a call; the old value afterwards is *stale*
    forget   one clause of each near-miss family; its questions should be declined, its siblings' answered
    growth   ever more memories beside the fitted ones: does the right one still come first?

Each step starts from the fitted method anew, on a copy. A method that cannot change its memories
(`RefitNeeded`) is fitted again on the changed set, and every record of that step says `refit`. A refit costs
a whole fit, so one serves `write` and `update` together and another one serves `forget`; both are asked for at
once, so that they can be made side by side. Growth is then left out. Questions are asked on their own, without a
history, from the test split.

Where every clause of the task was fitted, none is left to write. Some fitted ones are then forgotten on the copy,
unmeasured, and written again, and every record of that step says `rewritten`: what the bank or index does is
measured as ever, but weights that were trained on these clauses may still know them, so the answers bound what
a write does from above.

The metrics are pure functions of the records.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from eval import ledger
from eval.records import EditRecord, LifecyclePhase, LifecycleRecord, LifecycleStep, TurnRecord
from eval.retention import correct, key_of
from eval.scoring import abstains, held_values
from eval.stats import (
    Estimate,
    Sample,
    estimate,
    estimate_mean,
    missing,
    paired_difference,
    sample,
)
from methods.base import Answer, Context, FitReport, Indexer, Method, RecallSwitch, RefitNeeded, Stored
from tasks.base import QA, Memory, Message, Split, TaskData, TaskError

Progress = Callable[[str, int, int], None]  # stage, done, total
RefitSet = Literal["changed", "forgotten"]  # with what is written and revised; without what is forgotten
Refit = Callable[[Mapping[RefitSet, Sequence[Memory]]], Iterator[tuple[Method, FitReport]]]
Role = Literal["target", "neighbour"]
STEPS: tuple[LifecycleStep, ...] = ("write", "update", "forget", "growth")


@dataclass(frozen=True)
class LifecycleOptions:
    """How much is changed, and how many questions tell what came of it."""

    num_written: int = 6  # clauses from outside the slice, at least: whole families are drawn
    written_at_once: int = 3  # of them, in one call: a method may write several at less cost than one by one
    num_forgotten: int = 6  # clauses, at most one a family
    num_neighbours: int = 24  # questions a step about clauses that it leaves alone, at most
    growth: tuple[int, ...] = (10, 30, 100)  # memories beside the fitted ones
    num_growth_questions: int = 24
    growth_new_tokens: int = 24  # of a growth answer, of which the first lookup alone counts

    def __post_init__(self) -> None:
        if self.written_at_once < 1:
            raise TaskError(f"lifecycle.written_at_once={self.written_at_once} writes nothing; choose 1 or more")


# --- the plan -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LifecyclePlan:
    """What is changed and what is asked: the same for every method."""

    memories: tuple[Memory, ...]  # the fitted ones
    written: tuple[Memory, ...]
    revisions: tuple[Memory, ...]
    forgotten: tuple[Memory, ...]
    distractors: tuple[Memory, ...]
    growth: tuple[int, ...]
    growth_new_tokens: int
    written_at_once: int
    targets: Mapping[LifecycleStep, tuple[QA, ...]]  # questions about what a step changes
    neighbours: Mapping[LifecycleStep, tuple[QA, ...]] = field(default_factory=dict)
    old: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # revised question -> forms of the old value
    rewritten: bool = False  # what is written was fitted, and is forgotten first

    def memories_of(self, refit: RefitSet) -> list[Memory]:
        """What a method that cannot change its memories is fitted on again."""
        if refit == "forgotten":
            gone = {memory.id for memory in self.forgotten}
            return [memory for memory in self.memories if memory.id not in gone]
        revised = {memory.id: memory for memory in self.revisions}
        kept = [revised.get(memory.id, memory) for memory in self.memories]
        return kept if self.rewritten else [*kept, *self.written]


def plan_lifecycle(
    task: TaskData, whole: TaskData, seed: int, options: LifecycleOptions, split: Split = "test"
) -> LifecyclePlan:
    """A seeded plan. task: what the methods were fitted on; whole: the task that it is a slice of.

    Raises TaskError for a revised question whose old value is not told.

    What is written was left out of the fit. Where nothing was, fitted clauses that no revision changes are
    written once more (`rewritten`). Distractors are the clauses that are left, then passages of the general
    corpus that was kept back.
    """
    rng = random.Random(f"lifecycle/{seed}")
    fitted, revised = {memory.id for memory in task.memories}, {memory.id for memory in task.revisions}
    new = [memory for memory in whole.memories if memory.id not in fitted]
    again = [] if new else [memory for memory in task.memories if memory.id not in revised]
    families: dict[str, list[Memory]] = {}
    for memory in new or again:
        families.setdefault(memory.family or f"only {memory.id}", []).append(memory)
    names = rng.sample(list(families), len(families))
    asked = {memory_id for qa in whole.held_out(split) for memory_id in qa.memory_ids}
    names.sort(key=lambda name: (asked.isdisjoint(m.id for m in families[name]), len(families[name]) == 1))
    written: list[Memory] = []
    while names and len(written) < options.num_written:
        written += families[names.pop(0)]
    left = [memory for name in names for memory in families[name] if new]
    passages = dict.fromkeys(c.passage for c in whole.sft_heldout if c.passage)
    distractors = (
        *rng.sample(left, len(left)),
        *(Memory(f"passage/{n}", text) for n, text in enumerate(passages, start=1)),
    )

    growth = tuple(sorted(size for size in options.growth if 0 < size <= len(distractors)))

    siblings: dict[str, list[Memory]] = {}
    for memory in task.memories:
        if memory.family:
            siblings.setdefault(memory.family, []).append(memory)
    several = [members for members in siblings.values() if len(members) > 1]
    picked = rng.sample(several, min(options.num_forgotten, len(several)))
    forgotten = [rng.choice(members) for members in picked]

    singles = list(task.held_out(split))
    updated = [qa for qa in task.revised_questions if qa.split == split]

    def about(memories: Collection[Memory], questions: Sequence[QA]) -> list[QA]:
        ids = {memory.id for memory in memories}
        return [qa for qa in questions if qa.memory_ids[0] in ids]

    def beside(changed: Collection[Memory]) -> list[Memory]:
        ids, near = {memory.id for memory in changed}, {memory.family for memory in changed if memory.family}
        return [memory for memory in task.memories if memory.family in near and memory.id not in ids]

    def drawn(questions: Sequence[QA], most: int) -> tuple[QA, ...]:
        return tuple(rng.sample(list(questions), min(most, len(questions))))

    changed = {memory.id for memory in (*written, *task.revisions)}
    untouched = [memory for memory in task.memories if memory.id not in changed]
    return LifecyclePlan(
        memories=task.memories,
        written=tuple(written),
        revisions=task.revisions,
        forgotten=tuple(forgotten),
        distractors=distractors,
        growth=growth,
        growth_new_tokens=options.growth_new_tokens,
        written_at_once=options.written_at_once,
        targets={
            "write": tuple(about(written, list(whole.held_out(split)))),
            "update": tuple(updated),
            "forget": tuple(about(forgotten, singles)),
            "growth": drawn(singles, options.num_growth_questions if growth else 0),
        },
        neighbours={
            # A refit that learns what is written learns the revisions too, and answers by them.
            "write": drawn(about(untouched, singles), options.num_neighbours),
            "update": drawn(about(beside(task.revisions), singles), options.num_neighbours),
            "forget": drawn(about(beside(forgotten), singles), options.num_neighbours),
        },
        old={qa.id: _old_value(task, qa) for qa in updated},
        rewritten=bool(again),
    )


def _old_value(task: TaskData, qa: QA) -> tuple[str, ...]:
    """The forms of a fact before its revision."""
    fact = f"{qa.memory_ids[0]}/{qa.slot}"
    if fact not in task.facts:
        raise TaskError(
            f"task {task.name}: question {qa.id!r} asks for a revised value, and `facts` lacks the old one; "
            f"add {fact!r}, or leave the question out"
        )
    return task.facts[fact]


# --- the pass -----------------------------------------------------------------------------------


def run_lifecycle(
    method: Method,
    plan: LifecyclePlan,
    *,
    copy: Callable[[], Method],
    refit: Refit,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
    done: Collection[EditRecord | LifecycleRecord] = (),
    progress: Progress | None = None,
) -> Iterator[list[EditRecord | LifecycleRecord]]:
    """Yields the records of one step after the other. `method` itself is asked and never changed.

    copy: gives the fitted method once more, free to be changed. refit: fits a fresh method on each of these sets
    of memories, in their order; called once, for a method that raises RefitNeeded, with the sets of all steps
    that are left. One of its methods is asked for only after the one before it was let go.
    done: records of an earlier, unfinished pass. They are not yielded again, and a step whose answers are all
    among them is not taken again.
    """
    work = _Pass(method, plan, copy, refit, seed, max_new_tokens, batch_size, progress)
    known = {_key(record) for record in done}
    work.left = [step for step in STEPS if plan.targets[step] and not work.answers_of(step) <= known]
    for step in work.left:
        records = work.growth() if step == "growth" else work.change(step)
        yield [record for record in records if _key(record) not in known]


Key = tuple[str, str, str, str, int]


def _key(record: EditRecord | LifecycleRecord) -> Key:
    """Tells the records of one method and seed apart."""
    if isinstance(record, EditRecord):
        return ("edit", record.step, "", " ".join(record.memory_ids), record.num_added)
    return (record.phase, record.step, record.role, record.turn.dialogue_id, record.num_added)


@dataclass
class _Pass:
    """One method on its way through the plan."""

    method: Method
    plan: LifecyclePlan
    copy: Callable[[], Method]
    refit: Refit
    seed: int
    max_new_tokens: int
    batch_size: int
    progress: Progress | None
    left: Sequence[LifecycleStep] = STEPS
    _before: dict[str, Answer] = field(default_factory=dict)  # question -> the fitted method's answer
    _refits: Iterator[tuple[Method, FitReport]] | None = None  # of the steps that are left
    _refitted: tuple[RefitSet, Method, FitReport] | None = None  # the last of them that was used

    def answers_of(self, step: LifecycleStep) -> set[Key]:
        """The answers that the step ends with."""
        sizes = self.plan.growth if step == "growth" else (0,)
        return {("after", step, role, qa.id, size) for role, qa in self._asked(step) for size in sizes}

    def _asked(self, step: LifecycleStep) -> list[tuple[Role, QA]]:
        targets, neighbours = self.plan.targets[step], self.plan.neighbours.get(step, ())
        return [*(("target", qa) for qa in targets), *(("neighbour", qa) for qa in neighbours)]

    # asking

    def _ask(
        self, method: Method, questions: Sequence[QA], stage: str, max_new_tokens: int | None = None
    ) -> list[Answer]:
        """Answers in the order of the questions; batches hold questions of similar length."""
        answers: dict[str, Answer] = {}
        texts = sorted({qa.question for qa in questions}, key=lambda text: (len(text), text))
        for start in range(0, len(texts), self.batch_size):
            batch = texts[start : start + self.batch_size]
            ctxs = [Context((Message("user", text),), max_new_tokens or self.max_new_tokens) for text in batch]
            answers |= zip(batch, method.answer_batch(ctxs), strict=True)
            if self.progress is not None:
                self.progress(f"{self.method.name}: {stage}", len(answers), len(texts))
        return [answers[qa.question] for qa in questions]

    def _answers_before(self, questions: Sequence[QA]) -> list[Answer]:
        """Each question is asked once, for all steps together: the batches are the same after an interruption."""
        if not self._before:
            fitted = {memory.id for memory in self.plan.memories}
            steps = [step for step in STEPS[:3] if self.plan.targets[step]]
            asked = [qa for step in steps for _, qa in self._asked(step) if qa.memory_ids[0] in fitted]
            self._before = dict(
                zip((qa.question for qa in asked), self._ask(self.method, asked, "before a change"), strict=True)
            )
        return [self._before[qa.question] for qa in questions]

    # write, update, forget

    def change(self, step: LifecycleStep) -> list[EditRecord | LifecycleRecord]:
        asked = self._asked(step)
        old_texts = {memory.id: memory for memory in self.plan.memories}
        known = [(role, qa) for role, qa in asked if qa.memory_ids[0] in old_texts]
        before = self._answers_before([qa for _, qa in known])
        changed, edits = self._changed(step)
        refit = edits[0].refit
        new = {"write": self.plan.written, "update": self.plan.revisions}.get(step, ())
        texts = old_texts | {memory.id: memory for memory in new}
        records: list[EditRecord | LifecycleRecord] = [*edits]
        records += [
            self._record(step, "before", role, qa, answer, old_texts, refit)
            for (role, qa), answer in zip(known, before, strict=True)
        ]
        if step == "forget" and isinstance(changed, RecallSwitch):
            targets = self.plan.targets[step]
            changed.enable_recall(False)
            silent = self._ask(changed, targets, "forgotten, recall off")
            changed.enable_recall(True)
            records += [
                self._record(step, "recall_off", "target", qa, answer, texts, refit)
                for qa, answer in zip(targets, silent, strict=True)
            ]
        after = self._ask(changed, [qa for _, qa in asked], f"after the {step}")
        records += [
            self._record(step, "after", role, qa, answer, texts, refit)
            for (role, qa), answer in zip(asked, after, strict=True)
        ]
        return records

    def _changed(self, step: LifecycleStep) -> tuple[Method, list[EditRecord]]:
        """The method with the step taken, and what that cost."""
        plan = self.plan
        memories = {"write": plan.written, "update": plan.revisions, "forget": plan.forgotten}[step]
        changed = self.copy()
        try:
            if step == "forget":
                return changed, [self._forget(changed, memory) for memory in memories]
            if self._rewrites(step):
                changed.forget([memory.id for memory in memories])
            size = plan.written_at_once if step == "write" else 1
            calls = [memories[start : start + size] for start in range(0, len(memories), size)]
            return changed, [self._write(step, changed, called) for called in calls]
        except RefitNeeded:
            del changed
        fresh, report = self._refit_of(step)
        ids = tuple(memory.id for memory in memories)
        cost = EditRecord(
            self.method.name,
            self.seed,
            step,
            ids,
            report.seconds,
            report.forward_tokens,
            refit=True,
            rewritten=self._rewrites(step),
            threads=int(report.notes.get("threads", 0)),
        )
        return fresh, [cost]

    def _refit_of(self, step: LifecycleStep) -> tuple[Method, FitReport]:
        """The method fitted again for this step, and what that cost."""
        if self._refits is None:
            wanted = dict.fromkeys(_refit_set(step) for step in self.left if step != "growth")
            self._refits = self.refit({refit: self.plan.memories_of(refit) for refit in wanted})
        refit = _refit_set(step)
        if self._refitted is None or self._refitted[0] != refit:
            self._refitted = None  # let go before the next one is made
            self._refitted = (refit, *next(self._refits))
        return self._refitted[1:]

    def _rewrites(self, step: LifecycleStep) -> bool:
        return step == "write" and self.plan.rewritten

    def _write(
        self, step: LifecycleStep, changed: Method, memories: Sequence[Memory], num_added: int = 0
    ) -> EditRecord:
        stored = _stored_bytes(changed)
        if step == "growth" and isinstance(changed, Indexer):  # distractors need not be answerable
            report = changed.index(memories)
        else:
            report = changed.write(memories)
        return EditRecord(
            self.method.name,
            self.seed,
            step,
            tuple(memory.id for memory in memories),
            report.seconds,
            report.trained_tokens,
            stored,
            _stored_bytes(changed),
            num_added,
            rewritten=self._rewrites(step),
        )

    def _forget(self, changed: Method, memory: Memory) -> EditRecord:
        stored = _stored_bytes(changed)
        started = time.perf_counter()
        changed.forget([memory.id])
        seconds = time.perf_counter() - started
        return EditRecord(
            self.method.name,
            self.seed,
            "forget",
            (memory.id,),
            seconds,
            bytes_before=stored,
            bytes_after=_stored_bytes(changed),
        )

    # growth

    def growth(self) -> list[EditRecord | LifecycleRecord]:
        """Lookups as distractors come in; nothing for a method that would have to be fitted again each time."""
        plan = self.plan
        grown = self.copy()
        so_far = 0
        records: list[EditRecord | LifecycleRecord] = []
        for size in plan.growth:
            try:
                edit = self._write("growth", grown, plan.distractors[so_far:size], size)
            except RefitNeeded:
                return []
            if not so_far:
                records += self._grown(self.method, 0)
            records += [edit, *self._grown(grown, size)]
            so_far = size
        return records

    def _grown(self, method: Method, size: int) -> list[LifecycleRecord]:
        questions = self.plan.targets["growth"]
        answers = self._ask(method, questions, f"with {size} more memories", self.plan.growth_new_tokens)
        texts = {memory.id: memory for memory in self.plan.memories}
        phase: LifecyclePhase = "after" if size else "before"
        return [
            replace(self._record("growth", phase, "target", qa, answer, texts, False), num_added=size)
            for qa, answer in zip(questions, answers, strict=True)
        ]

    def _record(
        self,
        step: LifecycleStep,
        phase: LifecyclePhase,
        role: Role,
        qa: QA,
        answer: Answer,
        memories: Mapping[str, Memory],
        refit: bool,
    ) -> LifecycleRecord:
        memory = memories[qa.memory_ids[0]]
        turn = TurnRecord(
            method=self.method.name,
            seed=self.seed,
            dialogue_id=qa.id,
            turn=0,
            kind="first_ask",
            question=qa.question,
            answer=answer,
            qa=qa,
            distance=0,
            cluster=memory.family or memory.id,
            cued=memory.cued,
            memory_text=memory.text,
        )
        return LifecycleRecord(step, phase, role, turn, self.plan.old.get(qa.id, ()), refit=refit)


def _refit_set(step: LifecycleStep) -> RefitSet:
    return "forgotten" if step == "forget" else "changed"


def _stored_bytes(method: Method) -> int | None:
    return method.stored_bytes() if isinstance(method, Stored) else None


# --- metrics: pure functions of the records -------------------------------------------------------


def turns_of(
    records: Sequence[LifecycleRecord],
    step: LifecycleStep,
    phase: LifecyclePhase = "after",
    role: Role = "target",
    num_added: int = 0,
) -> list[TurnRecord]:
    """The answers of one step and phase, as turns."""
    return [
        record.turn
        for record in records
        if (record.step, record.phase, record.role, record.num_added) == (step, phase, role, num_added)
    ]


def stale(records: Sequence[LifecycleRecord], phase: LifecyclePhase = "after") -> Sample:
    """Share of the questions about updated clauses whose answer holds the old value.

    A value that the answer denies ("6 weeks, not 5") does not count. phase "before": how often the old value
    was known at all.
    """
    old = {id(record.turn): set(record.old) for record in records}

    def value(turn: TurnRecord) -> bool | None:
        qa = key_of(turn)
        return None if qa is None else not old[id(turn)].isdisjoint(held_values(turn.answer.final, qa)[1])

    return sample(turns_of(records, "update", phase), value, NOT_TAKEN["update"])


def declined(records: Sequence[LifecycleRecord], phase: LifecyclePhase = "after") -> Sample:
    """Share of the questions about forgotten clauses that were answered by abstaining."""

    def value(turn: TurnRecord) -> bool | None:
        qa = key_of(turn)
        return None if qa is None else abstains(turn.answer.final, qa)

    return sample(turns_of(records, "forget", phase), value, _NOTHING["forget", phase])


def still_right(records: Sequence[LifecycleRecord], phase: LifecyclePhase = "after") -> Sample:
    """Share of the questions about forgotten clauses that were answered right all the same."""
    return sample(turns_of(records, "forget", phase), correct, _NOTHING["forget", phase])


def neighbours(
    records: Sequence[LifecycleRecord], step: LifecycleStep = "forget", phase: LifecyclePhase = "after"
) -> Sample:
    """Share of right answers about clauses that a step leaves alone.

    update, forget: siblings of the changed clauses; write: any fitted clauses.
    """
    taken = any(record.step == step for record in records)
    reason = f"no neighbour was asked about: {step}" if taken else NOT_TAKEN[step]
    return sample(turns_of(records, step, phase, "neighbour"), correct, reason)


def spent(edits: Sequence[EditRecord], step: LifecycleStep, what: Literal["seconds", "tokens", "bytes"]) -> Sample:
    """What a change costs: seconds, trained tokens or bytes a memory, each memory's share of its call.

    A refit, which changes all of them, counts whole. Bytes are the change of the bank or index: above 0 it grew,
    below 0 it shrank.
    """

    def value(edit: EditRecord) -> float | None:
        if what == "seconds":
            return edit.seconds
        if what == "tokens":
            return edit.trained_tokens
        if edit.bytes_before is None or edit.bytes_after is None:
            return None
        return edit.bytes_after - edit.bytes_before

    of_step = [edit for edit in edits if edit.step == step]
    kept: list[tuple[EditRecord, str, float]] = []
    for edit in of_step:
        number = value(edit)
        if number is not None:
            shared = ("",) if edit.refit else edit.memory_ids
            kept += [(edit, memory_id, number / len(shared)) for memory_id in shared]
    if of_step:
        weights = "weights hold it: no clause has bytes of its own"
        reason = weights if of_step[0].refit else "the method does not tell what it stores"
    else:
        reason = NO_GROWTH if step == "growth" and any(edit.refit for edit in edits) else NOT_TAKEN[step]
    return Sample(
        values=np.array([number for _, _, number in kept], dtype=np.float64),
        clusters=tuple(_edit_cluster(edit) for edit, _, _ in kept),
        seeds=tuple(edit.seed for edit, _, _ in kept),
        items=tuple(memory_id for _, memory_id, _ in kept),
        reason=reason,
    )


def _edit_cluster(edit: EditRecord) -> str:
    return " ".join(edit.memory_ids)


NOT_TAKEN: dict[LifecycleStep, str] = {  # why a step has no records
    "write": "no clause was left to write",
    "update": "the task revises no clause",
    "forget": "no clause was forgotten",
    "growth": "no distractor was written",
}
CUED = {"cued": True, "uncued": False}  # written clauses with training questions, and those without
NO_GROWTH = "its memories are changed by a refit, and one for every size is not made"
_NOTHING: dict[tuple[LifecycleStep, LifecyclePhase], str] = {
    ("forget", "before"): NOT_TAKEN["forget"],
    ("forget", "after"): NOT_TAKEN["forget"],
    ("forget", "recall_off"): "it has no recall to switch off",
}


def _none_written(written: Sequence[TurnRecord], kind: str) -> str:
    """Why a metric of the cued or the uncued written clauses has no value."""
    return f"none of the written clauses is {kind}" if written else NOT_TAKEN["write"]


def _change(before: Sample, after: Sample) -> Estimate:
    """Mean after minus mean before, over the questions asked both times."""
    for drawn in (before, after):
        if not len(drawn):
            return missing(drawn.reason)
    difference = paired_difference(after, before)
    return Estimate(difference.value, difference.low, difference.high, difference.n)


def lifecycle_metrics(records: Sequence[LifecycleRecord], edits: Sequence[EditRecord]) -> dict[str, Estimate]:
    """All lifecycle/* metrics of one method."""
    written, updated = turns_of(records, "write"), turns_of(records, "update")
    shares = {
        "lifecycle/write_accuracy": sample(written, correct, NOT_TAKEN["write"]),
        "lifecycle/update_accuracy": sample(updated, correct, NOT_TAKEN["update"]),
        "lifecycle/stale_rate": stale(records),
        "lifecycle/stale_before": stale(records, "before"),
        "lifecycle/forget_abstention": declined(records),
        "lifecycle/forget_abstention_before": declined(records, "before"),
        "lifecycle/forget_abstention_recall_off": declined(records, "recall_off"),
        "lifecycle/forget_still_right": still_right(records),
        "lifecycle/forget_right_before": still_right(records, "before"),
        "lifecycle/forget_still_right_recall_off": still_right(records, "recall_off"),
        "lifecycle/neighbour_accuracy": neighbours(records),
        "lifecycle/neighbour_before": neighbours(records, phase="before"),
    }
    for kind, cued in CUED.items():
        asked = [turn for turn in written if turn.cued is cued]
        shares[f"lifecycle/write_accuracy_{kind}"] = sample(asked, correct, _none_written(written, kind))
    metrics = {name: estimate(drawn) for name, drawn in shares.items()}
    for step in ("write", "update", "forget"):
        metrics[f"lifecycle/{step}_neighbour_change"] = _change(
            neighbours(records, step, "before"), neighbours(records, step)
        )
    for step in STEPS:
        metrics[f"lifecycle/{step}_s"] = estimate_mean(spent(edits, step, "seconds"))
        metrics[f"lifecycle/{step}_bytes"] = estimate_mean(spent(edits, step, "bytes"))
        metrics[f"lifecycle/{step}_tokens"] = estimate_mean(spent(edits, step, "tokens"))
    rewritten = [edit.rewritten for edit in edits if edit.step == "write"]
    metrics["lifecycle/rewritten"] = (
        Estimate(float(any(rewritten)), n=len(rewritten)) if rewritten else missing(NOT_TAKEN["write"])
    )
    threads = [edit.threads for edit in edits if edit.threads]
    metrics["lifecycle/refit_threads"] = (
        Estimate(float(min(threads)), n=len(threads)) if threads else missing("no refit told its threads")
    )
    refits = {edit.refit for edit in edits}
    metrics["lifecycle/refit"] = (
        Estimate(float(any(refits)), n=len(edits)) if edits else missing("nothing was changed")
    )
    return metrics | _lookup_metrics(records, edits)


def _lookup_metrics(records: Sequence[LifecycleRecord], edits: Sequence[EditRecord]) -> dict[str, Estimate]:
    """Look-ups of written clauses, and of fitted ones among distractors; for methods that can write.

    write_verbatim: of the asks about written clauses that found the right one first, the share whose text came
    back word for word (`ledger.verbatim_given_hit`).
    """
    written = turns_of(records, "write")
    metrics: dict[str, Estimate] = {}
    for name, metric in (("hit_at_1", ledger.hit_at_1), ("verbatim", ledger.verbatim_given_hit)):
        found = estimate(metric(written)) if written else missing(NOT_TAKEN["write"])
        metrics[f"lifecycle/write_{name}"] = found
        for kind, cued in CUED.items():
            asked = [turn for turn in written if turn.cued is cued]
            found = estimate(metric(asked)) if asked else missing(_none_written(written, kind))
            metrics[f"lifecycle/write_{name}_{kind}"] = found
    if any(edit.refit for edit in edits):
        never = dict.fromkeys(metrics, missing("it never looks anything up"))
        return never | {"lifecycle/growth_hit_change": missing(NO_GROWTH)}
    sizes = sorted({record.num_added for record in records if record.step == "growth"})
    grown = {
        size: ledger.hit_at_1(turns_of(records, "growth", "after" if size else "before", num_added=size))
        for size in sizes
    }
    if len(sizes) > 1:
        metrics["lifecycle/growth_hit_change"] = _change(grown[sizes[0]], grown[sizes[-1]])
    else:
        metrics["lifecycle/growth_hit_change"] = missing(NOT_TAKEN["growth"])
    return metrics | {f"lifecycle/hit_at_1_plus{size}": estimate(drawn) for size, drawn in grown.items()}


KEYS = (  # of lifecycle_metrics, without those that name a size of the bank
    *(f"lifecycle/{step}_{what}" for step in STEPS for what in ("s", "bytes", "tokens")),
    *(f"lifecycle/write_{name}" for name in ("accuracy", "hit_at_1", "verbatim")),
    *(f"lifecycle/write_{name}_{kind}" for name in ("accuracy", "hit_at_1", "verbatim") for kind in CUED),
    "lifecycle/rewritten",
    "lifecycle/update_accuracy",
    "lifecycle/stale_rate",
    "lifecycle/stale_before",
    *(f"lifecycle/forget_abstention{when}" for when in ("", "_before", "_recall_off")),
    *(f"lifecycle/forget_{name}" for name in ("still_right", "right_before", "still_right_recall_off")),
    "lifecycle/neighbour_accuracy",
    "lifecycle/neighbour_before",
    *(f"lifecycle/{step}_neighbour_change" for step in ("write", "update", "forget")),
    "lifecycle/growth_hit_change",
    "lifecycle/refit",
    "lifecycle/refit_threads",
)
