"""A training step on few shapes is the step as it is written; with too little memory it is computed in parts."""

from __future__ import annotations

import functools
import itertools
import logging
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from model_script import random_bank

from methods import step as step_module
from methods.backbone import Backbone
from methods.base import MethodError
from methods.batches import COARSE, BatchShape, batch_shape, collate
from methods.chat import encode_prompt, encode_text
from methods.graphs import recordable
from methods.packing import packing
from methods.samples import IGNORE, Sample, supervised
from methods.train import LoraTrainConfig, MemoryLM, MemoryTerm, TrainLog, train_lora
from tasks.base import Message

CPU = torch.device("cpu")
CONFIG = LoraTrainConfig(max_tokens=2500, batch_tokens=256, learning_rate=5e-3)
PADS = 2


def plain(backbone: Backbone, question: str, answer: str) -> Sample:
    prompt = encode_prompt(backbone, [Message("system", "S"), Message("user", question)])
    ids = backbone.ids
    return supervised(prompt, [ids.think, *encode_text(backbone.tokenizer, answer), ids.eos], "sft_only")


def recalling(backbone: Backbone, question: str, text: str, memory_index: int) -> Sample:
    prompt = encode_prompt(backbone, [Message("system", "S"), Message("user", question)])
    ids = backbone.ids
    target = [ids.think, ids.recall, *[ids.memory_pad] * PADS, *encode_text(backbone.tokenizer, text), ids.eos]
    return supervised(prompt, target, "memory_full", recall=1, pad=2, num_pads=PADS, memory_index=memory_index)


def asking(backbone: Backbone, question: str, memory_index: int) -> Sample:
    """A look-up alone: nothing is decoded."""
    prompt = encode_prompt(backbone, [Message("system", "S"), Message("user", question)])
    target = [backbone.ids.think, backbone.ids.recall]
    return supervised(prompt, target, "query", recall=1, memory_index=memory_index, target_loss_from=len(target))


def batches_of(backbone: Backbone) -> list[list[Sample]]:
    """Of every kind: conversations alone, memories, look-ups, all together, and one sample."""
    talks = [plain(backbone, "How much?", "Ten."), plain(backbone, "Who is it?", "Ann does it.")]
    memories = [recalling(backbone, "Where?", "Cork.", 1), recalling(backbone, "When?", "At noon.", 4)]
    looks = [asking(backbone, "Which?", 2), asking(backbone, "Which of them?", 3)]
    return [talks, memories, looks, [*talks, *memories, *looks], talks[:1]]


def trained(backbone: Backbone, config: LoraTrainConfig = CONFIG, **bank: Any) -> tuple[TrainLog, MemoryTerm]:
    found = random_bank(backbone, num_vectors=PADS)
    memory = MemoryTerm(found.keys_MD, found.values_MPD, found.gain, train_keys=True, train_values=True)
    log = train_lora(backbone, itertools.repeat(batches_of(backbone)), config, stage="", memory=memory, **bank)
    return log, memory


def same_training(one: Backbone, two: Backbone, logs: list[TrainLog], memories: list[MemoryTerm]) -> None:
    assert logs[0].losses.keys() == logs[1].losses.keys() == {"lm", "retrieval"}
    for name, curve in logs[0].losses.items():
        assert logs[1].losses[name] == pytest.approx(curve, rel=1e-3, abs=1e-4)
    for name, tensor in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[name], tensor, rtol=0.0, atol=2e-3)
    for a, b in zip(memories[0].parameters(), memories[1].parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=0.0, atol=5e-3)


@pytest.fixture
def fills_up(monkeypatch: pytest.MonkeyPatch) -> list[BatchShape]:
    """Steps go the way of a card, on the CPU, where nothing is recorded. -> their shapes"""
    shapes: list[BatchShape] = []

    def noted(*args: Any) -> BatchShape:
        shapes.append(batch_shape(*args))
        return shapes[-1]

    monkeypatch.setattr(step_module, "recordable", lambda _device: True)
    monkeypatch.setattr(step_module, "batch_shape", noted)
    return shapes


@pytest.mark.parametrize("accumulated", [1, 2])
def test_filled_up_batches_train_the_same(
    pristine_lively: Backbone, request: pytest.FixtureRequest, accumulated: int
) -> None:
    config = replace(CONFIG, gradient_accumulation_steps=accumulated)
    one, two = pristine_lively.clone(), pristine_lively.clone()
    log_one, memory_one = trained(one, config)
    shapes = request.getfixturevalue("fills_up")
    log_two, memory_two = trained(two, config)
    assert len(set(shapes)) < 5 < len(shapes)
    same_training(one, two, [log_one, log_two], [memory_one, memory_two])


def test_what_has_no_part_in_a_batch_stands_still(pristine_lively: Backbone, fills_up: list[BatchShape]) -> None:
    """Adam would move on what it is given zeros for."""
    backbone = pristine_lively.clone()
    found = random_bank(backbone, num_vectors=PADS)
    memory = MemoryTerm(found.keys_MD, found.values_MPD, found.gain, train_keys=True, train_values=True)
    talks, memories, looks, *_ = batches_of(backbone)
    before: list[tuple[torch.Tensor, torch.Tensor]] = []

    def epochs() -> Iterator[list[list[Sample]]]:
        for batch in (memories, talks, looks, talks):
            before.append((memory.keys_MD.detach().clone(), memory.values_MPD.detach().clone()))
            yield [batch]
        before.append((memory.keys_MD.detach().clone(), memory.values_MPD.detach().clone()))

    train_lora(backbone, epochs(), replace(CONFIG, max_tokens=10_000), stage="", memory=memory)
    moved = [[not torch.equal(a, b) for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(before)]
    assert moved == [[True, True], [False, False], [True, False], [False, False]]


def test_a_shape_covers_its_batch_and_changes_no_loss(pristine_lively: Backbone) -> None:
    backbone = pristine_lively
    found = random_bank(backbone, num_vectors=PADS)
    memory = MemoryTerm(found.keys_MD, found.values_MPD, found.gain)
    module = MemoryLM(backbone.model, memory)
    for samples in batches_of(backbone):
        shape = batch_shape(samples, 256, True, PADS)
        filled = collate(samples, 0, CPU, shape=shape)
        assert filled.places_BT.shape == (shape.samples, shape.width)
        assert len(filled.input_ids_N) == shape.tokens
        assert (filled.memory_index_Q == IGNORE).sum() == shape.samples - filled.num_asked
        with torch.no_grad():
            expected, losses = module(collate(samples, 0, CPU)), module(filled)
        for name, value in expected.items():
            torch.testing.assert_close(losses[name], value)


def test_shapes_are_few(pristine_lively: Backbone) -> None:
    """Of samples of all lengths, in batches as they are cut."""
    shapes = set()
    for length in range(40, 400, 3):
        sample = plain(pristine_lively, "Who?", "a" * length)
        shapes.add(batch_shape([sample] * max(1, 2048 // (-(-len(sample) // COARSE) * COARSE)), 2048, False, 0))
    assert len(shapes) <= 12


def with_room_for(backbone: Backbone, num_samples: int) -> None:
    """The model's forward fails for a batch of more samples, as where a card is full."""
    decoder = backbone.model.model
    forward = decoder.forward

    @functools.wraps(forward)  # what it takes is looked at
    def limited(*args: Any, **kwargs: Any) -> Any:
        if kwargs["samples"][0].shape[0] > num_samples:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    decoder.forward = limited


def test_a_batch_that_finds_no_room_is_computed_in_parts_and_that_is_said(
    pristine_lively: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = pristine_lively.clone(), pristine_lively.clone()
    log_one, memory_one = trained(one)
    with_room_for(two, 2)
    with caplog.at_level(logging.WARNING, logger="methods"):
        log_two, memory_two = trained(two)
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(": ")[2] for line in said] == [
        "from here on each batch is computed in 2 parts; the training stays the same",
        "from here on each batch is computed in 4 parts; the training stays the same",
    ]
    assert (log_two.optimizer_steps, log_two.forward_tokens) == (log_one.optimizer_steps, log_one.forward_tokens)
    same_training(one, two, [log_one, log_two], [memory_one, memory_two])


def test_what_an_attempt_without_room_had_computed_is_gone_before_the_next(pristine_lively: Backbone) -> None:
    """Else it takes the room that the halves are to have."""
    backbone = pristine_lively.clone()
    decoder = backbone.model.model
    forward = decoder.forward
    computed: list[weakref.ref[torch.Tensor]] = []
    left: list[bool] = []

    @functools.wraps(forward)
    def limited(*args: Any, **kwargs: Any) -> Any:
        if not computed:
            block = forward(*args, **kwargs).last_hidden_state
            computed.append(weakref.ref(block))
            raise torch.OutOfMemoryError("CUDA out of memory")
        left.append(computed[0]() is not None)
        return forward(*args, **kwargs)

    decoder.forward = limited
    trained(backbone)
    assert left and not any(left)


def test_what_is_generated_while_the_adapter_trains_is_not_recorded(pristine_lively: Backbone) -> None:
    seen: list[bool] = []

    def on_epoch_end(_epoch: int) -> None:
        seen.append(recordable(torch.device("cuda", 0)))

    trained(pristine_lively.clone(), on_epoch_end=on_epoch_end)
    assert seen and not any(seen)
    assert recordable(torch.device("cuda", 0))


def test_a_sample_that_finds_no_room_alone_ends_the_fit_in_one_sentence(pristine_lively: Backbone) -> None:
    backbone = pristine_lively.clone()
    with_room_for(backbone, 0)
    with pytest.raises(
        MethodError, match=r"too small, and a training sample of \d+ tokens does not fit.*train\.batch"
    ):
        trained(backbone)


def test_a_step_takes_nothing_from_another_device(
    pristine_lively: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On `meta`, a device of its own: an operation with a tensor of the CPU is an error there."""
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_settings: nullcontext())  # not to be had there
    backbone = pristine_lively.clone()
    found = random_bank(backbone, num_vectors=PADS)
    memory = MemoryTerm(found.keys_MD, found.values_MPD, found.gain, train_keys=True, train_values=True)
    memory.kind_M = torch.arange(len(found), device="meta")
    module = MemoryLM(backbone.model.requires_grad_(True), memory, backbone.facts.logits).to("meta")
    with packing(backbone.model):
        for samples in batches_of(backbone):
            losses = module(collate(samples, 0, CPU).to(torch.device("meta")))
            sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None or p.grad.device.type == "meta" for p in module.parameters())
