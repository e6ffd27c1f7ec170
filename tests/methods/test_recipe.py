"""The calibrated recipe: its bank, what the sentence encoder teaches, both steps, and what a fit leaves behind."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from model_script import random_bank, says, scripted
from test_train import CONFIG, batches_of, pair_of_twins
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.base import Context, MethodError
from methods.chat import encode_text
from methods.decode import Generated, generate, serially
from methods.examples import NULL_TEXT, READING_ID, Example, ExampleConfig, augmented, recall_prompt, titled
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.generation import AutoregressiveRecall, RecallMechanism
from methods.recall.method import RecallMethod
from methods.recall.mixture import CalibratedDataset, Corpus, MixtureConfig, query_epochs
from methods.recall.recipe import (
    RecallConfig,
    budgets,
    encoder_cosines,
    extract,
    make_bank,
    quoted,
    taught,
    train_step,
    twins_of,
)
from methods.recall.writing import WriteConfig
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig, MemoryTerm
from pipelines.config import CompareConfig, resolve
from pipelines.making import make_method
from tasks.base import Memory, Message, TaskData

SHORT = [Memory("meals", "Meals cost 31 euros.", "Meals"), Memory("gate", "Guests sign in at gate two.", "Guests")]
NEW = Memory("new", "Skates are returned by 14.30. Lost ones cost 3 euros.", "Skates")


# The bank before training.


def test_a_bank_begins_with_the_titled_texts_vectors(lively: Backbone, regs: TaskData) -> None:
    """Keys are centred and unit; what is fed has the gain's norm, is apart where keys are near, and one seed's."""
    near = [Memory("a", "Meals cost 31 euros.", "Meals"), Memory("b", "Meals cost 32 euros.", "Meals")]
    memories = [*regs.memories, *near]
    bank = make_bank(lively, memories, 3, seed=0)
    assert bank.ids == [NULL_ID, *(m.id for m in memories)]
    assert bank.gain == pytest.approx(lively.embedding_norm)
    raw_ND = extract(lively, [Memory(NULL_ID, NULL_TEXT), *memories])
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
    assert {tuple(fed_PD.shape) for fed_PD in without.fed} == {(0, lively.hidden_size)}


def test_a_title_is_read_with_its_text() -> None:
    assert titled(Memory("a", "Text.", "Title")) == "Title. Text."
    assert titled(Memory("a", "Text.")) == "Text."


# The encoder's ranking.


class CountingEncoder:
    """Hands on to another encoder and counts the texts."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.seen: Counter[str] = Counter()

    def encode(self, texts: Sequence[str], **settings: object) -> np.ndarray:
        self.seen.update(texts)
        found: np.ndarray = self.encoder.encode(texts, **settings)
        return found


def test_the_ranking_is_by_cosine_and_leaves_out_what_has_no_text(encoder: Any) -> None:
    questions, texts = ["Where do skates go?", "How high is it?"], ["Skates go to desk two.", None, "It is high."]
    cosines = encoder_cosines(encoder, questions, texts)
    assert cosines.shape == (2, 3)
    assert bool(cosines[:, 1].isneginf().all())
    for q, question in enumerate(questions):
        for m in (0, 2):
            pair = torch.as_tensor(encoder.encode([question, str(texts[m])]), dtype=torch.float32)
            assert float(cosines[q, m]) == pytest.approx(float(F.cosine_similarity(pair[:1], pair[1:])), abs=1e-6)
    assert encoder_cosines(encoder, [], texts).shape == (0, 3)


def corpus_of(task: TaskData) -> Corpus:
    return Corpus.of(task.memories, task.sft, ExampleConfig())


def bank_of(backbone: Backbone, corpus: Corpus) -> MemoryBank:
    """The null memory, the clauses and the passages, in no space at all."""
    entries = [Memory(NULL_ID, NULL_TEXT), *corpus.memories, *corpus.passages]
    bank = MemoryBank(torch.zeros(backbone.hidden_size), 1.0, "")
    vectors = torch.randn(len(entries), backbone.hidden_size, generator=torch.Generator().manual_seed(0))
    bank.write([m.id for m in entries], [m.text for m in entries], vectors, list(vectors[:, None]))
    return bank


class Angles:
    """Texts as points on a circle, by their first word."""

    DEGREES = MappingProxyType({"A": 0, "B": 30, "C": 90, "near-b": 25, "near-c": 80})

    def encode(self, texts: Sequence[str], **_settings: object) -> np.ndarray:
        turn = np.radians([self.DEGREES[text.split()[0]] for text in texts])
        return np.stack([np.cos(turn), np.sin(turn)], axis=1)


@pytest.mark.parametrize("with_twins", [False, True])
def test_only_a_teacher_that_is_right_is_followed(with_twins: bool) -> None:
    """Ranked b, a, c by one question and c, b, a by the other: followed where the gold is first, twins apart."""
    memories = [Memory(name, name.upper()) for name in ("a", "b", "c")]
    bank = MemoryBank(torch.zeros(4), 1.0, "")
    bank.write([NULL_ID, "a", "b", "c"], ["none", "A", "B", "C"], torch.eye(4), list(torch.eye(4)[:, None]))
    both = (Message("user", "near-b it is?"),), (Message("user", "near-c it is?"),)
    examples = {m.id: [Example(messages, m.id, m.text) for messages in both] for m in memories}
    corpus = Corpus(memories, examples, [Example(both[0], "", "none")], [], [])
    twins = pair_of_twins(4, 2, 3) if with_twins else torch.zeros(4, 4, dtype=torch.bool)
    found, teacher = taught(corpus, bank, Angles(), 0.3, twins)
    assert teacher.weight == 0.3
    degrees = torch.tensor([[25.0, 5.0, 65.0], [80.0, 50.0, 10.0]])
    torch.testing.assert_close(teacher.logits_QM[:, 1:], torch.cos(torch.deg2rad(degrees)) / 0.05)
    assert bool(teacher.logits_QM[:, 0].isneginf().all())  # the null memory has no rank
    followed = {key: [e.teacher_row for e in part] for key, part in found.examples.items()}
    assert followed == {"a": [-1, -1], "b": [0, 1] if with_twins else [0, -1], "c": [-1, 1]}
    assert found.unanswerable == corpus.unanswerable
    for key, part in found.examples.items():
        assert [replace(e, teacher_row=-1) for e in part] == examples[key]


def test_passages_of_one_kind_are_no_negatives_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methods.train.TAU", 1.0)  # every rival counts
    bank = MemoryBank(torch.zeros(8), 1.0, "")
    keys = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    names = ["m0", *(f"{READING_ID}{kind}" for kind in ("tickets/x", "tickets/y", "keys/z")), "m1"]
    bank.write(names, names, keys, list(keys[:, None]))
    assert torch.equal(twins_of(bank), pair_of_twins(5, 1, 2))
    memory = MemoryTerm(bank.keys_MD, bank.values_MPD, bank.gain, twins_MM=twins_of(bank))
    query = torch.randn(1, 8, generator=torch.Generator().manual_seed(1))
    scores = bank.memory_head(query)[0]
    for index, rivals in {0: [1, 2, 3, 4], 1: [0, 3, 4], 2: [0, 3, 4], 3: [0, 1, 2, 4]}.items():
        expected = torch.logsumexp(scores[[index, *rivals]], dim=0) - scores[index]
        torch.testing.assert_close(memory.retrieval_loss(query, torch.tensor([index])), expected)


def test_a_question_keeps_its_row_when_it_is_put_anew(
    pristine: Backbone, regs: TaskData, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.examples.WORD_DROPOUT", 0.5)
    corpus = corpus_of(regs)
    bank = bank_of(pristine, corpus)
    corpus, _ = taught(corpus, bank, encoder, 0.5, twins_of(bank))
    pool = [e for found in corpus.examples.values() for e in found]
    config, rng = ExampleConfig(history_probability=1.0), random.Random(0)
    changed = [augmented(e, corpus.conversations, config, rng) for e in pool]
    assert [e.teacher_row for e in changed] == [e.teacher_row for e in pool]
    assert any(e.messages[-1] != other.messages[-1] for e, other in zip(pool, changed, strict=True))


def test_samples_of_both_steps_carry_the_row_of_their_question(
    pristine: Backbone, regs: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.examples.WORD_DROPOUT", 0.0)
    monkeypatch.setattr("methods.recall.mixture.QUERIES_LATER", 0.0)
    rows: dict[str, int] = {}
    corpus = corpus_of(regs).mapped(
        lambda e: replace(e, teacher_row=rows.setdefault(e.messages[-1].content, len(rows)))
    )
    bank, plain = bank_of(pristine, corpus), ExampleConfig(history_probability=0.0, unanswerable=0.5)
    step1 = query_epochs(pristine, bank, corpus, plain, 384, seed=0)
    step2 = CalibratedDataset(pristine, bank, corpus, MixtureConfig(memory_full=2.0), plain, 384, seed=0)
    for samples in ([s for batch in next(step1) for s in batch], step2.refresh_epoch_data()):
        asked = {bank.ids[s.memory_index] for s in samples if s.recall_position >= 0}
        assert NULL_ID in asked and asked & {m.id for m in regs.memories}
        assert any(memory_id.startswith(READING_ID) for memory_id in asked)
        for sample in samples:
            if sample.recall_position < 0 or bank.ids[sample.memory_index] == NULL_ID:
                assert sample.teacher_row == -1
            else:
                text = pristine.tokenizer.decode(list(sample.input_ids))
                assert rows[text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]] == sample.teacher_row


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
    setup = MethodSetup(backbone, LoraTrainConfig(max_tokens=tokens), folder=folder, encoder="named")
    return RecallMethod(setup, config)


@pytest.mark.slow
def test_a_fit_ranks_every_text_once(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, loaded = CountingEncoder(encoder), []
    monkeypatch.setattr("methods.recall.recipe.load_encoder", lambda *args: loaded.append(args) or counting)
    config = RecallConfig(distil_weight=0.5, step1_share=0.5)
    plain = method_of(pristine_lively.clone(), tmp_path / "a", replace(config, distil_weight=0.0), 4000)
    plain_report = plain.fit(regs.memories, regs.sft)
    assert not loaded
    assert "teacher_hit_at_1" not in plain_report.notes

    method = method_of(pristine_lively.clone(), tmp_path / "b", config, 4000)
    report = method.fit(regs.memories, regs.sft)
    assert loaded == [("named", "cpu")]
    assert set(counting.seen.values()) == {1}
    passages = {m.text for m in corpus_of(regs).passages}
    assert {titled(m) for m in regs.memories} | passages <= set(counting.seen)
    assert NULL_TEXT not in counting.seen
    assert 0.0 < report.notes["teacher_hit_at_1"] <= 1.0
    for step in ("step1", "step2"):
        assert report.curves[f"{step}/retrieval"] != plain_report.curves[f"{step}/retrieval"]
    assert method.bank is not None
    assert method.bank.ids == [NULL_ID, *(m.id for m in regs.memories)]


@pytest.mark.slow
@pytest.mark.parametrize("num_vectors", [0, 3])
def test_fit_save_load_write_and_forget(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_vectors: int
) -> None:
    """The saved bank decides how much is fed, not the setting; writing leaves what is there as it is."""
    monkeypatch.setattr("methods.recall.method.load_backbone", lambda *_args: pristine_lively)
    config = RecallConfig(vectors_per_memory=num_vectors, distil_weight=0.0, write=WriteConfig(max_steps=2))
    config = config if num_vectors else quoted(config)
    start_MPD = make_bank(pristine_lively, regs.memories, num_vectors, seed=0).values_MPD
    method = method_of(pristine_lively.clone(), tmp_path / "fit", config)
    report = method.fit(regs.memories, regs.sft)
    bank = method.bank
    assert bank is not None
    assert bank.values_MPD.shape == (len(regs.memories) + 1, num_vectors, pristine_lively.hidden_size)
    assert bool((bank.values_MPD - start_MPD).norm(dim=-1).gt(1e-4).all())  # every one of them has learnt
    vectors = len(bank) * (1 + num_vectors) * pristine_lively.hidden_size * 4
    assert report.index_bytes == bank.num_bytes == vectors + sum(len(text.encode()) for text in bank.texts)
    assert ("verbatim_from_true_vector" in report.notes) == bool(num_vectors)  # else there is none
    method.save(tmp_path / "saved")

    other = method_of(pristine_lively.clone(), tmp_path / "other", RecallConfig(distil_weight=0.0))
    other.load(tmp_path / "saved")
    assert other.bank is not None
    fitted, keys = bank.values_MPD, bank.keys_MD.clone()
    torch.testing.assert_close(other.bank.values_MPD, fitted)
    other.write_config = config.write
    written = other.write([NEW])
    assert (written.trained_tokens > 0) == bool(num_vectors)
    assert torch.equal(other.bank.keys_MD[:-1], keys)
    for row, unit_PD in enumerate(fitted):
        torch.testing.assert_close(other.bank.memory_embeddings(row), unit_PD * bank.gain)
    other.forget([regs.memories[0].id, NEW.id])
    left = [i for i in bank.ids if i != regs.memories[0].id]
    assert other.bank.ids == left
    torch.testing.assert_close(other.bank.values_MPD, fitted[[bank.index(i) for i in left]])


# The clause's own text behind <recall>.


def test_a_written_text_is_found_and_stands_behind_recall(
    lively: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a step of any optimiser on what is fed, with no pad, whatever the model would say."""
    monkeypatch.setattr("methods.recall.method.load_backbone", lambda *_args: lively)
    method = RecallMethod(MethodSetup(lively), quoted(RecallConfig()))
    method.bank = make_bank(lively, SHORT, 0, seed=0)
    before = method.stored_bytes()
    report = method.write([NEW])
    assert (report.trained_tokens, report.exact, report.inexact) == (0, (), ())
    assert report.bytes_stored == before + lively.hidden_size * 4 + len(NEW.text.encode())
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


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"distil_weight": 1.5}, "distil_weight=1.5 is not a share"),
        ({"distil_weight": -0.1}, "distil_weight=-0.1 is not a share"),
        ({"vectors_per_memory": -1}, "vectors_per_memory=-1 is below 0"),
    ],
)
def test_settings_that_mean_nothing_are_named(values: dict[str, float], said: str) -> None:
    with pytest.raises(MethodError, match=said):
        RecallConfig(**values)  # type: ignore[arg-type]


def test_the_encoder_is_the_one_of_rag(pristine: Backbone, regs: TaskData, tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    raw = OmegaConf.structured(CompareConfig)
    raw.methods.rag.encoder = "some/encoder"
    method = make_method(resolve(raw), "recall", regs, 0, pristine, lambda *_args: None, tmp_path)  # type: ignore[arg-type]
    assert isinstance(method, RecallMethod)
    assert method.setup.encoder == "some/encoder"
