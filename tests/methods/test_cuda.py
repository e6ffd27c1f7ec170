"""On a GPU, where there is one: recorded work is the work as written, and what is computed is the CPU's.

Weights and sums are fp32 here, so that a difference is a fault and no rounding.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from lively import enlivened
from model_script import random_bank
from test_fixed_cache import NEW, PROMPTS, tokens
from test_step import CONFIG, PADS, batches_of
from tiny_families import save_family
from transformers import AutoModelForCausalLM

from eval.runner import PeakMemory
from methods import fixed_cache, graphs
from methods.backbone import Backbone, load_backbone, room_on
from methods.base import Context, Method, MethodError
from methods.decode import generate, quoting, serially
from methods.rag import ChromaRetriever, RagMethod
from methods.recall.generation import AutoregressiveRecall, RecallMechanism
from methods.recall.method import RecallMethod
from methods.setup import MethodSetup
from methods.sft import SftMethod
from methods.train import LoraTrainConfig, MemoryTerm, TrainLog, train_lora
from tasks.base import Message, TaskData
from tasks.examples import ExampleConfig

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def everything_can_be_recorded(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A fall back to running as written is a failure here. Accelerate keeps to one device, so it begins anew."""
    AcceleratorState._reset_state(True)
    graphs._failed.clear()
    fixed_cache.release()
    with caplog.at_level(logging.WARNING, logger="methods"):
        yield
    assert not graphs._failed, [record.getMessage() for record in caplog.records]
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def on_card() -> Backbone:
    """Shared: never change it, clone it."""
    return enlivened(load_backbone("tiny", device="cuda", dtype="float32"))


@pytest.fixture
def card(on_card: Backbone) -> Backbone:
    return on_card.clone()


@contextmanager
def eagerly() -> Iterator[None]:
    """Within, nothing is recorded: what recorded work is compared with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "RECORDS", False)
        yield


def test_the_model_is_where_it_was_asked_for() -> None:
    last = f"cuda:{torch.cuda.device_count() - 1}"
    backbone = load_backbone("tiny", device=last)
    assert {str(p.device) for p in backbone.model.parameters()} == {last}
    assert torch.cuda.current_device() == torch.cuda.device_count() - 1
    assert str(load_backbone("tiny", device="cuda:0").device) == "cuda:0"


@pytest.mark.model
def test_the_packaged_model_is_the_same_on_a_card() -> None:
    """Read straight from the file onto it: the same fingerprint, facts and, up to rounding, weights."""
    there, here = load_backbone(device="cuda", dtype="bfloat16"), load_backbone(device="cpu", dtype="bfloat16")
    assert there.fingerprint == here.fingerprint
    assert replace(there.facts, embedding_norm=0.0) == replace(here.facts, embedding_norm=0.0)
    assert there.facts.embedding_norm == pytest.approx(here.facts.embedding_norm, rel=1e-3)
    for name, tensor in here.model.state_dict().items():
        torch.testing.assert_close(there.model.state_dict()[name].cpu(), tensor)


def test_weights_kept_in_fp16_come_onto_a_card(tmp_path: Path) -> None:
    folder = save_family("llama", tmp_path / "llama")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.half().save_pretrained(folder)
    there = load_backbone(str(folder), device="cuda", dtype="bfloat16")
    assert (there.device.type, there.dtype) == ("cuda", torch.bfloat16)
    assert there.fingerprint == load_backbone(str(folder), device="cpu", dtype="float32").fingerprint


# Decoding.


@pytest.mark.parametrize("times", [1, 3])
def test_recorded_decoding_says_what_it_says_as_written(
    card: Backbone, pristine_lively: Backbone, times: int
) -> None:
    with eagerly():
        written = tokens(generate(card, PROMPTS, NEW))
    for _ in range(times):
        assert tokens(generate(card, PROMPTS, NEW)) == written
    assert written == tokens(generate(pristine_lively, PROMPTS, NEW))  # of the CPU


def test_a_batch_is_what_its_rows_are_alone(card: Backbone) -> None:
    together = tokens(generate(card, PROMPTS, NEW))
    assert [tokens(generate(card, [prompt], NEW))[0] for prompt in PROMPTS] == together


def test_drafted_equals_serial(card: Backbone) -> None:
    said = tokens(generate(card, PROMPTS, NEW))
    drafters = [quoting([], [row[:15]]) for row in said]
    with serially():
        serial = generate(card, PROMPTS, NEW, drafters=drafters)
    drafted = generate(card, PROMPTS, NEW, drafters=drafters)
    assert tokens(serial) == tokens(drafted) == said
    assert drafted[0].forwards < serial[0].forwards


def test_vectors_are_fed_in_a_recorded_step(card: Backbone) -> None:
    said = []
    for how in (eagerly, serially):
        found = random_bank(card, num_vectors=3)
        bank = type(found)(found.center_D.to(card.device), found.gain, found.fingerprint)
        bank.write(found.ids, found.texts, found.keys_MD, found.fed)
        recall = RecallMechanism(bank, card, AutoregressiveRecall(), force_memory=[2] * len(PROMPTS))
        prompts = [[*prompt, card.ids.think, card.ids.recall] for prompt in PROMPTS]
        with how():
            said.append(tokens(generate(card, prompts, NEW, mechanism=recall)))
    assert said[0] == said[1]


# Training.


def trained(backbone: Backbone, config: LoraTrainConfig = CONFIG) -> tuple[TrainLog, MemoryTerm]:
    found = random_bank(backbone, num_vectors=PADS)
    keys, values = (t.to(backbone.device) for t in (found.keys_MD, found.values_MPD))
    memory = MemoryTerm(keys, values, found.gain, train_keys=True, train_values=True)
    log = train_lora(backbone, itertools.repeat(batches_of(backbone)), config, stage="", memory=memory)
    return log, memory


def test_recorded_training_is_training_as_written_and_that_of_the_cpu(
    on_card: Backbone, pristine_lively: Backbone
) -> None:
    recorded, written, here = on_card.clone(), on_card.clone(), pristine_lively.clone()
    log, memory = trained(recorded)
    with eagerly():
        log_written, memory_written = trained(written)
    AcceleratorState._reset_state(True)
    log_here, memory_here = trained(here)
    for other, other_memory, model in (
        (log_written, memory_written, written.model),
        (log_here, memory_here, here.model),
    ):
        assert (log.forward_tokens, log.optimizer_steps) == (other.forward_tokens, other.optimizer_steps)
        for name, curve in other.losses.items():
            assert log.losses[name] == pytest.approx(curve, rel=1e-2, abs=1e-3)
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(recorded.model.state_dict()[name].cpu(), tensor.cpu(), rtol=0.0, atol=5e-3)
        for mine, its in zip(memory.parameters(), other_memory.parameters(), strict=True):
            torch.testing.assert_close(mine.cpu(), its.cpu(), rtol=0.0, atol=1e-2)


def test_training_in_bf16_is_recorded_too() -> None:
    backbone = load_backbone("tiny", device="cuda", dtype="bfloat16")
    log, _ = trained(backbone)
    assert all(torch.isfinite(torch.tensor(curve)).all() for curve in log.losses.values())
    assert sum(log.losses["retrieval"][-4:]) < sum(log.losses["retrieval"][:4])


# Methods whole.


def made(kind: str, backbone: Backbone, folder: Path, encoder: Any) -> Method:
    setup = MethodSetup(backbone, LoraTrainConfig(max_tokens=3000), ExampleConfig(), folder=folder)
    if kind == "rag":
        return RagMethod(setup, retriever=ChromaRetriever(folder / "chroma", encoder))
    return RecallMethod(setup) if kind == "recall" else SftMethod(setup)


@pytest.mark.parametrize("kind", ["recall", "sft", "rag"])
def test_a_fit_is_saved_loaded_and_answers_the_same(
    kind: str, on_card: Backbone, regs: TaskData, encoder: Any, tmp_path: Path
) -> None:
    (tmp_path / "fitted").mkdir()
    method = made(kind, on_card.clone(), tmp_path / "fitted", encoder)
    report = method.fit(regs.memories, regs.sft)
    assert report.forward_tokens >= 3000
    method.save(tmp_path / "fitted")
    again = made(kind, on_card.clone(), tmp_path / "fitted", encoder)
    again.load(tmp_path / "fitted")
    ctxs = [Context((Message("user", qa.question),), 16) for qa in regs.questions[:4]]
    answers = method.answer_batch(ctxs)
    assert [a.raw for a in again.answer_batch(ctxs)] == [a.raw for a in answers]
    timed = again.answer(ctxs[0])
    assert timed.raw == answers[0].raw
    assert 0 < timed.usage.ttft_s <= timed.usage.total_s


def test_peak_memory_is_read(card: Backbone) -> None:
    with PeakMemory(card.device) as memory:
        block = torch.zeros(2**24, device=card.device)
        del block
    assert memory.kind == "vram"
    assert memory.peak_bytes >= 2**26
    assert memory.reserved_bytes is not None and memory.reserved_bytes >= memory.peak_bytes


def test_a_full_card_is_one_sentence() -> None:
    device = torch.device("cuda", 0)
    with pytest.raises(MethodError, match=r"cuda:0 has too little memory: of .* by this process"), room_on(device):
        torch.empty(2**50, dtype=torch.uint8, device=device)
