"""SFT's samples, and the arm `none`, which must never see a clause."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from eval.arms import build_arm
from methods.backbone import Backbone
from methods.base import MethodError
from methods.samples import IGNORE, Sample
from methods.setup import MethodSetup
from methods.sft import SftMethod, recitation
from tasks.base import NO_CLAUSE_THINK, Memory, TaskData
from tasks.examples import RECITATIONS, ExampleConfig


def drawn(method: SftMethod, task: TaskData, epochs: int = 1) -> list[Sample]:
    batches = itertools.islice(method._epochs(task.memories, task.sft), epochs)
    return [sample for epoch in batches for batch in epoch for sample in batch]


def text_of(backbone: Backbone, sample: Sample) -> str:
    return str(backbone.tokenizer.decode(list(sample.input_ids)))


def test_kinds_and_counts(pristine: Backbone, regs: TaskData) -> None:
    samples = drawn(SftMethod(MethodSetup(pristine)), regs)
    abstains = sum(NO_CLAUSE_THINK in text_of(pristine, s) for s in samples if s.kind == "memory_full")
    assert Counter(s.kind for s in samples) == {"memory_full": 9 + abstains, "memory_front": 6, "sft_only": 8}
    assert abstains == round(len(regs.memories) * ExampleConfig().unanswerable)


def test_it_learns_every_clause_and_no_memory_token(pristine: Backbone, regs: TaskData) -> None:
    samples = drawn(SftMethod(MethodSetup(pristine)), regs)
    ids = pristine.ids
    for sample in samples:
        assert not {ids.recall, ids.recall_end, ids.memory_pad} & set(sample.input_ids)
        think = sample.input_ids.index(ids.think)
        assert set(sample.labels[:think]) == {IGNORE}
        assert sample.labels[think:] == sample.input_ids[think:]
    asked = " ".join(text_of(pristine, s) for s in samples if s.kind == "memory_full")
    recited = " ".join(text_of(pristine, s) for s in samples if s.kind == "memory_front")
    assert all(memory.text in asked and memory.text in recited for memory in regs.memories)


def test_recitations_are_paraphrased(pristine: Backbone) -> None:
    rng = random.Random(0)
    memory = Memory("1", "Guests sign in at the gate.", "Guests, Lisbon")
    found = {text_of(pristine, recitation(pristine, memory, rng)) for _ in range(60)}
    assert len(found) == len(RECITATIONS)
    assert all("guests, Lisbon" in text and f"</think>\n{memory.text}<|im_end|>" in text for text in found)
    untitled = text_of(pristine, recitation(pristine, Memory("2", "Guests sign in at the gate."), rng))
    assert "guests sign in at the gate" in untitled


def test_the_arm_none_sees_no_clause(pristine: Backbone, regs: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sample] = []

    def train(_backbone: object, epochs: object, *_args: object, **_kwargs: object) -> object:
        for epoch in itertools.islice(epochs, 3):  # type: ignore[call-overload]
            seen.extend(sample for batch in epoch for sample in batch)
        raise StopIteration

    monkeypatch.setattr("methods.sft.train_lora", train)
    with pytest.raises(StopIteration):
        build_arm("none", MethodSetup(pristine), {}, {}).fit(regs.memories, regs.sft)
    text = " ".join(text_of(pristine, sample) for sample in seen)
    assert {s.kind for s in seen} == {"sft_only"}
    assert not any(memory.text in text or memory.title in text for memory in regs.memories)


def test_knowledge_in_weights_cannot_be_edited(pristine: Backbone) -> None:
    method = SftMethod(MethodSetup(pristine))
    with pytest.raises(MethodError, match="fit again"):
        method.write([Memory("1", "text")])
    with pytest.raises(MethodError, match="fit again"):
        method.forget(["1"])
