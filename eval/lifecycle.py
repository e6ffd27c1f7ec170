"""What a change of a method's memories costs and what it breaks: each step of the plan, taken and asked about.

DESIGN section 5. Each step starts from the fitted method anew, on a copy. A method that cannot change its memories
(`RefitNeeded`) is fitted again on the changed set, and every record of that step says `refit`. A refit costs
a whole fit, so one serves `write` and `update` together and another one serves `forget`; both are asked for at
once, so that they can be made side by side. Growth is then left out. Questions are asked on their own, without a
history, from the test split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from eval.lifecycle_plan import STEPS, LifecyclePlan, RefitSet
from eval.records import EditRecord, LifecyclePhase, LifecycleRecord, LifecycleStep, TurnRecord
from methods.base import Answer, Context, FitReport, Indexer, Method, RecallSwitch, RefitNeeded, Stored
from tasks.base import QA, Memory, Message

Progress = Callable[[str, int, int], None]  # stage, done, total
Refit = Callable[[Mapping[RefitSet, Sequence[Memory]]], Iterator[tuple[Method, FitReport]]]
Role = Literal["target", "neighbour"]


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

        def recorded(phase: LifecyclePhase, asked: Sequence[tuple[Role, QA]], answers: Sequence[Answer]) -> None:
            memories = old_texts if phase == "before" else texts
            for (role, qa), answer in zip(asked, answers, strict=True):
                records.append(self._record(step, phase, role, qa, answer, memories, refit))

        records: list[EditRecord | LifecycleRecord] = [*edits]
        recorded("before", known, before)
        if step == "forget" and isinstance(changed, RecallSwitch):
            targets = [(role, qa) for role, qa in asked if role == "target"]
            changed.enable_recall(False)
            recorded("recall_off", targets, self._ask(changed, [qa for _, qa in targets], "forgotten, recall off"))
            changed.enable_recall(True)
        recorded("after", asked, self._ask(changed, [qa for _, qa in asked], f"after the {step}"))
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
        threads = int(report.notes.get("threads", 0))
        return fresh, [
            self._edit(step, memories, report.seconds, report.forward_tokens, refit=True, threads=threads)
        ]

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
        before = _stored_bytes(changed)
        if step == "growth" and isinstance(changed, Indexer):  # distractors need not be answerable
            report = changed.index(memories)
        else:
            report = changed.write(memories)
        stored = {"bytes_before": before, "bytes_after": _stored_bytes(changed)}
        return self._edit(step, memories, report.seconds, report.trained_tokens, num_added=num_added, **stored)

    def _forget(self, changed: Method, memory: Memory) -> EditRecord:
        before, started = _stored_bytes(changed), time.perf_counter()
        changed.forget([memory.id])
        seconds = time.perf_counter() - started
        return self._edit("forget", [memory], seconds, bytes_before=before, bytes_after=_stored_bytes(changed))

    def _edit(
        self, step: LifecycleStep, memories: Sequence[Memory], seconds: float, tokens: int = 0, **told: Any
    ) -> EditRecord:
        ids, rewritten = tuple(memory.id for memory in memories), self._rewrites(step)
        return EditRecord(self.method.name, self.seed, step, ids, seconds, tokens, rewritten=rewritten, **told)

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
