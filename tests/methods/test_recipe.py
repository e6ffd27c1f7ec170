"""Retrieval distilled from the sentence encoder: the ranking, the samples that carry it, what the loss learns."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from methods.augment import augmented
from methods.recall.calibrated import CalibratedDataset, MixtureConfig
from methods.recall.stage1 import query_epochs
from methods.recall.teacher import agreed, encoder_cosines, near_duplicates, with_row
from torch import Tensor
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.base import MethodError
from methods.examples import (
    NULL_TEXT,
    Example,
    ExampleConfig,
    clause_examples,
    general,
    reading_examples,
    titled,
    unanswerable_examples,
)
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.method import RecallConfig, RecallMethod
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig, MemoryTerm, Teacher
from pipelines.config import CompareConfig, resolve
from pipelines.making import make_method
from tasks.base import Memory, Message, TaskData

TAU = 0.05
INF = float("inf")


def keys_and_queries(num_memories: int = 5, num_queries: int = 4, width: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(num_memories, width, generator=generator), dim=-1)
    return keys, torch.randn(num_queries, width, generator=generator)


def loss_of(
    keys: Tensor, queries: Tensor, gold: Tensor, teacher: Teacher | None, rows: Tensor, twins: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient at the queries."""
    queries = queries.clone().requires_grad_()
    loss = MemoryTerm(keys[:, None], keys, 1.0, TAU, twins_MM=twins, teacher=teacher).retrieval_loss(
        queries, gold, rows
    )
    loss.backward()
    assert queries.grad is not None
    return loss.detach(), queries.grad


def pair_of_twins(size: int, one: int, other: int) -> Tensor:
    twins = torch.zeros(size, size, dtype=torch.bool)
    twins[one, other] = twins[other, one] = True
    return twins


# The loss.


@pytest.mark.parametrize("with_twins", [False, True])
def test_a_teacher_that_is_sure_of_the_gold_memory_changes_nothing(with_twins: bool) -> None:
    keys, queries = keys_and_queries()
    gold, rows = torch.tensor([0, 3, 2, 3]), torch.arange(4)
    twins = pair_of_twins(5, 3, 1) if with_twins else None
    sure = torch.where(F.one_hot(gold, 5).bool(), 0.0, -INF)
    plain, plain_grad = loss_of(keys, queries, gold, None, rows, twins)
    for weight in (0.0, 0.3, 1.0):
        taught, taught_grad = loss_of(keys, queries, gold, Teacher(sure, weight), rows, twins)
        torch.testing.assert_close(taught, plain)
        torch.testing.assert_close(taught_grad, plain_grad)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_the_loss_is_shared_by_the_weight(weight: float) -> None:
    keys, queries = keys_and_queries()
    gold, rows = torch.tensor([0, 3, 2, 3]), torch.tensor([1, 0, 1, 0])
    ranking = torch.randn(2, 5, generator=torch.Generator().manual_seed(1)) * 3
    found, _ = loss_of(keys, queries, gold, Teacher(ranking, weight), rows)
    expected = 0.0
    for query, index, row in zip(queries, gold.tolist(), rows.tolist(), strict=True):
        log_probs = (F.cosine_similarity(query[None], keys) / TAU).log_softmax(dim=-1)
        of_teacher = -float((ranking[row].softmax(dim=-1) * log_probs).sum())
        expected += ((1 - weight) * -float(log_probs[index]) + weight * of_teacher) / len(queries)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_question_without_a_row_learns_the_gold_memory_alone() -> None:
    keys, queries = keys_and_queries()
    gold = torch.tensor([0, 3, 2, 3])
    ranking = torch.zeros(1, 5)
    _, plain = loss_of(keys, queries, gold, None, torch.full((4,), -1))
    _, none = loss_of(keys, queries, gold, Teacher(ranking, 1.0), torch.full((4,), -1))
    torch.testing.assert_close(none, plain)
    _, one = loss_of(keys, queries, gold, Teacher(ranking, 1.0), torch.tensor([-1, -1, 0, -1]))
    torch.testing.assert_close(one[[0, 1, 3]], plain[[0, 1, 3]])
    assert not torch.allclose(one[2], plain[2])


def test_what_the_teacher_gives_to_twins_and_to_unranked_memories_is_nobodys() -> None:
    """A twin has no share in either distribution; an unranked memory stays a negative."""
    keys, queries = keys_and_queries()
    gold, rows = torch.tensor([3]), torch.tensor([0])
    ranking = torch.tensor([[-INF, 9.0, 0.5, 1.0, 0.0]])
    with_twin, gradient = loss_of(keys, queries[:1], gold, Teacher(ranking, 0.7), rows, pair_of_twins(5, 3, 1))
    assert bool(torch.isfinite(gradient).all())
    kept = [0, 2, 3, 4]
    without, _ = loss_of(keys[kept], queries[:1], torch.tensor([2]), Teacher(ranking[:, kept], 0.7), rows)
    torch.testing.assert_close(with_twin, without)
    fewer, _ = loss_of(keys[kept[1:]], queries[:1], torch.tensor([1]), Teacher(ranking[:, kept[1:]], 0.7), rows)
    assert not torch.allclose(with_twin, fewer)


def test_queries_take_over_the_ranking() -> None:
    """Against the gold memory alone: the memory that the teacher ranks second becomes the second."""
    keys, queries = keys_and_queries(num_queries=1)
    gold, rows = torch.tensor([0]), torch.tensor([0])
    ranking = torch.tensor([[3.0, -2.0, -2.0, -2.0, 2.0]])
    query = torch.nn.Parameter(queries.clone())
    optimizer = torch.optim.Adam([query], lr=0.05)
    memory = MemoryTerm(keys[:, None], keys, 1.0, 0.3, teacher=Teacher(ranking, 1.0))
    for _ in range(200):
        optimizer.zero_grad()
        memory.retrieval_loss(query, gold, rows).backward()
        optimizer.step()
    best = (F.normalize(query.detach(), dim=-1) @ keys.T)[0].topk(2).indices
    assert best.tolist() == [0, 4]


# The ranking.


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


def test_near_duplicates_are_pairs_of_texts_over_the_margin(encoder: Any) -> None:
    texts = [None, "Meals cost 31 euros.", "Meals cost 31 euros", "Meals cost 32 euros.", "Skates are lent."]
    near = near_duplicates(encoder, texts, 0.99)
    assert near.nonzero().tolist() == [[1, 2], [2, 1]]  # neither itself nor the null memory
    wider = near_duplicates(encoder, texts, 0.5)
    assert torch.equal(wider, wider.T)
    assert bool(wider[1, 3]) and not wider[4].any() and not wider[0].any()
    assert not near_duplicates(encoder, texts, 1.01).any()


@pytest.mark.parametrize("margin", [0.0, 0.95])
def test_near_duplicates_are_negatives_unless_a_margin_is_set(
    lively: Backbone, tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch, margin: float
) -> None:
    monkeypatch.setattr("methods.recall.method.load_encoder", lambda *_args: encoder)
    memories = [Memory("a", "Meals cost 31 euros."), Memory("b", "Meals cost 31 euros"), Memory("c", "Skates.")]
    method = method_of(lively, tmp_path, RecallConfig(negative_margin=margin))
    method.bank = method._make_bank(memories, [])
    pairs = [[1, 2], [2, 1]] if margin else []
    assert method._no_negatives(memories).nonzero().tolist() == pairs


def test_only_a_teacher_that_is_right_is_followed() -> None:
    """The first row ranks "b" first, the second a twin of "a", which does not count."""
    bank = MemoryBank(torch.zeros(4), 1.0, "")
    names = [NULL_ID, "a", "b", "c"]
    bank.write(names, ["none", "A", "B", "C"], torch.eye(4), torch.eye(4))
    teacher = Teacher(torch.tensor([[-INF, 1.0, 2.0, 0.0], [-INF, 1.0, 0.0, 2.0]]), 0.5)
    twins = pair_of_twins(4, 1, 3)

    def row_after(memory_id: str, row: int) -> int:
        example = Example((Message("user", "q"),), memory_id, "text", teacher_row=row)
        return agreed(example, teacher, bank, twins).teacher_row

    assert row_after("a", 0) == -1
    assert row_after("b", 0) == 0
    assert row_after("a", 1) == 1
    assert row_after("b", 1) == -1


# Rows.


def test_one_question_has_one_row_and_keeps_it_when_it_is_augmented(regs: TaskData) -> None:
    config = ExampleConfig(history_probability=1.0, word_dropout=0.5)
    rows: dict[str, int] = {}
    pool = [with_row(e, rows) for found in clause_examples(regs.memories, ExampleConfig()).values() for e in found]
    assert list(rows.values()) == list(range(len(rows)))
    assert len({e.messages[-1].content for e in pool}) == len(rows)
    rng = random.Random(0)
    changed = [augmented(e, general(regs.sft), config, rng) for e in pool]
    assert [e.teacher_row for e in changed] == [rows[e.messages[-1].content] for e in pool]
    assert any(e.messages[-1] != other.messages[-1] for e, other in zip(pool, changed, strict=True))


def test_samples_of_both_steps_carry_the_row_of_their_question(pristine: Backbone, regs: TaskData) -> None:
    rows: dict[str, int] = {}
    examples = clause_examples(regs.memories, ExampleConfig())
    examples = {key: [with_row(e, rows) for e in found] for key, found in examples.items()}
    reading = [with_row(e, rows) for e in reading_examples(regs.sft)]
    null = unanswerable_examples(regs.sft)
    texts = {NULL_ID: NULL_TEXT, **{m.id: m.text for m in regs.memories}}
    texts |= {e.memory_id: e.clause for e in reading}
    bank = MemoryBank(torch.zeros(pristine.hidden_size), 1.0, "")
    vectors = torch.randn(len(texts), pristine.hidden_size)
    bank.write(list(texts), list(texts.values()), vectors, vectors)
    plain = ExampleConfig(
        history_probability=0.0, word_dropout=0.0, claim_probability=0.0, follow_up_probability=0.0
    )
    conversations = general(regs.sft)
    step1 = query_epochs(pristine, bank, examples, null, reading, conversations, plain, 4, seed=0)
    mixture = MixtureConfig(memory_full=2.0, unanswerable=0.5, reading=1.0, queries_later=0.0)
    step2 = CalibratedDataset(
        pristine, bank, regs.memories, examples, null, reading, conversations, mixture, plain, 4, 0
    )
    for samples in ([s for batch in next(step1) for s in batch], step2.refresh_epoch_data()):
        asked = [s for s in samples if s.recall_position >= 0]
        about = {bank.ids[s.memory_index] for s in asked}
        assert (
            NULL_ID in about and about & {m.id for m in regs.memories} and about & {e.memory_id for e in reading}
        )
        for sample in samples:
            if sample.recall_position < 0 or bank.ids[sample.memory_index] == NULL_ID:
                assert sample.teacher_row == -1
            else:
                text = pristine.tokenizer.decode(list(sample.input_ids))
                assert rows[text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]] == sample.teacher_row


# The whole recipe.


def method_of(backbone: Backbone, folder: Path, config: RecallConfig) -> RecallMethod:
    setup = MethodSetup(backbone, LoraTrainConfig(max_tokens=4000), folder=folder, encoder="named")
    return RecallMethod(setup, config)


@pytest.mark.slow
def test_a_fit_ranks_every_text_once(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, loaded = CountingEncoder(encoder), []
    monkeypatch.setattr("methods.recall.method.load_encoder", lambda *args: loaded.append(args) or counting)
    config = RecallConfig(distil_weight=0.5, step1_share=0.5)
    plain = method_of(pristine_lively.clone(), tmp_path / "a", replace(config, distil_weight=0.0))
    plain_report = plain.fit(regs.memories, regs.sft)
    assert not loaded
    assert "teacher_hit_at_1" not in plain_report.notes

    method = method_of(pristine_lively.clone(), tmp_path / "b", config)
    report = method.fit(regs.memories, regs.sft)
    assert loaded == [("named", "cpu")]
    assert set(counting.seen.values()) == {1}
    reading = reading_examples(regs.sft)
    passages = {e.clause for e in reading}
    assert {titled(m) for m in regs.memories} | passages <= set(counting.seen)
    assert NULL_TEXT not in counting.seen
    assert 0.0 < report.notes["teacher_hit_at_1"] <= 1.0
    for step in ("step1", "step2"):
        assert report.curves[f"{step}/retrieval"] != plain_report.curves[f"{step}/retrieval"]
    assert method.bank is not None
    assert method.bank.ids == [NULL_ID, *(m.id for m in regs.memories)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"distil_weight": 1.5}, "distil_weight=1.5 is not a share"),
        ({"distil_weight": -0.1}, "distil_weight=-0.1 is not a share"),
        ({"distil_temperature": 0.0}, "distil_temperature=0.0 divides cosines"),
        ({"negative_margin": 1.0}, "negative_margin=1.0 is not a cosine"),
        ({"tie_values": True, "vectors_per_memory": 2}, "tie_values=true makes one vector"),
        ({"tie_values": True, "vectors_per_memory": 1, "train_keys": False}, "train_keys and train_values alike"),
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


def test_a_title_is_read_with_its_text() -> None:
    assert titled(Memory("a", "Text.", "Title")) == "Title. Text."
    assert titled(Memory("a", "Text.")) == "Text."
