"""The lifecycle pass on methods whose behaviour is planted: every metric reports what was planted."""

from __future__ import annotations

import copy
import gc
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from planted import ABSTAINS, answer, raw_of

from eval.lifecycle import run_lifecycle
from eval.lifecycle_metrics import KEYS, lifecycle_metrics, turns_of
from eval.lifecycle_plan import LifecycleOptions, LifecyclePlan, RefitSet, plan_lifecycle
from eval.records import EditRecord, LifecycleRecord, RecordError, RecordWriter, TurnRecord, read_all_records
from eval.stats import Estimate
from methods.base import Answer, Context, FitReport, Lookup, Method, RefitNeeded, WriteReport
from tasks.base import QA, Memory, TaskData, TaskError
from tasks.regs import load

WRITE_S = 2.5
BYTES = 512  # a clause
FIT = FitReport(600.0, 150_000, 400)


def clause(family: int, site: int, amount: int) -> Memory:
    text = f"Staff at site {family}-{site} may spend {amount} euros a day."
    return Memory(f"c{family}{site}", text, f"Meals, site {family}-{site}", family=f"f{family}")


def question(family: int, site: int, amount: int, kind: Any = "single") -> QA:
    near = [100 * family + 10 * other for other in range(3) if other != site]
    old = 100 * family + 10 * site
    return QA(
        id=f"c{family}{site}/test1" + ("/revised" if kind == "revised" else ""),
        question=f"What may staff at site {family}-{site} spend?",
        answer=f"{amount} euros",
        memory_ids=(f"c{family}{site}",),
        rivals=tuple(f"{value} euros" for value in (*near, *([old] if kind == "revised" else []))),
        split="test",
        kind=kind,
        slot="amount",
    )


def make_task(families: Sequence[int]) -> TaskData:
    """Three clauses a family; the first of each has a revision."""
    cells = [(f, s) for f in families for s in range(3)]
    return TaskData(
        name="planted",
        memories=tuple(clause(f, s, 100 * f + 10 * s) for f, s in cells),
        questions=tuple(question(f, s, 100 * f + 10 * s) for f, s in cells),
        sft=(),
        sft_heldout=(),
        revisions=tuple(clause(f, 0, 7000 + f) for f in families),
        revised_questions=tuple(question(f, 0, 7000 + f, "revised") for f in families),
        facts={f"c{f}{s}/amount": (f"{100 * f + 10 * s} euros",) for f, s in cells},
    )


WHOLE = make_task(range(1, 21))
TASK = make_task(range(1, 9))
PLAN = plan_lifecycle(TASK, WHOLE, 0, LifecycleOptions(num_written=6, growth=(5, 20)))


@dataclass
class Planted:
    """Looks the clause of a question up by its site and gives its amount; abstains where there is none."""

    name: str = "planted"
    texts: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)  # what was asked of the fitted method and of its copies

    def fit(self, memories: Sequence[Memory], sft: Any) -> FitReport:
        self.texts = {m.id: m.text for m in memories}
        return FIT

    def answer(self, ctx: Context) -> Answer:
        return self.answer_batch([ctx])[0]

    def answer_batch(self, ctxs: Sequence[Context]) -> list[Answer]:
        self.log.append(f"{len(ctxs)} answers")
        return [self.say(ctx.messages[-1].content) for ctx in ctxs]

    def say(self, asked: str) -> Answer:
        found = self.find(asked)
        if found is None:
            return given(ABSTAINS)
        amount = re.search(r"(\d+) euros", self.texts[found])
        assert amount is not None
        return given(f"It is {amount[1]} euros.", (Lookup(found, 1.0, self.texts[found]),))

    def find(self, asked: str) -> str | None:
        site = re.search(r"site (\d+)-(\d+)", asked)
        assert site is not None
        memory_id = f"c{site[1]}{site[2]}"
        return memory_id if memory_id in self.texts else None

    def write(self, memories: Sequence[Memory]) -> WriteReport:
        self.log.append(f"write {len(memories)}")
        self.texts |= {m.id: m.text for m in memories}
        return WriteReport(WRITE_S * len(memories), len(memories), 40 * len(memories), BYTES * len(self.texts))

    def forget(self, ids: Sequence[str]) -> None:
        self.log.append(f"forget {len(ids)}")
        for memory_id in ids:
            del self.texts[memory_id]

    def stored_bytes(self) -> int:
        return BYTES * len(self.texts)

    def save(self, path: Path) -> None:
        raise NotImplementedError

    def load(self, path: Path) -> None:
        raise NotImplementedError


def given(final: str, lookups: tuple[Lookup, ...] = ()) -> Answer:
    return answer(raw_of("", final), lookups)


class KeepsTheOldValue(Planted):
    """Copies the old value after an update."""

    def write(self, memories: Sequence[Memory]) -> WriteReport:
        return super().write([m for m in memories if m.id not in self.texts])


class HedgesAfterUpdates(Planted):
    """Gives both values, and says of the old one that it no longer holds."""

    def say(self, asked: str) -> Answer:
        answer = super().say(asked)
        amount = re.search(r"7\d\d\d", answer.final)
        return given(f"It is {amount[0]} euros, not {100 * (int(amount[0]) - 7000)} euros.") if amount else answer


class NeverForgets(Planted):
    def forget(self, ids: Sequence[str]) -> None:
        pass


@dataclass
class WeightsRemember(Planted):
    """Forgets what it can look up; with its recall off it says what its weights have learnt."""

    learnt: dict[str, str] = field(default_factory=dict)
    enabled: bool = True

    def fit(self, memories: Sequence[Memory], sft: Any) -> FitReport:
        self.learnt = {m.id: m.text for m in memories}
        return super().fit(memories, sft)

    def enable_recall(self, enabled: bool) -> None:
        self.enabled = enabled

    def say(self, asked: str) -> Answer:
        if self.enabled:
            return super().say(asked)
        return replace(Planted(texts=self.learnt).say(asked), lookups=())


class HarmsNeighbours(Planted):
    """Forgetting one clause makes its whole family unreachable."""

    def forget(self, ids: Sequence[str]) -> None:
        near = {memory_id[:-1] for memory_id in ids}
        self.texts = {i: text for i, text in self.texts.items() if i[:-1] not in near}


class LosesItselfInLargeBanks(Planted):
    """From 15 memories more than it was fitted on, it finds another clause first."""

    def find(self, asked: str) -> str | None:
        found = super().find(asked)
        return next(i for i in self.texts if i != found) if len(self.texts) >= len(TASK.memories) + 15 else found


class Weights(Planted):
    """Can change nothing; its answers hold no lookup."""

    def say(self, asked: str) -> Answer:
        return replace(super().say(asked), lookups=())

    def write(self, memories: Sequence[Memory]) -> WriteReport:
        raise RefitNeeded("fit again")

    def forget(self, ids: Sequence[str]) -> None:
        raise RefitNeeded("fit again")


Records = list[EditRecord | LifecycleRecord]


def run(
    method: Planted, plan: LifecyclePlan = PLAN, done: Records | None = None, seed: int = 0
) -> tuple[Records, list[list[Memory]]]:
    """The records, and the sets of memories that the method was fitted on again."""
    refits: list[list[Memory]] = []
    if not method.texts:
        method.fit(plan.memories, ())

    def refit(sets: Mapping[RefitSet, Sequence[Memory]]) -> Iterator[tuple[Method, FitReport]]:
        for memories in sets.values():
            refits.append(list(memories))
            fresh = type(method)()
            yield fresh, fresh.fit(memories, ())

    steps = run_lifecycle(
        method,
        plan,
        copy=lambda: copy.deepcopy(method),
        refit=refit,
        seed=seed,
        max_new_tokens=24,
        batch_size=7,
        done=done or [],
    )
    return [record for step in steps for record in step], refits


def split(records: Records) -> tuple[list[LifecycleRecord], list[EditRecord]]:
    return (
        [r for r in records if isinstance(r, LifecycleRecord)],
        [r for r in records if isinstance(r, EditRecord)],
    )


def metrics_of(records: Records) -> dict[str, Estimate]:
    answers, edits = split(records)
    return lifecycle_metrics(answers, edits)


def values_of(method: Planted) -> dict[str, float | None]:
    return {key.removeprefix("lifecycle/"): found.value for key, found in metrics_of(run(method)[0]).items()}


# The plan.


def test_the_plan_writes_what_was_not_fitted_and_forgets_one_of_a_family() -> None:
    fitted = {m.id for m in TASK.memories}
    assert len(PLAN.written) == 6
    assert not fitted & {m.id for m in (*PLAN.written, *PLAN.distractors)}
    assert not {m.id for m in PLAN.written} & {m.id for m in PLAN.distractors}
    assert len({m.family for m in PLAN.written}) == 2  # whole families
    assert len(PLAN.forgotten) == len({m.family for m in PLAN.forgotten}) == 6
    assert {m.id for m in PLAN.forgotten} <= fitted
    assert {qa.memory_ids[0] for qa in PLAN.targets["write"]} == {m.id for m in PLAN.written}
    assert {qa.memory_ids[0] for qa in PLAN.targets["update"]} == {m.id for m in TASK.revisions}
    assert {qa.memory_ids[0] for qa in PLAN.targets["forget"]} == {m.id for m in PLAN.forgotten}


def test_neighbours_are_siblings_that_stay_as_they_are() -> None:
    families = {m.id: m.family for m in TASK.memories}
    for step, changed in (("forget", PLAN.forgotten), ("update", PLAN.revisions)):
        ids = {qa.memory_ids[0] for qa in PLAN.neighbours[step]}
        assert ids
        assert not ids & {m.id for m in changed}
        assert {families[i] for i in ids} <= {m.family for m in changed}


def test_what_a_write_must_not_harm_is_neither_written_nor_revised() -> None:
    """A refit learns the revisions with what is written: the values that it then gives are no harm."""
    ids = {qa.memory_ids[0] for qa in PLAN.neighbours["write"]}
    assert ids and ids <= {m.id for m in TASK.memories} - {m.id for m in PLAN.revisions}
    for method in (Planted(), Weights()):
        assert metrics_of(run(method)[0])["lifecycle/write_neighbour_change"].value == 0.0


def test_a_plan_is_seeded() -> None:
    options = LifecycleOptions()
    assert plan_lifecycle(TASK, WHOLE, 3, options) == plan_lifecycle(TASK, WHOLE, 3, options)
    assert plan_lifecycle(TASK, WHOLE, 3, options) != plan_lifecycle(TASK, WHOLE, 4, options)


def test_the_packaged_handbook_has_something_for_every_step() -> None:
    plan = plan_lifecycle(load(18), load(), 0, LifecycleOptions())
    assert len(plan.written) >= 6
    assert plan.growth == (10, 30, 100)
    assert all(plan.targets[step] for step in ("write", "update", "forget", "growth"))
    for qa in plan.targets["update"]:
        assert plan.old[qa.id]
        assert not set(plan.old[qa.id]) & {qa.answer, *qa.aliases}
        assert plan.old[qa.id][0] in qa.rivals
    everything = [qa for questions in (*plan.targets.values(), *plan.neighbours.values()) for qa in questions]
    assert {qa.split for qa in everything} == {"test"}


# What is planted comes out.


def test_a_perfect_method() -> None:
    found = values_of(Planted())
    assert found["write_accuracy"] == found["write_hit_at_1"] == found["update_accuracy"] == 1.0
    assert found["stale_rate"] == 0.0
    assert found["stale_before"] == 1.0  # it knew the old value
    assert found["forget_abstention"] == 1.0
    assert found["forget_still_right"] == found["forget_abstention_before"] == 0.0
    assert found["forget_right_before"] == 1.0
    assert found["neighbour_before"] == found["neighbour_accuracy"] == 1.0
    assert [found[f"{step}_neighbour_change"] for step in ("write", "update", "forget")] == [0.0, 0.0, 0.0]
    assert found["hit_at_1_plus0"] == found["hit_at_1_plus5"] == found["hit_at_1_plus20"] == 1.0
    assert found["growth_hit_change"] == found["refit"] == 0.0
    assert set(KEYS) <= {f"lifecycle/{name}" for name in found}


def test_what_a_write_costs() -> None:
    """A clause's share of its call; bytes are what the bank grew by."""
    metrics = metrics_of(run(Planted())[0])
    assert metrics["lifecycle/write_s"].value == WRITE_S
    assert metrics["lifecycle/write_s"].n == len(PLAN.written)
    assert metrics["lifecycle/update_s"].value == WRITE_S
    assert metrics["lifecycle/write_tokens"].value == 40
    assert metrics["lifecycle/write_bytes"].value == BYTES
    assert metrics["lifecycle/write_bytes"].n == len(PLAN.written)
    assert metrics["lifecycle/growth_bytes"].value == BYTES


@pytest.mark.parametrize(("at_once", "calls"), [(8, [6]), (4, [4, 2]), (1, [1] * 6)])
def test_clauses_are_written_several_a_call(at_once: int, calls: list[int]) -> None:
    """As many as asked for; what a clause costs does not depend on it here. Updates come one by one."""
    plan = replace(PLAN, written_at_once=at_once)
    records = run(Planted(), plan)[0]
    edits = split(records)[1]
    assert [len(edit.memory_ids) for edit in edits if edit.step == "write"] == calls
    assert {len(edit.memory_ids) for edit in edits if edit.step in ("update", "forget")} == {1}
    metrics = metrics_of(records)
    assert metrics["lifecycle/write_s"].value == WRITE_S
    assert metrics["lifecycle/write_s"].n == len(plan.written)
    assert metrics["lifecycle/write_accuracy"].value == 1.0


def test_every_step_has_its_seconds_bytes_and_tokens() -> None:
    """An update replaces, forgetting frees; growth, in calls of 5 and 15, is told by the clause."""
    metrics = metrics_of(run(Planted())[0])
    found = {
        step: tuple(metrics[f"lifecycle/{step}_{what}"].value for what in ("s", "bytes", "tokens"))
        for step in ("write", "update", "forget", "growth")
    }
    assert found["write"] == (WRITE_S, BYTES, 40)
    assert found["update"] == (WRITE_S, 0, 40)
    assert found["forget"][1:] == (-BYTES, 0)
    assert found["forget"][0] is not None and found["forget"][0] < WRITE_S
    assert found["growth"] == (WRITE_S, BYTES, 40)


def test_what_a_method_does_not_tell_it_stores() -> None:
    class Untold(Planted):
        stored_bytes = None  # type: ignore[assignment]

    metrics = metrics_of(run(Untold())[0])
    for step in ("write", "update", "forget", "growth"):
        assert metrics[f"lifecycle/{step}_bytes"].reason == "the method does not tell what it stores"


def test_written_clauses_with_training_questions_stand_apart() -> None:
    """Two of the six have some: they are answered right, the others are found but given another value."""
    cued = {memory.id for memory in PLAN.written[:2]}

    class ReadsTheCued(Planted):
        def say(self, asked: str) -> Answer:
            own = super().say(asked)
            new = own.lookups and own.lookups[0].memory_id in {m.id for m in PLAN.written} - cued
            return given("It is 1 euro.", own.lookups) if new else own

    cue = (replace(question(1, 0, 0), split="train"),)
    written = tuple(replace(m, cues=cue) if m.id in cued else m for m in PLAN.written)
    metrics = metrics_of(run(ReadsTheCued(), replace(PLAN, written=written))[0])
    asked = [qa.memory_ids[0] in cued for qa in PLAN.targets["write"]]
    for kind, value in (("cued", 1.0), ("uncued", 0.0)):
        assert metrics[f"lifecycle/write_accuracy_{kind}"].value == value
        assert metrics[f"lifecycle/write_accuracy_{kind}"].n == asked.count(kind == "cued")
        assert metrics[f"lifecycle/write_hit_at_1_{kind}"].value == 1.0
    all_uncued = metrics_of(run(Planted())[0])
    assert all_uncued["lifecycle/write_accuracy_cued"].reason == "none of the written clauses is cued"


def test_written_text_comes_back_word_for_word_or_not() -> None:
    class Blurs(Planted):
        def say(self, asked: str) -> Answer:
            answer = super().say(asked)
            if not answer.lookups or answer.lookups[0].memory_id != PLAN.written[0].id:
                return answer
            return replace(answer, lookups=(replace(answer.lookups[0], text="Something like it."),))

    assert values_of(Planted())["write_verbatim"] == 1.0
    assert values_of(Blurs())["write_verbatim"] == 5 / 6


def test_copying_the_old_value() -> None:
    found = values_of(KeepsTheOldValue())
    assert found["stale_rate"] == 1.0
    assert found["update_accuracy"] == 0.0
    assert found["write_accuracy"] == 1.0  # new clauses are no matter of old values


def test_half_of_the_old_values() -> None:
    class KeepsSome(Planted):
        def write(self, memories: Sequence[Memory]) -> WriteReport:
            return super().write([m for m in memories if m.id not in self.texts or int(m.id[1:-1]) % 2])

    metrics = metrics_of(run(KeepsSome())[0])
    stale = metrics["lifecycle/stale_rate"]
    assert stale.value == 0.5
    assert stale.n == 8
    assert stale.low is not None and stale.high is not None
    assert 0.0 < stale.low < 0.5 < stale.high < 1.0


def test_a_value_that_is_denied_is_not_stale() -> None:
    found = values_of(HedgesAfterUpdates())
    assert (found["stale_rate"], found["update_accuracy"]) == (0.0, 1.0)


def test_never_forgetting() -> None:
    found = values_of(NeverForgets())
    assert found["forget_abstention"] == 0.0
    assert found["forget_still_right"] == 1.0
    assert found["neighbour_accuracy"] == 1.0


def test_weights_that_remember_show_with_recall_off() -> None:
    found = values_of(WeightsRemember())
    assert found["forget_abstention"] == 1.0
    assert found["forget_abstention_recall_off"] == 0.0
    assert found["forget_still_right_recall_off"] == 1.0


def test_a_method_without_recall_has_none_to_switch_off() -> None:
    metrics = metrics_of(run(Planted())[0])
    assert metrics["lifecycle/forget_abstention_recall_off"].reason == "it has no recall to switch off"


def test_harm_to_neighbours() -> None:
    metrics = metrics_of(run(HarmsNeighbours())[0])
    assert metrics["lifecycle/neighbour_before"].value == 1.0
    assert metrics["lifecycle/neighbour_accuracy"].value == 0.0
    change = metrics["lifecycle/forget_neighbour_change"]
    assert change.value == -1.0
    assert change.n == len(PLAN.neighbours["forget"])
    assert change.high is not None and change.high < 0
    assert metrics["lifecycle/update_neighbour_change"].value == 0.0


def test_a_bank_that_is_never_looked_into_grows_all_the_same() -> None:
    class Silent(Planted):
        def say(self, asked: str) -> Answer:
            return replace(super().say(asked), lookups=())

    metrics = metrics_of(run(Silent())[0])
    assert metrics["lifecycle/growth_bytes"].value == BYTES
    assert metrics["lifecycle/write_hit_at_1"].reason == "no lookup on an answerable ask"
    assert metrics["lifecycle/growth_hit_change"].reason == "no lookup on an answerable ask"


def test_growth() -> None:
    found = values_of(LosesItselfInLargeBanks())
    assert (found["hit_at_1_plus0"], found["hit_at_1_plus5"], found["hit_at_1_plus20"]) == (1.0, 1.0, 0.0)
    assert found["growth_hit_change"] == -1.0


# Methods that must be fitted again.


def test_a_refit_serves_write_and_update_and_another_one_forget() -> None:
    records, refits = run(Weights())
    assert len(refits) == 2
    first, second = ({m.id: m.text for m in memories} for memories in refits)
    assert set(first) == {m.id for m in (*TASK.memories, *PLAN.written)}
    assert all(first[m.id] == m.text for m in PLAN.revisions)
    assert set(second) == {m.id for m in TASK.memories} - {m.id for m in PLAN.forgotten}
    assert all(second[m.id] == m.text for m in TASK.memories if m.id in second)  # the old texts
    answers, edits = split(records)
    assert all(record.refit for record in records)
    assert [(edit.step, edit.seconds, edit.trained_tokens) for edit in edits] == [
        (step, FIT.seconds, FIT.forward_tokens) for step in ("write", "update", "forget")
    ]
    assert not [record for record in answers if record.step == "growth"]


def test_the_metrics_of_a_refit_say_so() -> None:
    metrics = metrics_of(run(Weights())[0])
    assert metrics["lifecycle/refit"].value == 1.0
    assert metrics["lifecycle/write_s"].value == FIT.seconds  # one more clause costs a whole fit
    assert metrics["lifecycle/write_tokens"].value == FIT.forward_tokens
    assert "weights hold it" in metrics["lifecycle/write_bytes"].reason
    assert metrics["lifecycle/write_hit_at_1"].reason == "it never looks anything up"
    assert metrics["lifecycle/write_verbatim"].reason == "it never looks anything up"
    for name in ("s", "bytes", "tokens", "hit_change"):
        assert metrics[f"lifecycle/growth_{name}"].reason == (
            "its memories are changed by a refit, and one for every size is not made"
        )
    assert metrics["lifecycle/write_accuracy"].value == metrics["lifecycle/update_accuracy"].value == 1.0
    assert metrics["lifecycle/forget_abstention"].value == 1.0
    assert set(KEYS) <= set(metrics)


# The pass itself.


@pytest.mark.parametrize("kind", [Planted, WeightsRemember, Weights])
def test_the_fitted_method_is_left_as_it_was(kind: type[Planted]) -> None:
    method = kind()
    method.fit(PLAN.memories, ())
    before = dict(method.texts)
    run(method)
    assert method.texts == before
    assert all(entry.endswith("answers") for entry in method.log)


def test_a_question_is_asked_once_before_the_changes() -> None:
    method = Planted()
    run(method)
    asked = sum(int(entry.split()[0]) for entry in method.log if entry.endswith("answers"))
    growth = len(PLAN.targets["growth"])
    fitted = {
        qa.question
        for step in ("write", "update", "forget")
        for qa in (*PLAN.targets[step], *PLAN.neighbours[step])
        if qa.memory_ids[0] in {m.id for m in TASK.memories}
    }
    assert asked == growth + len(fitted)


@pytest.mark.parametrize("kind", [Planted, WeightsRemember, Weights])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.8, 0.99, 1.0])
def test_cut_anywhere_and_continued(kind: type[Planted], share: float) -> None:
    whole, _ = run(kind())
    kept = whole[: round(share * len(whole))]
    rest, refits = run(kind(), done=kept)
    without_times = [replace(r, seconds=0.0) if isinstance(r, EditRecord) else r for r in (*kept, *rest)]
    assert sorted(map(repr, without_times)) == sorted(
        repr(replace(r, seconds=0.0) if isinstance(r, EditRecord) else r) for r in whole
    )
    assert share < 1.0 or not refits


def test_only_the_refits_of_steps_that_are_left_are_made_and_one_goes_before_the_next_is_asked_for() -> None:
    asked: list[list[RefitSet]] = []
    alive: list[weakref.ref[Method]] = []

    def refit(sets: Mapping[RefitSet, Sequence[Memory]]) -> Iterator[tuple[Method, FitReport]]:
        asked.append(list(sets))
        for memories in sets.values():
            gc.collect()
            assert not any(one() for one in alive)
            fresh = Weights()
            alive.append(weakref.ref(fresh))
            yield fresh, fresh.fit(memories, ())
            del fresh

    method = Weights()
    method.fit(PLAN.memories, ())
    done: Records = []
    for wanted in (["changed", "forgotten"], ["forgotten"], []):
        again = run_lifecycle(
            method,
            PLAN,
            copy=lambda: copy.deepcopy(method),
            refit=refit,
            seed=0,
            max_new_tokens=24,
            batch_size=7,
            done=done,
        )
        done = [*done, *(record for step in again for record in step)]
        assert asked == ([wanted] if wanted else [])
        asked.clear()
        done = [record for record in done if record.step != "forget"] if len(wanted) == 2 else done


def test_records_survive_the_file_and_give_the_same_digits(tmp_path: Path) -> None:
    records, _ = run(WeightsRemember())
    writer = RecordWriter(tmp_path / "records.jsonl")
    writer.write(records)
    writer.close()
    again = [
        r for r in read_all_records(tmp_path / "records.jsonl") if isinstance(r, EditRecord | LifecycleRecord)
    ]
    assert again == records
    assert metrics_of(again) == metrics_of(records)


def test_ids_are_distinct() -> None:
    answers, _ = split(run(WeightsRemember())[0])
    assert len({record.id for record in answers}) == len(answers)


def test_several_seeds_are_pooled() -> None:
    records = [record for seed in (0, 1) for record in run(Planted(), seed=seed)[0]]
    assert metrics_of(records)["lifecycle/write_s"].n == 2 * len(PLAN.written)


def test_the_text_of_a_record_is_what_held_at_the_time() -> None:
    def of(texts: dict[str, str], turn: TurnRecord) -> str:
        assert turn.qa is not None
        return texts[turn.qa.memory_ids[0]]

    answers, _ = split(run(Planted())[0])
    new = {m.id: m.text for m in PLAN.revisions}
    assert all(turn.memory_text == of(new, turn) for turn in turns_of(answers, "update"))
    assert all(turn.memory_text != of(new, turn) for turn in turns_of(answers, "update", "before"))
    old = {m.id: m.text for m in TASK.memories}
    beside = [record.turn for record in answers if (record.step, record.role) == ("write", "neighbour")]
    assert beside and all(turn.memory_text == of(old, turn) for turn in beside)


# Where there is little to change.


def test_where_every_clause_was_fitted_some_are_forgotten_and_written_again() -> None:
    """None of them is revised, none is a neighbour of the write, and every record of the write says so."""
    plan = plan_lifecycle(TASK, TASK, 0, LifecycleOptions(num_written=6))
    written = {m.id for m in plan.written}
    assert plan.rewritten and len(written) >= 6
    assert written <= {m.id for m in TASK.memories} - {m.id for m in TASK.revisions}
    assert {qa.memory_ids[0] for qa in plan.targets["write"]} == written
    assert plan.neighbours["write"] and not written & {qa.memory_ids[0] for qa in plan.neighbours["write"]}
    assert not written & {m.id for m in plan.distractors}
    assert not PLAN.rewritten

    class OnlyKnowsWhatWasWritten(Planted):
        """A write without the forgetting before it changes nothing."""

        def write(self, memories: Sequence[Memory]) -> WriteReport:
            assert not self.texts.keys() & {m.id for m in memories} & written
            return super().write(memories)

    records, _ = run(OnlyKnowsWhatWasWritten(), plan)
    assert {edit.step: edit.rewritten for edit in split(records)[1]} == {
        "write": True,
        "update": False,
        "forget": False,
    }
    metrics = metrics_of(records)
    assert metrics["lifecycle/rewritten"].value == 1.0
    assert metrics["lifecycle/write_accuracy"].value == metrics["lifecycle/write_verbatim"].value == 1.0
    assert metrics["lifecycle/write_bytes"].value == BYTES
    assert metrics["lifecycle/write_s"].n == len(written)
    assert metrics_of(run(Planted())[0])["lifecycle/rewritten"].value == 0.0


def test_a_refit_holds_rewritten_clauses_once() -> None:
    plan = plan_lifecycle(TASK, TASK, 0, LifecycleOptions())
    records, refits = run(Weights(), plan)
    assert [len(memories) for memories in refits] == [24, 24 - len(plan.forgotten)]
    assert {m.id for m in refits[0]} == {m.id for m in TASK.memories}
    assert metrics_of(records)["lifecycle/rewritten"].value == 1.0


def test_nothing_revised_and_nothing_to_grow_by() -> None:
    """A task of documents: no clause has a revision, and no passage is left over."""
    task = replace(TASK, revisions=(), revised_questions=())
    plan = plan_lifecycle(task, task, 0, LifecycleOptions())
    assert (plan.growth, plan.targets["growth"]) == ((), ())
    metrics = metrics_of(run(Planted(), plan)[0])
    for name in ("s", "bytes", "tokens", "accuracy", "neighbour_change"):
        assert metrics[f"lifecycle/update_{name}"].reason == "the task revises no clause"
    for name in ("rate", "before"):
        assert metrics[f"lifecycle/stale_{name}"].reason == "the task revises no clause"
    for name in ("s", "bytes", "tokens", "hit_change"):
        assert metrics[f"lifecycle/growth_{name}"].reason == "no distractor was written"
    assert metrics["lifecycle/forget_abstention"].value == 1.0


def test_nothing_left_to_write() -> None:
    """Every clause was fitted and every one is revised."""
    task = replace(TASK, revisions=TASK.memories, revised_questions=())
    plan = plan_lifecycle(task, task, 0, LifecycleOptions())
    assert (plan.written, plan.rewritten) == ((), False)
    metrics = metrics_of(run(Planted(), plan)[0])
    for name in ("s", "bytes", "tokens", "accuracy", "hit_at_1", "verbatim", "neighbour_change"):
        assert metrics[f"lifecycle/write_{name}"].reason == "no clause was left to write"
    assert metrics["lifecycle/rewritten"].reason == "no clause was left to write"


def test_an_answer_without_its_key_is_named() -> None:
    records, edits = split(run(Planted())[0])
    for step in ("update", "forget"):
        (at, broken) = next((n, r) for n, r in enumerate(records) if (r.step, r.phase) == (step, "after"))
        spoilt = [*records]
        spoilt[at] = replace(broken, turn=replace(broken.turn, qa=None))
        with pytest.raises(RecordError, match=f"record {broken.turn.id}: .* without a key"):
            lifecycle_metrics(spoilt, edits)


def test_without_siblings_nothing_is_forgotten() -> None:
    alone = replace(TASK, memories=tuple(replace(m, family="") for m in TASK.memories))
    plan = plan_lifecycle(alone, alone, 0, LifecycleOptions())
    assert plan.forgotten == ()
    metrics = metrics_of(run(Planted(), plan)[0])
    assert metrics["lifecycle/forget_abstention"].reason == "no clause was forgotten"


def test_an_old_value_that_nobody_tells_is_an_error() -> None:
    with pytest.raises(TaskError, match=r"'c10/test1/revised' asks for a revised value.* add 'c10/amount'"):
        plan_lifecycle(replace(TASK, facts={}), WHOLE, 0, LifecycleOptions())
