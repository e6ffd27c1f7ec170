"""Ordinary ability: planted models score what they must, and records alone give the same figures again."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from eval import harness
from eval.ability import (
    FREE_TOPICS,
    GENERATION,
    MULTIPLE_CHOICE,
    NO_BANK,
    Item,
    ability_evidence,
    ability_metrics,
    ability_resamples,
    correct,
    final_of,
    generation_items,
    items_right,
    multiple_choice_items,
    run_ability,
    shape,
)
from eval.records import AbilityArm, AbilityRecord, RecordError, RecordWriter, read_all_records, read_records
from eval.scoring import normalise
from eval.verdict import judge_all
from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_prompt, encode_text
from methods.decode import generate
from methods.recall.bank import NULL_ID, MemoryBank
from tasks.base import Message, TaskData, TaskError
from tasks.registry import load_task

RNG = np.random.default_rng
lm_model = pytest.importorskip("lm_eval.api.model")


@pytest.fixture(scope="module")
def task() -> TaskData:
    return load_task("regs", 6, 0)


def bank_of(backbone: Backbone, gain: float = 3.0) -> MemoryBank:
    """Three memories and the null memory, with random vectors."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(4, backbone.hidden_size, generator=generator)
    bank = MemoryBank(torch.zeros(backbone.hidden_size), gain, backbone.fingerprint)
    bank.write([NULL_ID, "a", "b", "c"], ["none", "A", "B", "C"], vectors, vectors)
    return bank


def fitted(backbone: Backbone, bank: MemoryBank | None = None, name: str = "recall") -> Any:
    method = SimpleNamespace(name=name, backbone=backbone)
    if bank is not None:
        method.bank = bank
    return method


def collect(*args: Any, **kwargs: Any) -> list[AbilityRecord]:
    return [record for batch in run_ability(*args, **kwargs) for record in batch]


# --- items --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_choices_are_one_right_and_three_wrong_of_one_shape(task: TaskData, seed: int) -> None:
    items = multiple_choice_items(task, seed, 1000)
    assert len(items) > 60
    golds = {c.id: normalise(c.messages[1].content.split("</think>")[1]) for c in task.sft_heldout}
    for item in items:
        assert normalise(item.gold) == golds[item.id]
        assert len({normalise(choice) for choice in item.choices}) == 4
        assert item.gold in item.choices
        assert {shape(choice) for choice in item.choices} == {shape(item.gold)}
    places = Counter(item.choices.index(item.gold) for item in items)
    assert max(places.values()) < 0.45 * len(items)


def test_items_are_held_out_questions_with_one_right_answer(task: TaskData) -> None:
    asked = {c.messages[0].content for c in task.sft}
    for build in (multiple_choice_items, generation_items):
        items = build(task, 0, 1000)
        assert not {item.question for item in items} & asked
        assert not {item.topic for item in items} & FREE_TOPICS
        assert len({item.id for item in items}) == len({item.question for item in items}) == len(items)
        assert build(task, 0, 1000) == items
        drawn = build(task, 0, 20)
        assert len(drawn) == 20 and set(drawn) <= set(items)
        assert {i.id for i in build(task, 1, 20)} != {i.id for i in drawn}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("17 hours", "3 hours", True),
        ("17 hours", "17 euros", False),
        ("Friday", "Monday", True),
        ("Friday", "July", False),
        ("8 April", "12 July", True),
        ("Anna", "tea", False),
        ("Mona Castell", "Hamid Keller", True),
        ("Yes", "No", True),
        ("No", "tea", False),
        ("14:30", "9:05", True),
    ],
)
def test_shapes(one: str, other: str, same: bool) -> None:
    assert (shape(one) == shape(other)) is same


# --- planted models -----------------------------------------------------------------------------


class PlantedLM(lm_model.LM):  # type: ignore[misc]
    """Prefers what a rule says, and answers what a rule says."""

    def __init__(
        self,
        prefers: Callable[[str, str], float] = lambda _q, _a: 0.0,
        says: Callable[[str], str] = lambda _q: "",
    ) -> None:
        super().__init__()
        self.prefers, self.says = prefers, says

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        return [(self.prefers(*request.args), False) for request in requests]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        return [self.says(request.args[0]) for request in requests]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        raise NotImplementedError


def records_of(items: Sequence[Item], arm: AbilityArm = "after", **found: Sequence[Any]) -> list[AbilityRecord]:
    name = MULTIPLE_CHOICE if "log_likelihoods" in found else GENERATION
    return [
        AbilityRecord(
            "recall",
            0,
            arm,
            name,
            i.id,
            i.question,
            i.gold,
            i.topic,
            i.choices,
            **{k: v[n] for k, v in found.items()},
        )
        for n, i in enumerate(items)
    ]


def accuracy(records: Sequence[AbilityRecord]) -> float:
    return float(np.mean([correct(record) for record in records]))


def test_the_right_answer_preferred_is_all_right_and_never_preferred_is_none(task: TaskData) -> None:
    items = multiple_choice_items(task, 0, 60)
    gold = {item.question: item.gold for item in items}
    for likes, share in ((1.0, 1.0), (-1.0, 0.0)):
        lm = PlantedLM(lambda question, answer, likes=likes: likes * (answer == gold[question]))  # type: ignore[misc]
        values = harness.rank_choices(lm, items)
        assert accuracy(records_of(items, log_likelihoods=values)) == share


@pytest.mark.parametrize("place", range(4))
def test_a_fixed_position_is_chance(task: TaskData, place: int) -> None:
    items = multiple_choice_items(task, 0, 1000)
    at = {(item.question, choice): n for item in items for n, choice in enumerate(item.choices)}
    values = harness.rank_choices(PlantedLM(lambda question, answer: -abs(at[question, answer] - place)), items)
    assert [max(range(4), key=row.__getitem__) for row in values] == [place] * len(items)
    assert accuracy(records_of(items, log_likelihoods=values)) == pytest.approx(0.25, abs=0.15)


def test_lm_eval_scores_what_the_records_score(task: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval's own accuracy and exact match over the same outputs."""
    seen: list[dict[str, Any]] = []
    inner = harness.evaluate_task
    monkeypatch.setattr(harness, "evaluate_task", lambda *a, **k: seen.append(inner(*a, **k)) or seen[-1])
    rng = RNG(0)
    choices, questions = multiple_choice_items(task, 0, 40), generation_items(task, 0, 40)
    lm = PlantedLM(lambda _q, _a: float(rng.normal()))
    records = records_of(choices, log_likelihoods=harness.rank_choices(lm, choices))
    assert seen[-1]["results"]["acc,none"] == pytest.approx(accuracy(records))

    gold = {item.question: item.gold for item in questions}
    half = {item.question for item in questions[::2]}
    talker = PlantedLM(
        says=lambda q: f"<think>\nWell.\n</think>\n{gold[q].upper() if q in half else 'I doubt it'}"
    )
    records = records_of(questions, output=harness.answer_freely(talker, questions, 8))
    assert seen[-1]["results"]["exact_match,none"] == pytest.approx(accuracy(records)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("output", "final"),
    [
        ("<think>\nTwo and two.\n</think>\n4", "4"),
        ("4", "4"),
        ("<think>\nTwo and two is 4", ""),
        ("Two and two</think>4", "4"),
        ("<think></think>", ""),
    ],
)
def test_the_final_answer(output: str, final: str) -> None:
    assert final_of(output) == final


def test_an_item_that_cannot_be_scored_is_named(task: TaskData) -> None:
    item = multiple_choice_items(task, 0, 1)[0]
    good = records_of([item], log_likelihoods=[(0.0, -1.0, -2.0, -3.0)])[0]
    assert correct(good) == float(item.choices[0] == item.gold)
    for broken in (
        replace(good, log_likelihoods=(0.0,)),
        replace(good, log_likelihoods=(0.0, float("nan"), 0.0, 0.0)),
        replace(good, gold="something else"),
        replace(good, task="hellaswag"),
    ):
        with pytest.raises(RecordError, match="record recall/0/after/"):
            correct(broken)
    assert correct(replace(good, task="hellaswag", score=0.25)) == 0.25


# --- the live model -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(task: TaskData, pristine_lively: Backbone) -> list[AbilityRecord]:
    """A pass over the tiny model; its "fit" is another random model."""
    after = pristine_lively.clone()
    with torch.no_grad():
        after.model.model.layers[0].mlp.down_proj.weight.mul_(-1)
    method = fitted(after, bank_of(after))
    return collect(method, pristine_lively, task, seed=0, num_items=10, max_new_tokens=8, batch_size=4)


def test_every_arm_answers_the_same_items(measured: list[AbilityRecord]) -> None:
    arms: dict[tuple[str, str], list[str]] = {}
    for record in measured:
        arms.setdefault((record.arm, record.task), []).append(record.item_id)
    assert set(arms) == {
        *((arm, name) for arm in ("before", "after") for name in (MULTIPLE_CHOICE, GENERATION)),
        ("with_memory", MULTIPLE_CHOICE),
        ("with_random", MULTIPLE_CHOICE),
    }
    assert all(len(items) == 10 for items in arms.values())
    for name in (MULTIPLE_CHOICE, GENERATION):
        assert len({tuple(items) for (_, task_name), items in arms.items() if task_name == name}) == 1
    assert len({record.id for record in measured}) == len(measured)
    assert {r.memory_id for r in measured if r.arm == "with_memory"} <= {"a", "b", "c"}
    assert {r.memory_id for r in measured if r.arm != "with_memory"} == {""}


@torch.no_grad()
def test_likelihoods_are_those_of_the_answer_behind_the_chat_template(
    measured: list[AbilityRecord], pristine_lively: Backbone
) -> None:
    backbone = pristine_lively
    for record in [r for r in measured if (r.arm, r.task) == ("before", MULTIPLE_CHOICE)][:3]:
        prompt = encode_prompt(backbone, (Message("user", record.question),))
        for choice, value in zip(record.choices, record.log_likelihoods, strict=True):
            answer = [*encode_text(backbone.tokenizer, choice), backbone.ids.eos]
            logits_TV = backbone.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            expected = logits_TV.log_softmax(-1)[range(len(answer)), answer].sum()
            assert value == pytest.approx(float(expected), abs=1e-3)


def test_generation_is_the_one_decode_loop(measured: list[AbilityRecord], pristine_lively: Backbone) -> None:
    for record in [r for r in measured if (r.arm, r.task) == ("before", GENERATION)]:
        prompt = encode_prompt(pristine_lively, (Message("user", record.question),))
        (alone,) = generate(pristine_lively, [prompt], 8)
        text = pristine_lively.tokenizer.decode(alone.token_ids)
        assert record.output == text.partition("<|im_end|>")[0]


@pytest.mark.parametrize("num_vectors", [1, 3])
@torch.no_grad()
def test_a_memory_in_context_is_what_the_model_is_fed(lively: Backbone, num_vectors: int) -> None:
    """Logits equal those of a forward with the bank's vectors at the pads, and follow the vectors."""
    bank = bank_of(lively)
    bank.take_values(
        torch.nn.functional.normalize(torch.randn(len(bank), num_vectors, lively.hidden_size), dim=-1)
    )
    item = Item("x", "units", "How many metres are 900 centimetres?", "9", ("7", "9", "4", "2"))
    (injection,) = harness.memory_injections(bank, [item.question], 0).values()
    assert torch.equal(injection.vectors_PD, bank.memory_embeddings(bank.index(injection.memory_id)))

    def ranked(vectors_PD: torch.Tensor) -> tuple[float, ...]:
        chosen = {item.question: harness.Injection("", vectors_PD)}
        return harness.rank_choices(harness.ChatLM(lively, 3, chosen), [item])[0]

    ids, embed = lively.ids, lively.model.get_input_embeddings()
    prompt = encode_prompt(lively, (Message("user", item.question),))
    pads = [ids.memory_pad] * num_vectors
    prompt += [ids.recall, *pads, ids.recall_end, *encode_text(lively.tokenizer, "\n")]
    pad = prompt.index(ids.memory_pad)
    for choice, value in zip(item.choices, ranked(injection.vectors_PD), strict=True):
        answer = [*encode_text(lively.tokenizer, choice), ids.eos]
        embeds_1TD = embed(torch.tensor([prompt + answer])).clone()
        embeds_1TD[0, pad : pad + num_vectors] = injection.vectors_PD
        logits_TV = lively.model(inputs_embeds=embeds_1TD).logits[0, len(prompt) - 1 : -1]
        expected = logits_TV.log_softmax(-1)[range(len(answer)), answer].sum()
        assert value == pytest.approx(float(expected), abs=1e-3)

    pad_D = embed.weight[ids.memory_pad].expand(num_vectors, -1)
    assert ranked(injection.vectors_PD) != pytest.approx(ranked(pad_D), abs=1e-3)
    assert ranked(injection.vectors_PD) != pytest.approx(ranked(-injection.vectors_PD), abs=1e-3)


def test_random_vectors_are_as_long_as_memory_vectors(lively: Backbone) -> None:
    bank = bank_of(lively, gain=2.5)
    questions = [f"Question {n}?" for n in range(20)]
    memory = harness.memory_injections(bank, questions, 0)
    control = harness.random_injections(bank, questions, 0)
    for question in questions:
        assert float(memory[question].vectors_PD.norm()) == pytest.approx(2.5, rel=1e-5)
        assert float(control[question].vectors_PD.norm()) == pytest.approx(2.5, rel=1e-5)
    assert len({injection.memory_id for injection in memory.values()}) == 3  # never the null memory
    again = harness.random_injections(bank, questions, 0)
    assert all(torch.equal(control[q].vectors_PD, again[q].vectors_PD) for q in questions)
    assert not torch.equal(control[questions[0]].vectors_PD, control[questions[1]].vectors_PD)


def test_nothing_touches_the_network_or_the_weights(
    task: TaskData, tiny: Backbone, pristine: Backbone, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("a connection was tried")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    records = collect(fitted(tiny, bank_of(tiny)), pristine, task, seed=0, num_items=2, max_new_tokens=4)
    assert len(records) == 12
    for mine, theirs in zip(tiny.model.parameters(), pristine.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert capfd.readouterr() == ("", "")  # no bars, no warnings


def test_the_same_weights_give_no_change(task: TaskData, lively: Backbone) -> None:
    records = collect(fitted(lively.clone()), lively, task, seed=0, num_items=6, max_new_tokens=4)
    metrics = ability_metrics(records, ability_resamples(records, RNG(0), 200))
    assert metrics["ability/change"].value == 0
    assert metrics["ability/before"] == metrics["ability/after"]
    assert metrics["ability/with_memory"].reason == metrics["ability/memory_change"].reason == NO_BANK


def test_a_run_goes_on_where_it_stopped(measured: list[AbilityRecord], task: TaskData) -> None:
    """What exists is not measured again: the backbones here could not even be used."""
    broken: Any = SimpleNamespace()
    bank = bank_of(SimpleNamespace(hidden_size=64, fingerprint=""))  # type: ignore[arg-type]
    again = {"seed": 0, "num_items": 10, "max_new_tokens": 8}
    assert collect(fitted(broken, bank), broken, task, done=measured, **again) == []
    rest = [r for r in measured if (r.arm, r.task) != ("before", MULTIPLE_CHOICE)]
    with pytest.raises(AttributeError):
        collect(fitted(broken, bank), broken, task, done=rest, **again)

    batches = run_ability(fitted(broken, name="sft"), broken, task, done=measured, **again)
    copied = next(batches)
    assert copied == [replace(r, method="sft") for r in measured if (r.arm, r.task) == ("before", MULTIPLE_CHOICE)]


def test_a_method_without_a_backbone_is_named(task: TaskData, pristine: Backbone) -> None:
    with pytest.raises(MethodError, match="planted: it has no backbone"):
        collect(SimpleNamespace(name="planted"), pristine, task, seed=0)


# --- metrics from records -----------------------------------------------------------------------


def test_records_alone_give_the_same_figures(measured: list[AbilityRecord], tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    writer.write(measured)
    writer.close()
    read = read_all_records(path)
    assert read == measured
    assert read_records(path) == ([], [])

    def figures(records: list[Any]) -> str:
        metrics = ability_metrics(records, ability_resamples(records, RNG(3), 300))
        return json.dumps({name: metric.as_dict() for name, metric in metrics.items()})

    assert figures(read) == figures(measured)
    assert {"ability/before", "ability/after", "ability/with_memory"} <= set(json.loads(figures(read)))


def planted_records(num_items: int, before: int, after: int, memory: int) -> list[AbilityRecord]:
    """So many of the items are right in each arm, the first ones."""
    arms: dict[AbilityArm, int] = {"before": before, "after": after, "with_memory": memory, "with_random": after}
    return [
        AbilityRecord(
            "recall", 0, arm, name, f"i{n}", "q", "x", choices=("x", "y"), output="x" if n < right else "y",
            log_likelihoods=(-1.0, -2.0) if n < right else (-2.0, -1.0),
        )
        for arm, right in arms.items()
        for name in (MULTIPLE_CHOICE, GENERATION)
        if name == MULTIPLE_CHOICE or arm in ("before", "after")
        for n in range(num_items)
    ]  # fmt: skip


def test_planted_shares_are_reported() -> None:
    records = planted_records(100, before=80, after=70, memory=10)
    metrics = ability_metrics(records, ability_resamples(records, RNG(0), 500))
    shares = {"before": 0.8, "after": 0.7, "with_memory": 0.1, "with_random": 0.7}
    shares |= {"before/generation": 0.8, "after/generation": 0.7, "change": -0.1, "memory_change": -0.6}
    for name, share in shares.items():
        found = metrics[f"ability/{name}"]
        assert found.value == pytest.approx(share) and found.n == 100
        assert found.low is not None and found.high is not None and found.low < share < found.high
    assert metrics["ability/change"].high < 0  # type: ignore[operator]


def test_nothing_measured_has_a_reason() -> None:
    metrics = ability_metrics([], None)
    assert set(metrics) == {"ability/before", "ability/after", "ability/with_memory"}
    assert all(metric.reason == "the ability pass was not run" for metric in metrics.values())


def test_seeds_are_pooled() -> None:
    records = planted_records(30, 20, 20, 20)
    records += [replace(record, seed=1) for record in records]
    resamples = ability_resamples(records, RNG(0), 200)
    assert resamples is not None and len(resamples.seeds) == 2
    assert ability_metrics(records, resamples)["ability/after"].n == 60
    assert len(items_right(records, "after")) == 60


# --- H4 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [(2000, 2000, "supported"), (2000, 1600, "refuted"), (2000, 1940, "not_decided")],
)
def test_h4_reads_the_records(before: int, after: int, outcome: str) -> None:
    records = planted_records(3000, before, after, after)
    verdict = judge_all([], [], RNG(0), abilities=records, num_resamples=300)["H4"]
    assert verdict.outcome == outcome, verdict.reason
    assert set(verdict.evidence) == {"multiple choice", "generation"}
    assert verdict.evidence["multiple choice"].value == pytest.approx((after - before) / 3000)


def h4(num_items: int, seeds: int, lost: int = 0) -> str:
    """The outcome where the first seed's fit loses so many items that the model before had right."""
    records = planted_records(num_items, num_items, num_items - lost, 0)
    steady = planted_records(num_items, num_items, num_items, 0)
    records += [replace(record, seed=seed) for seed in range(1, seeds) for record in steady]
    return judge_all([], [], RNG(0), abilities=records, num_resamples=500)["H4"].outcome


def test_more_items_or_seeds_without_a_loss_decide_h4_and_a_loss_never_does_first() -> None:
    sizes = [(75, 1), (150, 1), (190, 1), (75, 2), (75, 3), (110, 3)]
    outcomes = {size: h4(*size) for size in sizes}
    assert outcomes == {
        (75, 1): "not_decided",  # up to 4.9 points could go unseen
        (150, 1): "not_decided",
        (190, 1): "supported",  # 1.98 points
        (75, 2): "not_decided",
        (75, 3): "supported",  # 225 chances to lose an item
        (110, 3): "supported",
    }
    for size in sizes:
        if outcomes[size] == "not_decided":
            assert h4(*size, lost=1) == "not_decided"


def test_h4_is_about_recall_and_both_tasks() -> None:
    records = planted_records(3000, 2000, 2000, 2000)
    others = [replace(record, method="sft") for record in records]
    verdict = judge_all([], [], RNG(0), abilities=others, num_resamples=200)["H4"]
    assert verdict.outcome == "not_decided" and verdict.reason == "needs ability figures before and after the fit"
    half = [record for record in records if record.task == MULTIPLE_CHOICE]
    verdict = judge_all([], [], RNG(0), abilities=half, num_resamples=200)["H4"]
    assert verdict.outcome == "not_decided" and "needs generation before and after the fit" in verdict.reason
    # The gain in one task does not make up for the loss in the other.
    mixed = [
        replace(r, log_likelihoods=(-2.0, -1.0)) if r.arm == "after" and int(r.item_id[1:]) < 400 else r
        for r in records
    ]
    assert judge_all([], [], RNG(0), abilities=mixed, num_resamples=200)["H4"].outcome == "refuted"
    assert ability_evidence([], None) == ({}, "")


# --- lm-eval's own tasks ------------------------------------------------------------------------


def test_an_unknown_lm_eval_task_and_one_out_of_reach_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.tasks

    class Offline:
        all_tasks = ("hellaswag",)

        def load(self, names: list[str]) -> Any:
            raise ConnectionError("Couldn't reach 'Rowan/hellaswag' on the Hub\nand more")

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", Offline)
    with pytest.raises(TaskError, match="lm-eval has no task called 'helloswag'"):
        harness.load_named_tasks(("helloswag",))
    with pytest.raises(TaskError, match="the data of 'hellaswag' is neither cached nor within reach") as error:
        harness.load_named_tasks(("hellaswag",))
    assert "\n" not in str(error.value)
    assert harness.load_named_tasks(()) == {}


def test_named_tasks_run_and_are_reported(task: TaskData, lively: Backbone) -> None:
    docs = [{"question": f"{n} plus 1 is", "choices": [f" {n + 1}", f" {n}"], "label": 0} for n in range(5)]
    mine = harness.local_task(
        "sums",
        docs,
        output_type="multiple_choice",
        doc_to_choice="choices",
        doc_to_target="label",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )
    method = fitted(lively.clone())
    settings = {"seed": 0, "num_items": 4, "max_new_tokens": 2, "named_tasks": {"sums": mine}}
    records = collect(method, lively, task, **settings)
    named = [record for record in records if record.task == "sums"]
    assert [record.item_id for record in named] == [f"sums/{n}" for n in range(4)] * 2
    assert all(record.score in (0.0, 1.0) for record in named)
    metrics = ability_metrics(records, ability_resamples(records, RNG(0), 100))
    share = np.mean([record.score for record in named if record.arm == "after"])
    assert metrics["ability/after/sums"].value == pytest.approx(share)
    assert metrics["ability/change/sums"].value == 0
    assert collect(method, lively, task, done=records, **settings) == []


def test_a_task_without_a_score_for_each_item_is_refused() -> None:
    odd = SimpleNamespace(aggregation=lambda: {"word_perplexity": None})
    with pytest.raises(TaskError, match="'wikitext' has no score of each item"):
        harness._score_of("wikitext", odd)
