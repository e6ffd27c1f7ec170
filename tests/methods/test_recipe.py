"""The calibrated recipe: its bank, both steps, and what a fit leaves behind."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model_script import random_bank, says, scripted
from test_train import CONFIG, batches_of
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.base import Context, MethodError
from methods.chat import encode_text, recall_prompt
from methods.decode import Generated, generate, serially
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.generation import AutoregressiveRecall, RecallMechanism
from methods.recall.method import RecallMethod
from methods.recall.mixture import MixtureConfig
from methods.recall.recipe import (
    RecallConfig,
    budgets,
    extract,
    kinds_of,
    make_bank,
    quoted,
    train_step,
)
from methods.recall.writing import WriteConfig, query_states
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig, MemoryTerm
from tasks.base import NO_CLAUSE_THINK, Memory, Message, TaskData
from tasks.examples import READING_ID, titled, unanswerable_examples

SHORT = [Memory("meals", "Meals cost 31 euros.", "Meals"), Memory("gate", "Guests sign in at gate two.", "Guests")]
NEW = Memory("new", "Skates are returned by 14.30. Lost ones cost 3 euros.", "Skates")


# The bank before training.


def test_a_bank_begins_with_the_titled_texts_vectors(lively: Backbone, regs: TaskData) -> None:
    """Keys are centred and unit; what is fed has the gain's norm, is apart where keys are near, and one seed's."""
    near = [Memory("a", "Meals cost 31 euros.", "Meals"), Memory("b", "Meals cost 32 euros.", "Meals")]
    memories = [*regs.memories, *near]
    bank = make_bank(lively, memories, 3, seed=0)
    assert bank.ids == [NULL_ID, *(m.id for m in memories)]
    assert bank.gain == pytest.approx(lively.facts.embedding_norm)
    raw_ND = extract(lively, [Memory(NULL_ID, NO_CLAUSE_THINK), *memories])
    torch.testing.assert_close(bank.keys_MD, F.normalize(raw_ND - raw_ND.mean(dim=0), dim=-1))
    norms = torch.stack([fed_PD.norm(dim=-1) for fed_PD in bank.fed])
    torch.testing.assert_close(norms, torch.full((len(memories) + 1, 3), bank.gain))
    fed = bank.values_MPD
    one, other = bank.index("a"), bank.index("b")
    for place in range(3):
        assert float(fed[one, place] @ fed[other, place]) < float(bank.keys_MD[one] @ bank.keys_MD[other]) - 0.1
    assert torch.equal(make_bank(lively, memories, 3, seed=0).values_MPD, fed)
    assert not torch.equal(make_bank(lively, memories, 3, seed=1).values_MPD, fed)
    without = make_bank(lively, memories, 0, seed=0)
    assert torch.equal(without.keys_MD, bank.keys_MD)
    assert {tuple(fed_PD.shape) for fed_PD in without.fed} == {(0, lively.facts.hidden_size)}


def test_a_title_is_read_with_its_text() -> None:
    assert titled(Memory("a", "Text.", "Title")) == "Title. Text."
    assert titled(Memory("a", "Text.")) == "Text."


def test_passages_of_one_kind_are_no_negatives_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methods.train.TAU", 1.0)  # every rival counts
    bank = MemoryBank(torch.zeros(8), 1.0, "")
    keys = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    names = ["m0", *(f"{READING_ID}{kind}" for kind in ("tickets/x", "tickets/y", "keys/z")), "m1"]
    bank.write(names, names, keys, list(keys[:, None]))
    assert kinds_of(bank).tolist() == [0, 1, 1, 2, 3]
    memory = MemoryTerm(bank.keys_MD, bank.values_MPD, bank.gain, kind_M=kinds_of(bank))
    query = torch.randn(1, 8, generator=torch.Generator().manual_seed(1))
    scores = bank.memory_head(query)[0]
    for index, rivals in {0: [1, 2, 3, 4], 1: [0, 3, 4], 2: [0, 3, 4], 3: [0, 1, 2, 4]}.items():
        expected = torch.logsumexp(scores[[index, *rivals]], dim=0) - scores[index]
        torch.testing.assert_close(memory.retrieval_loss(query, torch.tensor([index])), expected)


# One step.


@pytest.mark.parametrize(("step", "learn"), [("step1", True), ("step2", True), ("step2", False)])
def test_the_bank_gets_what_a_step_has_learnt(lively: Backbone, tmp_path: Path, step: Any, learn: bool) -> None:
    """Keys in both steps, what is fed in the second, neither by the letter; unit and of the gain, as before."""
    bank, before = random_bank(lively), random_bank(lively)
    setup = MethodSetup(lively, folder=tmp_path)
    epochs = itertools.repeat(batches_of(lively))
    log = train_step(setup, step, bank, epochs, CONFIG, learn_vectors=learn)
    assert log.optimizer_steps > 1
    torch.testing.assert_close(bank.keys_MD.norm(dim=-1), torch.ones(len(bank)))
    fed, fed_before = (torch.stack(one.fed)[:, 0] for one in (bank, before))
    torch.testing.assert_close(fed.norm(dim=-1), torch.full((len(bank),), bank.gain))
    assert not bank.keys_MD.requires_grad and not fed.requires_grad
    assert bool(((bank.keys_MD - before.keys_MD).norm(dim=-1) > 1e-4).any()) == learn
    moved = ((fed - fed_before).norm(dim=-1) > 1e-3).nonzero().flatten().tolist()
    assert moved == ([1, 4] if learn and step == "step2" else [])  # those that were fed
    assert (setup.adapters / step / "adapter_config.json").exists()


def test_the_budget_is_that_of_both_steps() -> None:
    train = LoraTrainConfig(max_tokens=1001)
    assert [step.max_tokens for step in budgets(train, 0.2)] == [200, 801]
    assert [step.max_tokens for step in budgets(train, 0.0)] == [0, 1001]
    assert all(replace(step, max_tokens=1001) == train for step in budgets(train, 0.5))


# The whole recipe.


def method_of(backbone: Backbone, folder: Path, config: RecallConfig, tokens: int = 1500) -> RecallMethod:
    setup = MethodSetup(backbone, LoraTrainConfig(max_tokens=tokens), folder=folder)
    return RecallMethod(setup, config)


@pytest.mark.slow
@pytest.mark.parametrize("num_vectors", [0, 3])
def test_fit_save_load_write_and_forget(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, num_vectors: int
) -> None:
    """The saved bank decides how much is fed, not the setting; writing leaves what is there as it is."""
    config = RecallConfig(vectors_per_memory=num_vectors, write=WriteConfig(max_steps=2))
    config = config if num_vectors else quoted(config)
    start_MPD = make_bank(pristine_lively, regs.memories, num_vectors, seed=0).values_MPD
    method = method_of(pristine_lively.clone(), tmp_path / "fit", config)
    report = method.fit(regs.memories, regs.sft)
    bank = method.bank
    assert bank is not None
    assert bank.values_MPD.shape == (len(regs.memories) + 1, num_vectors, pristine_lively.facts.hidden_size)
    assert bool((bank.values_MPD - start_MPD).norm(dim=-1).gt(1e-4).all())  # every one of them has learnt
    vectors = len(bank) * (1 + num_vectors) * pristine_lively.facts.hidden_size * 4
    assert report.index_bytes == bank.num_bytes == vectors + sum(len(text.encode()) for text in bank.texts)
    assert ("verbatim_from_true_vector" in report.notes) == bool(num_vectors)  # else there is none
    method.save(tmp_path / "saved")

    other = method_of(pristine_lively.clone(), tmp_path / "other", RecallConfig())
    other.load(tmp_path / "saved")
    assert other.bank is not None
    fitted, keys = bank.values_MPD, bank.keys_MD.clone()
    torch.testing.assert_close(other.bank.values_MPD, fitted)
    other.config = config
    written = other.write([NEW])
    assert (written.trained_tokens > 0) == bool(num_vectors)
    assert torch.equal(other.bank.keys_MD[:-1], keys)
    for row, unit_PD in enumerate(fitted):
        torch.testing.assert_close(other.bank.memory_embeddings(row), unit_PD * bank.gain)
    other.forget([regs.memories[0].id, NEW.id])
    left = [i for i in bank.ids if i != regs.memories[0].id]
    assert other.bank.ids == left
    torch.testing.assert_close(other.bank.values_MPD, fitted[[bank.index(i) for i in left]])


def test_a_key_is_the_mean_of_its_questions_states(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path
) -> None:
    """Of the trained model: for the null memory, what was fitted or indexed with the fit, and what comes later."""
    method = method_of(pristine_lively.clone(), tmp_path / "fit", RecallConfig())
    method.setup.indexed = SHORT
    method.fit(regs.memories, regs.sft)
    method.index([NEW])
    assert method.bank is not None
    assert method.bank.ids == [NULL_ID, *(m.id for m in (*regs.memories, *SHORT, NEW))]
    asked = [unanswerable_examples(regs.sft), *map(method._questions, (*regs.memories, *SHORT, NEW))]
    for key_D, own in zip(method.bank.keys_MD, asked, strict=True):
        mean_D = query_states(method.backbone, [example.messages for example in own]).mean(dim=0)
        torch.testing.assert_close(key_D, mean_D, atol=1e-5, rtol=0)


# The clause's own text behind <recall>.


def test_a_written_text_is_found_and_stands_behind_recall(lively: Backbone) -> None:
    """Without a step of any optimiser on what is fed, with no pad, whatever the model would say."""
    method = RecallMethod(MethodSetup(lively), quoted(RecallConfig()))
    method.bank = make_bank(lively, SHORT, 0, seed=0)
    before = method.stored_bytes()
    report = method.write([NEW])
    assert (report.trained_tokens, report.exact, report.inexact) == (0, (), ())
    assert report.bytes_stored == before + lively.facts.hidden_size * 4 + len(NEW.text.encode())
    asked = [Message("user", f"What is the rule on: {NEW.title}?"), Message("user", "Anything else?")]
    with scripted(lively, says(lively, lively.ids.think, "\n", lively.ids.recall)):
        found = method.answer_batch([Context((message,), 100) for message in asked])
    for answer in found:
        (lookup,) = answer.lookups
        text = method.bank.texts[method.bank.index(lookup.memory_id)]
        assert lookup.text == text
        assert answer.raw.startswith(f"<think>\n<recall>{text}</recall>")
        assert "<|memory_pad|>" not in answer.raw
    assert found[0].lookups[0].memory_id == NEW.id  # its key is fitted to this very question
    method.forget([NEW.id])
    assert method.stored_bytes() == before


def test_a_text_is_fed_in_one_forward_or_token_by_token_alike(lively: Backbone) -> None:
    bank, ids = make_bank(lively, SHORT, 0, seed=0), lively.ids
    prompts = [recall_prompt(lively, (Message("user", text),)) for text in ("Where?", "What is the rule?")]

    def said(at_once: bool) -> list[Generated]:
        mechanism = RecallMechanism(bank, lively, AutoregressiveRecall(), force_memory=[1, 2])
        with nullcontext() if at_once else serially():
            return generate(lively, prompts, 48, mechanism=mechanism)

    whole, single = said(True), said(False)
    assert [output.token_ids for output in whole] == [output.token_ids for output in single]
    for output, memory in zip(whole, SHORT, strict=True):
        text = encode_text(lively.tokenizer, memory.text)
        assert list(output.token_ids[: len(text) + 1]) == [*text, ids.recall_end]
    assert whole[0].forwards < single[0].forwards - 15


def test_quoting_changes_what_is_fed_and_trains_no_decoding() -> None:
    config = RecallConfig(step1_share=0.3, mixture=MixtureConfig(memory_full=2.0))
    assert quoted(config) == replace(
        config, vectors_per_memory=0, mixture=MixtureConfig(memory_front=0.0, memory_full=2.0)
    )


def test_a_setting_that_means_nothing_is_named() -> None:
    with pytest.raises(MethodError, match="vectors_per_memory=-1 is below 0"):
        RecallConfig(vectors_per_memory=-1)
