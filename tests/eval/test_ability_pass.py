"""The ability pass: planted models score what they must, and the live one is measured as it would answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.model import LM

from eval import harness
from eval.ability import (
    GENERATION,
    MULTIPLE_CHOICE,
    NO_BANK,
    Item,
    ability_metrics,
    correct,
    generation_items,
    multiple_choice_items,
)
from eval.ability_pass import run_ability
from eval.records import AbilityArm, AbilityRecord, RecordWriter, read_all_records, read_records
from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_prompt, encode_text
from methods.decode import generate
from methods.recall.bank import NULL_ID, MemoryBank
from tasks.base import Message, TaskData, TaskError
from tasks.registry import load_task

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def task() -> TaskData:
    return load_task("regs", 6, 0)


def bank_of(backbone: Backbone, gain: float = 3.0) -> MemoryBank:
    """Three memories and the null memory, with random vectors."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(4, backbone.facts.hidden_size, generator=generator)
    bank = MemoryBank(torch.zeros(backbone.facts.hidden_size), gain, backbone.fingerprint)
    fed = torch.nn.functional.normalize(vectors, dim=-1) * gain
    bank.write([NULL_ID, "a", "b", "c"], ["none", "A", "B", "C"], vectors, list(fed[:, None]))
    return bank


def fitted(backbone: Backbone, bank: MemoryBank | None = None, name: str = "recall") -> Any:
    method = SimpleNamespace(name=name, backbone=backbone)
    if bank is not None:
        method.bank = bank
    return method


def collect(*args: Any, **kwargs: Any) -> list[AbilityRecord]:
    return [record for batch in run_ability(*args, **kwargs) for record in batch]


# --- planted models -----------------------------------------------------------------------------


class PlantedLM(LM):  # type: ignore[misc]
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
        torch.nn.functional.normalize(torch.randn(len(bank), num_vectors, lively.facts.hidden_size), dim=-1)
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
    metrics = ability_metrics(records)
    assert metrics["ability/change"].value == 0
    assert metrics["ability/before"] == metrics["ability/after"]
    assert metrics["ability/with_memory"].reason == metrics["ability/memory_change"].reason == NO_BANK


def test_a_bank_without_vectors_puts_nothing_in_context(task: TaskData, lively: Backbone) -> None:
    bank = bank_of(lively)
    bank.fed = [torch.empty(0, lively.facts.hidden_size) for _ in bank.ids]
    records = collect(fitted(lively.clone(), bank), lively, task, seed=0, num_items=2, max_new_tokens=4)
    assert {record.arm for record in records} == {"before", "after"}


def test_a_run_goes_on_where_it_stopped(measured: list[AbilityRecord], task: TaskData) -> None:
    """What exists is not measured again: the backbones here could not even be used."""
    broken: Any = SimpleNamespace()
    model: Any = SimpleNamespace(facts=SimpleNamespace(hidden_size=64), fingerprint="")
    bank = bank_of(model)
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


def test_records_alone_give_the_same_figures(measured: list[AbilityRecord], tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    writer.write(measured)
    writer.close()
    read = read_all_records(path)
    assert read == measured
    assert read_records(path) == ([], [])

    def figures(records: list[Any]) -> str:
        metrics = ability_metrics(records)
        return json.dumps({name: metric.as_dict() for name, metric in metrics.items()})

    assert figures(read) == figures(measured)
    assert {"ability/before", "ability/after", "ability/with_memory"} <= set(json.loads(figures(read)))


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
    metrics = ability_metrics(records)
    share = np.mean([record.score for record in named if record.arm == "after"])
    assert metrics["ability/after/sums"].value == pytest.approx(share)
    assert metrics["ability/change/sums"].value == 0
    assert collect(method, lively, task, done=records, **settings) == []


def test_a_task_without_a_score_for_each_item_is_refused() -> None:
    odd = SimpleNamespace(aggregation=lambda: {"word_perplexity": None})
    with pytest.raises(TaskError, match="'wikitext' has no score of each item"):
        harness._score_of("wikitext", odd)
