"""Runs methods over dialogues and questions, and yields records as they come.

Two passes that never mix: retention is batched across dialogues and takes no times; cost is batch 1, warmed
up and interleaved over the methods, so that what slows the machine slows all of them.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import psutil
import torch

from eval.records import CostRecord, TurnRecord
from eval.shapes import shapes_of
from methods.backbone import resolve_device, too_little
from methods.base import Answer, Context, Method, MethodError
from methods.decode import serially
from methods.fixed_cache import release
from methods.prefixes import Prefixes, reusing
from tasks.base import QA, Dialogue, Message, TaskData, Turn

log = logging.getLogger(__name__)

WARMUP_ON_CARD = 6  # questions, asked twice: there each shape of a step is first run as written, then recorded
SERIAL_QUESTIONS = 12  # whose answers are timed without drafts as well: they take twice as long
Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass
class _Live:
    """A dialogue on its way: the history a method sees holds messages and final answers only."""

    dialogue: Dialogue
    next_turn: int = 0
    history: list[Message] = field(default_factory=list)

    def advance(self) -> Turn | None:
        """Passes scripted filler and stops at the next turn that needs an answer."""
        while self.next_turn < len(self.dialogue.turns):
            turn = self.dialogue.turns[self.next_turn]
            self.history.append(Message("user", turn.user))
            if turn.kind != "filler":
                return turn
            self.history.append(Message("assistant", turn.reply or ""))
            self.next_turn += 1
        return None


def num_generated(dialogues: Sequence[Dialogue]) -> int:
    return sum(turn.kind != "filler" for dialogue in dialogues for turn in dialogue.turns)


def run_retention(
    method: Method,
    task: TaskData,
    dialogues: Sequence[Dialogue],
    *,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
    done: Mapping[tuple[str, int], TurnRecord] | None = None,
    progress: Progress | None = None,
) -> Iterator[list[TurnRecord]]:
    """Yields the records of one batch after the other.

    Dialogues stand in the order of their generated turns and length and are cut into batches. A batch goes through
    all its turns before the next one starts, so that each turn goes on from the prompts of the turn before.
    done: (dialogue id, turn) -> a record of an earlier, unfinished run. It is not yielded again, and a batch of
    dialogues that is done as a whole is not computed again. One that was cut is computed from its first turn on:
    its later turns go on from the prompts of the earlier ones, and would else differ by rounding.
    """
    done = done or {}
    texts = {memory.id: memory.text for memory in task.memories}
    cued = {memory.id: memory.cued for memory in task.memories}
    families = families_of(task)
    total, finished = num_generated(dialogues), 0
    for group in _batches(dialogues, batch_size):
        prefixes = Prefixes()
        whole = all((d.id, n) in done for d in group for n, turn in enumerate(d.turns) if turn.kind != "filler")
        live = [_Live(dialogue) for dialogue in group]
        while batch := [(state, turn) for state in live if (turn := state.advance()) is not None]:
            known = [done.get((state.dialogue.id, state.next_turn)) for state, _ in batch]
            answers: list[Answer] = []
            if not whole:
                with reusing(prefixes):
                    answers = _answers(
                        method, [Context(tuple(state.history), max_new_tokens) for state, _ in batch]
                    )
            records = []
            for number, ((state, turn), old) in enumerate(zip(batch, known, strict=True)):
                answer = answers[number] if old is None else old.answer
                if old is None:
                    records.append(_record(method.name, seed, state, turn, answer, texts, cued, families))
                state.history.append(Message("assistant", answer.final))
                state.next_turn += 1
            finished += len(batch)
            if progress is not None:
                progress(f"{method.name}: dialogues", finished, total)
            if records:
                yield records
            live = [state for state, _ in batch]


def _answers(method: Method, contexts: Sequence[Context]) -> list[Answer]:
    """In halves where the memory does not hold them together. Raises MethodError where it does not hold one."""
    try:
        return method.answer_batch(contexts)
    except torch.OutOfMemoryError as error:
        said = too_little(resolve_device("auto"))
        if len(contexts) == 1:
            raise MethodError(f"{said}, and one answer of {method.name} does not fit; free it") from error
    release()
    log.warning("%s: %d answers are generated in two parts", said, len(contexts))
    half = len(contexts) // 2
    return [*_answers(method, contexts[:half]), *_answers(method, contexts[half:])]


def _batches(dialogues: Sequence[Dialogue], batch_size: int) -> Iterator[Sequence[Dialogue]]:
    """Dialogues that take about as long: by generated turns, then by what stands before the first of them."""

    def length(dialogue: Dialogue) -> tuple[int, int]:
        before = itertools.takewhile(lambda turn: turn.kind == "filler", dialogue.turns)
        return num_generated([dialogue]), sum(len(turn.user) + len(turn.reply or "") for turn in before)

    asked = sorted((dialogue for dialogue in dialogues if num_generated([dialogue])), key=length)
    for start in range(0, len(asked), batch_size):
        yield asked[start : start + batch_size]


def _record(
    name: str,
    seed: int,
    state: _Live,
    turn: Turn,
    answer: Answer,
    texts: Mapping[str, str],
    cued: Mapping[str, bool],
    families: Mapping[str, str],
) -> TurnRecord:
    gold = turn.qa.memory_ids if turn.qa else ()
    of_dialogue = families.get(state.dialogue.memory_id, state.dialogue.id)
    return TurnRecord(
        method=name,
        seed=seed,
        dialogue_id=state.dialogue.id,
        turn=state.next_turn,
        kind=turn.kind,
        question=turn.user,
        answer=answer,
        qa=turn.qa,
        distance=turn.distance,
        cluster=cluster_of_question(turn.qa, families) if turn.qa else of_dialogue,
        cued=all(cued[i] for i in gold) if gold else None,
        memory_text="\n".join(texts[i] for i in gold),
        reference_think=turn.reply or "" if turn.kind == "ordinary" else "",
        topic=turn.topic,
    )


def families_of(task: TaskData) -> dict[str, str]:
    """Clause id -> its near-miss family; a clause without one is a family of its own."""
    return {memory.id: memory.family or memory.id for memory in task.memories}


def cluster_of_question(qa: QA, families: Mapping[str, str]) -> str:
    """The family of the (first) clause that a question asks for, or the question itself where none answers it."""
    return families[qa.memory_ids[0]] if qa.memory_ids else qa.id


class PeakMemory:
    """Peak memory while the block runs: allocated VRAM on CUDA, else this process's resident set.

    What the process holds already, weights above all, is part of it. `ru_maxrss` is a lifetime peak, so the
    resident set is sampled in a thread every 20 ms.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cuda = device.type == "cuda"
        self.kind = "vram" if self.cuda else "rss"
        self.peak_bytes = 0
        self.reserved_bytes: int | None = None  # most that the CUDA allocator held at once

    def __enter__(self) -> PeakMemory:
        self._stop = threading.Event()
        if self.cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()  # else what loading left reserved would count
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._process = psutil.Process()
            self._sample()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def _sample(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._sample()

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device)
            self.reserved_bytes = torch.cuda.max_memory_reserved(self.device)
            return
        self._stop.set()
        self._thread.join()
        self._sample()


@dataclass(frozen=True)
class Footprint:
    """Peak memory of a process that holds one method alone, while it answers."""

    peak_bytes: int  # the highest of the measurements
    kind: str  # "vram" (allocated, CUDA) or "rss" (resident set, CPU)
    peaks_bytes: tuple[int, ...] = ()  # each measurement; (): one, which is peak_bytes
    reserved_bytes: int | None = None  # most that the CUDA allocator held at once


@dataclass(frozen=True)
class TimedQuestion:
    """One question of the cost pass, asked fresh."""

    qa: QA
    context: Context
    cluster: str  # the family of its clause


def run_cost(
    methods: Sequence[Method],
    questions: Sequence[TimedQuestion],
    peaks: Mapping[str, Footprint],
    *,
    seed: int,
    rounds: int = 1,
    warmup: int = 1,
    done: Collection[tuple[str, str, int]] = (),
    progress: Progress | None = None,
) -> Iterator[CostRecord]:
    """Times single answers. For each question every method answers in turn, in rotating order.

    Of the first questions an answer that took drafts is decoded again without, right behind. peaks: method -> its
    memory, measured apart. Warm-up answers are not recorded. Records come as they are measured. done: method,
    question id and round of what an earlier, unfinished pass has timed: not asked again.
    """
    on_card = any(peak.kind == "vram" for peak in peaks.values())
    for method in methods:
        for asked in list(questions[:WARMUP_ON_CARD]) * 2 if on_card else questions[:warmup]:
            method.answer(asked.context)
    shapes = {method.name: shapes_of(method) for method in methods}
    total, finished = rounds * len(questions) * len(methods), 0
    for lap in range(rounds):
        for number, asked in enumerate(questions):
            shift = (lap + number) % len(methods)
            for method in [*methods[shift:], *methods[:shift]]:
                finished += 1
                if (method.name, asked.qa.id, lap) in done:
                    continue
                answer = method.answer(asked.context)
                serial_s = answer.usage.total_s if number < SERIAL_QUESTIONS else None
                drafted = answer.usage.drafted or 0 < answer.usage.forwards < answer.usage.new_tokens
                if serial_s is not None and drafted:
                    with serially():
                        serial_s = method.answer(asked.context).usage.total_s
                if progress is not None:
                    progress("timing", finished, total)
                peak = peaks[method.name]
                yield CostRecord(
                    method=method.name,
                    seed=seed,
                    question_id=asked.qa.id,
                    round=lap,
                    usage=answer.usage,
                    peak_bytes=peak.peak_bytes,
                    memory_kind=peak.kind,
                    peaks_bytes=peak.peaks_bytes,
                    reserved_bytes=peak.reserved_bytes,
                    serial_s=serial_s,
                    shapes=shapes[method.name],
                    qa=asked.qa,
                    final=answer.final,
                    cluster=asked.cluster,
                )


def cost_questions(task: TaskData, seed: int, num_questions: int, max_new_tokens: int) -> list[TimedQuestion]:
    """A seeded draw of single test questions, asked fresh."""
    pool = list(task.held_out("test"))
    drawn = random.Random(f"cost/{seed}").sample(pool, min(num_questions, len(pool)))
    families = families_of(task)
    return [
        TimedQuestion(
            qa, Context((Message("user", qa.question),), max_new_tokens), cluster_of_question(qa, families)
        )
        for qa in drawn
    ]
