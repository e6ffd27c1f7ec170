"""The runner: what a method gets to see, every turn once, and the same records after an interruption."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from planted import answer, parts_of, raw_of

from eval.records import CostRecord, TurnRecord
from eval.runner import (
    Footprint,
    PeakMemory,
    TimedQuestion,
    cost_questions,
    num_generated,
    run_cost,
    run_retention,
)
from eval.shapes import Shapes, TransformerShape
from methods.base import Answer, Context, FitReport, Lookup, Usage, WriteReport
from methods.decode import _serial
from methods.prefixes import Prefixes, current_prefixes
from tasks.base import QA, Dialogue, Message, TaskData
from tasks.dialogues import build_dialogues
from tasks.registry import load_task

TASK = load_task("regs", 6, 0)
DIALOGUES = build_dialogues(TASK, 0, "test")


@dataclass
class Echo:
    """Answers with a digest of all it saw, so that a changed history changes the answer."""

    name: str = "echo"
    batches: list[list[Context]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)  # shared between methods to see who came when

    def answer(self, ctx: Context) -> Answer:
        self.log.append(self.name)
        return self.answer_batch([ctx])[0]

    def answer_batch(self, ctxs: Sequence[Context]) -> list[Answer]:
        self.batches.append(list(ctxs))
        return [self._one(ctx) for ctx in ctxs]

    def _one(self, ctx: Context) -> Answer:
        seen = sum(len(m.content) * (i + 1) for i, m in enumerate(ctx.messages))
        lookups = (Lookup("x", 0.5, "recalled text"),)
        parts = parts_of(f"<think>\nrecalled text\n</think>\nsaw {seen}<|im_end|>")
        return Answer(parts, lookups, Usage(seen, len(self.log)))

    def fit(self, memories: Any, sft: Any) -> FitReport:
        raise NotImplementedError

    def write(self, memories: Any) -> WriteReport:
        raise NotImplementedError

    def forget(self, ids: Any) -> None:
        raise NotImplementedError

    def save(self, path: Path) -> None:
        raise NotImplementedError

    def load(self, path: Path) -> None:
        raise NotImplementedError


def retention(
    method: Echo, done: dict[tuple[str, int], TurnRecord] | None = None, batch_size: int = 4, **options: Any
) -> list[list[TurnRecord]]:
    return list(
        run_retention(
            method, TASK, DIALOGUES, seed=3, max_new_tokens=24, batch_size=batch_size, done=done, **options
        )
    )


def flat(batches: list[list[TurnRecord]]) -> list[TurnRecord]:
    return [record for batch in batches for record in batch]


def by_key(records: list[TurnRecord]) -> dict[tuple[str, int], TurnRecord]:
    return {(r.dialogue_id, r.turn): r for r in records}


def test_every_generated_turn_is_recorded_once() -> None:
    records = flat(retention(Echo()))
    wanted = {(d.id, i) for d in DIALOGUES for i, turn in enumerate(d.turns) if turn.kind != "filler"}
    assert {(r.dialogue_id, r.turn) for r in records} == wanted
    assert len(records) == len(wanted) == num_generated(DIALOGUES)
    turns = {d.id: d.turns for d in DIALOGUES}
    for record in records:
        turn = turns[record.dialogue_id][record.turn]
        assert (record.kind, record.question, record.qa, record.distance, record.topic) == (
            turn.kind,
            turn.user,
            turn.qa,
            turn.distance,
            turn.topic,
        )
        assert (record.method, record.seed) == ("echo", 3)


def test_a_history_holds_messages_and_final_answers_only() -> None:
    method = Echo()
    answers = by_key(flat(retention(method)))
    seen = {ctx.messages: ctx for batch in method.batches for ctx in batch}
    expected = set()
    for dialogue in DIALOGUES:
        history: list[Message] = []
        for number, turn in enumerate(dialogue.turns):
            history.append(Message("user", turn.user))
            if turn.kind == "filler":
                reply = turn.reply or ""
            else:
                expected.add(tuple(history))
                reply = answers[dialogue.id, number].answer.final
            history.append(Message("assistant", reply))
    assert set(seen) == expected
    everything = " ".join(m.content for messages in seen for m in messages)
    assert "recalled text" not in everything  # neither a think nor what was looked up
    assert "think>" not in everything
    assert all(ctx.max_new_tokens == 24 for ctx in seen.values())


def test_a_method_is_never_shown_the_key() -> None:
    assert set(Context.__dataclass_fields__) == {"messages", "max_new_tokens"}


def test_the_clause_stands_in_the_record() -> None:
    records = flat(retention(Echo()))
    cued = {m.id: m.cued for m in TASK.memories}
    for record in records:
        gold = record.qa.memory_ids if record.qa else ()
        assert record.memory_text == "\n".join(TASK.memory(i).text for i in gold)
        assert record.cued == (all(cued[i] for i in gold) if gold else None)
        assert bool(record.reference_think) == (record.kind == "ordinary")
    assert {True, False, None} == {r.cued for r in records}


def test_a_turn_belongs_to_the_family_that_it_asks_for() -> None:
    """Siblings are one cluster; where nothing is asked, the family of the dialogue's clause, or the dialogue."""
    families = {memory.id: memory.family or memory.id for memory in TASK.memories}
    of_dialogue = {d.id: families.get(d.memory_id, d.id) for d in DIALOGUES}
    elsewhere = set()
    for record in flat(retention(Echo())):
        if record.qa is None:
            assert record.cluster == of_dialogue[record.dialogue_id]
        elif record.qa.memory_ids:
            assert record.cluster == families[record.qa.memory_ids[0]]
        else:
            assert record.cluster == record.qa.id
        if record.cluster != of_dialogue[record.dialogue_id]:
            elsewhere.add(record.kind)
    assert "unanswerable" in elsewhere and "follow_up" not in elsewhere


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_the_batch_size_changes_no_answer(batch_size: int) -> None:
    method = Echo()
    assert by_key(flat(retention(method, batch_size=batch_size))) == by_key(flat(retention(Echo())))
    assert max(map(len, method.batches)) <= batch_size


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_an_interrupted_run_ends_with_the_same_records(share: float) -> None:
    """Cut anywhere, in the middle of a batch too: nothing is lost and nothing stands twice.

    Only dialogues that were asked together, and all to their end, are not asked again.
    """
    whole = flat(retention(Echo()))
    kept = whole[: round(share * len(whole))]
    method = Echo()
    rest = flat(retention(method, done=by_key(kept)))
    assert kept + rest == whole
    together: list[list[TurnRecord]] = []  # the records of each batch of dialogues
    num_asked: list[int] = []
    for batch in retention(Echo()):
        if together and {r.dialogue_id for r in batch} <= {r.dialogue_id for r in together[-1]}:
            together[-1] += batch
            num_asked[-1] += 1
        else:
            together.append(list(batch))
            num_asked.append(1)
    left = [n for n, records in zip(num_asked, together, strict=True) if any(r in rest for r in records)]
    assert len(method.batches) == sum(left)


def test_what_was_answered_before_is_the_history_now() -> None:
    whole = flat(retention(Echo()))
    first = next(r for r in whole if any(o.dialogue_id == r.dialogue_id and o.turn > r.turn for o in whole))
    changed = replace(first, answer=answer(raw_of("Hm.", "something else entirely")))
    method = Echo()
    retention(method, done=by_key([changed]))
    histories = [m.content for batch in method.batches for ctx in batch for m in ctx.messages[:-1]]
    assert "something else entirely" in histories


def test_each_turn_follows_the_turn_before_it() -> None:
    """A batch is all about the dialogues of the batch before it, or about none of them: prompts go on."""
    batches = retention(Echo())
    for before, after in itertools.pairwise(batches):
        earlier = {r.dialogue_id: r.turn for r in before}
        here = {r.dialogue_id: r.turn for r in after}
        assert here.keys() <= earlier.keys() or here.keys().isdisjoint(earlier)
        assert all(turn > earlier.get(name, -1) for name, turn in here.items())


def test_prompts_are_reused_while_a_method_answers() -> None:
    """The same prefixes over a batch of dialogues, and none for whoever takes the records."""
    seen: list[Prefixes | None] = []

    class Looking(Echo):
        def answer_batch(self, ctxs: Sequence[Context]) -> list[Answer]:
            seen.append(current_prefixes())
            return super().answer_batch(ctxs)

    method = Looking()
    records = run_retention(method, TASK, DIALOGUES, seed=3, max_new_tokens=24, batch_size=4)
    assert all(current_prefixes() is None for _ in records)
    assert all(isinstance(prefixes, Prefixes) for prefixes in seen)
    same = [before is after for before, after in itertools.pairwise(seen)]
    assert True in same and False in same
    for kept, before, after in zip(same, method.batches, method.batches[1:], strict=False):
        asked = {ctx.messages for ctx in before}
        goes_on = any(ctx.messages[:n] in asked for ctx in after for n in range(len(ctx.messages)))
        assert goes_on or not kept  # a filler may begin another dialogue as a question has begun this one
    seen.clear()
    method.answer(Context((Message("user", "How much?"),)))  # as it is timed
    assert seen == [None]


def test_progress_reaches_the_end() -> None:
    shown: list[tuple[str, int, int]] = []
    retention(Echo(), progress=lambda *step: shown.append(step))
    assert shown[-1] == ("echo: dialogues", num_generated(DIALOGUES), num_generated(DIALOGUES))
    assert [done for _, done, _ in shown] == sorted(done for _, done, _ in shown)


def test_a_dialogue_of_filler_alone_asks_nothing() -> None:
    filler = next(turn for d in DIALOGUES for turn in d.turns if turn.kind == "filler")
    assert not list(
        run_retention(Echo(), TASK, [Dialogue("d", (filler, filler))], seed=0, max_new_tokens=8, batch_size=2)
    )


# The cost pass.

QUESTIONS = [
    TimedQuestion(
        QA(f"q{i}", f"question {i}", "a", ("c",)), Context((Message("user", f"question {i}"),), 8), f"family {i}"
    )
    for i in range(5)
]


@pytest.mark.parametrize("num_done", [0, 1, 7, 30])
def test_what_was_timed_before_is_not_asked_again(num_done: int) -> None:
    whole, _, _ = cost_pass()
    log: list[str] = []
    methods = [Echo(name, log=log) for name in ("a", "b", "c")]
    peaks = {name: Footprint(100 + i, "rss") for i, name in enumerate("abc")}
    done = {(r.method, r.question_id, r.round) for r in whole[:num_done]}
    rest = list(run_cost(methods, QUESTIONS, peaks, seed=2, rounds=2, done=done))

    def key(record: CostRecord) -> tuple[str, str, int]:
        return record.method, record.question_id, record.round

    assert [key(record) for record in rest] == [key(record) for record in whole[num_done:]]


def cost_pass(rounds: int = 2) -> tuple[list[Any], list[str], list[Echo]]:
    log: list[str] = []
    methods = [Echo(name, log=log) for name in ("a", "b", "c")]
    peaks = {name: Footprint(100 + i, "rss") for i, name in enumerate("abc")}
    return list(run_cost(methods, QUESTIONS, peaks, seed=2, rounds=rounds)), log, methods


def test_every_answer_is_timed_once_a_round() -> None:
    records, _, _ = cost_pass()
    wanted = {(m, asked.qa.id, lap) for m in "abc" for asked in QUESTIONS for lap in range(2)}
    assert {(r.method, r.question_id, r.round) for r in records} == wanted
    assert len(records) == len(wanted)
    assert {(r.method, r.peak_bytes, r.memory_kind) for r in records} == {
        ("a", 100, "rss"),
        ("b", 101, "rss"),
        ("c", 102, "rss"),
    }
    assert {r.seed for r in records} == {2}
    assert {(r.qa.id, r.cluster) for r in records if r.qa} == {(asked.qa.id, asked.cluster) for asked in QUESTIONS}
    assert all(record.final for record in records)  # what was timed is what is scored


def test_warm_up_is_not_recorded() -> None:
    records, log, methods = cost_pass()
    assert log[:3] == ["a", "b", "c"]
    assert len(log) == len(records) + 3
    assert all(batch == [QUESTIONS[0].context] for batch in (m.batches[0] for m in methods))


def test_methods_take_turns_and_none_is_always_first() -> None:
    """What slows the machine for a while slows all of them."""
    _, log, _ = cost_pass(rounds=3)
    rounds = [log[i : i + 3] for i in range(3, len(log), 3)]
    assert all(sorted(three) == ["a", "b", "c"] for three in rounds)
    firsts = Counter(three[0] for three in rounds)
    assert firsts == {"a": 5, "b": 5, "c": 5}


def test_cost_questions() -> None:
    drawn = cost_questions(TASK, 0, 5, 24)
    pool = {qa.id: qa for qa in TASK.held_out("test")}
    assert len(drawn) == len({asked.qa.id for asked in drawn}) == 5
    for asked in drawn:
        assert pool[asked.qa.id] == asked.qa
        assert asked.context == Context((Message("user", asked.qa.question),), 24)
        assert asked.cluster == TASK.memory(asked.qa.memory_ids[0]).family
    assert drawn == cost_questions(TASK, 0, 5, 24)
    assert drawn != cost_questions(TASK, 1, 5, 24)
    assert len(cost_questions(TASK, 0, 10_000, 24)) == len(pool)


def test_the_task_is_left_as_it_is() -> None:
    before = load_task("regs", 6, 0)
    retention(Echo())
    assert isinstance(TASK, TaskData)
    assert before == TASK


def test_peak_memory_sees_what_was_freed() -> None:
    size = 200 * 2**20
    before = psutil.Process().memory_info().rss
    with PeakMemory(torch.device("cpu")) as memory:
        block = np.ones(size, dtype=np.uint8)
        time.sleep(0.1)
        del block
    assert (memory.kind, memory.reserved_bytes) == ("rss", None)  # of a run on the CPU, whatever else is there
    assert memory.peak_bytes >= before + 0.9 * size
    assert memory.peak_bytes > psutil.Process().memory_info().rss


def test_a_timing_carries_what_was_measured_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = Shapes(TransformerShape(1, 2, 3, 4))
    monkeypatch.setattr("eval.shapes.shape_of", lambda model: model)

    class Told(Echo):
        def models(self) -> tuple[object, None]:
            return shapes.model, None

    peaks = {"a": Footprint(9, "vram", (7, 9), 12), "b": Footprint(5, "rss")}
    records = list(run_cost([Told("a"), Echo("b")], QUESTIONS[:1], peaks, seed=0))
    first, second = sorted(records, key=lambda record: record.method)
    assert (first.peaks_bytes, first.reserved_bytes, first.shapes) == ((7, 9), 12, shapes)
    assert (second.peaks_bytes, second.reserved_bytes, second.shapes) == ((), None, None)


def test_an_answer_that_took_drafts_is_timed_without_them_too() -> None:
    """Of the others one timing says both."""
    answered: list[tuple[str, bool]] = []

    class Drafts(Echo):
        def answer(self, ctx: Context) -> Answer:
            serial = _serial.get()
            answered.append((self.name, serial))
            answer = super().answer(ctx)
            drafted = 0 if serial or self.name == "plain" else 5
            return replace(answer, usage=replace(answer.usage, drafted=drafted, total_s=9.0 if serial else 4.0))

    peaks = {name: Footprint(1, "rss") for name in ("drafts", "plain")}
    records = run_cost([Drafts("drafts"), Drafts("plain")], QUESTIONS[:1], peaks, seed=0, warmup=0)
    assert {record.method: record.serial_s for record in records} == {"drafts": 9.0, "plain": 4.0}
    assert sorted(answered) == [("drafts", False), ("drafts", True), ("plain", False)]
