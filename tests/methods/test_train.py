"""The training loop: what moves and what does not, what is counted, and the two losses by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_script import random_bank
from torch import Tensor
from torch.nn import functional as F

from methods import checkpoint
from methods.backbone import Backbone, load_backbone
from methods.base import MethodError
from methods.batches import collate
from methods.chat import encode_prompt, encode_text
from methods.recall.bank import MemoryBank
from methods.samples import IGNORE, Sample, supervised
from methods.train import (
    READ_EVERY,
    TAU,
    LoraTrainConfig,
    MemoryLM,
    MemoryTerm,
    TrainLog,
    _Losses,
    _schedule,
    merge_adapters,
    train_lora,
)
from tasks.base import Message

CPU = torch.device("cpu")
INF = float("inf")
CONFIG = LoraTrainConfig(max_tokens=900, batch_tokens=256, learning_rate=5e-3)


def plain_sample(backbone: Backbone, question: str, answer: str) -> Sample:
    prompt = encode_prompt(backbone, [Message("system", "S"), Message("user", question)])
    ids = backbone.ids
    return supervised(prompt, [ids.think, *encode_text(backbone.tokenizer, answer), ids.eos], "sft_only")


def recall_sample(backbone: Backbone, question: str, text: str, memory_index: int, num_pads: int = 1) -> Sample:
    prompt = encode_prompt(backbone, [Message("system", "S"), Message("user", question)])
    ids = backbone.ids
    target = [
        ids.think,
        ids.recall,
        *[ids.memory_pad] * num_pads,
        *encode_text(backbone.tokenizer, text),
        ids.recall_end,
        ids.eos,
    ]
    return supervised(prompt, target, "memory_full", recall=1, pad=2, num_pads=num_pads, memory_index=memory_index)


def batches_of(backbone: Backbone) -> list[list[Sample]]:
    return [
        [plain_sample(backbone, "How much?", "Ten."), plain_sample(backbone, "Who?", "Ann does.")],
        [recall_sample(backbone, "Where?", "Cork.", 1), recall_sample(backbone, "When?", "At noon.", 4)],
    ]


def term_of(bank: MemoryBank, **options: Any) -> MemoryTerm:
    return MemoryTerm(bank.keys_MD, bank.values_MPD, bank.gain, **options)


def term(backbone: Backbone, **options: Any) -> MemoryTerm:
    return term_of(random_bank(backbone), **options)


def fit(backbone: Backbone, config: LoraTrainConfig = CONFIG, **options: Any) -> TrainLog:
    epochs = itertools.repeat(batches_of(backbone))
    return train_lora(backbone, epochs, config, stage="test", memory=term(backbone), **options)


def weights_of(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}


# What moves.


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj",)])
def test_only_the_lora_targets_and_the_control_rows_move(lively: Backbone, targets: tuple[str, ...]) -> None:
    before = weights_of(lively)
    fit(lively, target_modules=targets)
    after = weights_of(lively)
    assert after.keys() == before.keys()
    rows = list(lively.ids.new_rows)
    ordinary = [row for row in range(len(lively.tokenizer)) if row not in rows]
    for name, tensor in before.items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert torch.equal(after[name][ordinary], tensor[ordinary])
            assert not torch.equal(after[name][rows], tensor[rows])
        else:
            assert torch.equal(after[name], tensor) == (not any(target in name for target in targets)), name


def test_after_training_the_model_is_plain_again(lively: Backbone) -> None:
    names = [name for name, _ in lively.model.named_parameters()]
    fit(lively)
    assert [name for name, _ in lively.model.named_parameters()] == names
    assert not any(p.requires_grad or p.grad is not None for p in lively.model.parameters())
    assert not lively.model.training
    embedding, head = lively.model.get_input_embeddings(), lively.model.get_output_embeddings()
    assert embedding.weight.data_ptr() == head.weight.data_ptr()  # still tied


def test_a_clone_is_not_trained_along(lively: Backbone) -> None:
    other, before = lively.clone(), weights_of(lively)
    fit(lively)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(other).items())


def test_the_same_seed_trains_the_same_model(pristine_lively: Backbone) -> None:
    one, two, three = (pristine_lively.clone() for _ in range(3))
    log_one, log_two = fit(one), fit(two)
    fit(three, replace(CONFIG, seed=1))
    assert log_one.losses == log_two.losses
    assert all(torch.equal(tensor, weights_of(two)[name]) for name, tensor in weights_of(one).items())
    assert not all(torch.equal(tensor, weights_of(three)[name]) for name, tensor in weights_of(one).items())


# What is learnt.


def test_a_small_set_is_learnt_by_heart(lively: Backbone) -> None:
    with torch.no_grad():  # the head is frozen, and so small that no token could ever be certain
        lively.model.get_output_embeddings().weight.mul_(10)
    log = fit(lively, replace(CONFIG, max_tokens=14_000))
    lm, retrieval = log.losses["lm"], log.losses["retrieval"]
    assert sum(lm[-8:]) < 0.2 * sum(lm[:8])
    assert sum(retrieval[-8:]) < 0.1 * sum(retrieval[:8])


def test_the_query_learns_its_memory(tiny: Backbone) -> None:
    bank = random_bank(tiny)
    sample = recall_sample(tiny, "Where?", "Cork.", 1)
    other = recall_sample(tiny, "When?", "At noon.", 4)
    config = replace(CONFIG, max_tokens=6000)
    train_lora(tiny, itertools.repeat([[sample, other]]), config, stage="", memory=term_of(bank))
    for trained in (sample, other):
        ids = torch.tensor([trained.input_ids[: trained.recall_position + 1]])
        with torch.no_grad():
            state = tiny.model.model(ids).last_hidden_state[:, -1]
        assert int(bank.memory_head(state).argmax()) == trained.memory_index


# What is counted.


@pytest.mark.parametrize("budget", [1, 100, 500])
def test_tokens_are_counted_without_padding_up_to_the_budget(lively: Backbone, budget: int) -> None:
    drawn: list[list[Sample]] = []
    shown: list[tuple[str, int, int]] = []

    def epochs() -> Iterator[list[list[Sample]]]:
        for number in itertools.count():
            length = 3 + 5 * (number % 4)
            drawn.append([plain_sample(lively, "a", "b"), plain_sample(lively, "a", "b" * length)])
            yield [drawn[-1]]

    log = train_lora(
        lively,
        epochs(),
        replace(CONFIG, max_tokens=budget),
        stage="one stage",
        progress=lambda *step: shown.append(step),
    )
    sizes = [sum(map(len, batch)) for batch in drawn]
    assert log.forward_tokens == sum(sizes)
    assert sum(sizes[:-1]) < budget <= sum(sizes)  # over by less than the last batch
    assert log.optimizer_steps == len(drawn) == len(log.losses["lm"])
    assert shown[-1] == ("one stage", budget, budget)


def test_steps_under_gradient_accumulation(lively: Backbone) -> None:
    size = sum(len(sample) for batch in batches_of(lively) for sample in batch)
    log = fit(lively, replace(CONFIG, max_tokens=4 * size, gradient_accumulation_steps=4))
    assert len(log.losses["lm"]) == 8
    assert log.optimizer_steps == 2


def test_training_ends_with_the_data(lively: Backbone) -> None:
    seen: list[int] = []
    epochs = iter([batches_of(lively)] * 2)
    log = train_lora(lively, epochs, CONFIG, stage="", memory=term(lively), on_epoch_end=seen.append)
    size = sum(len(sample) for batch in batches_of(lively) for sample in batch)
    assert log.forward_tokens == 2 * size < CONFIG.max_tokens
    assert seen == [1, 2]


def test_epochs_without_samples_end_at_once(lively: Backbone) -> None:
    before = weights_of(lively)
    log = train_lora(lively, itertools.repeat([]), CONFIG, stage="")
    assert (log.forward_tokens, log.optimizer_steps) == (0, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(lively).items())


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    rates = [_schedule(share / 100) for share in range(101)]
    assert rates[0] == rates[-1] == 0.0
    assert max(rates) == rates[10] == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


# The two losses, by hand.


def losses_of(backbone: Backbone, samples: list[Sample], memory: MemoryTerm) -> dict[str, float]:
    with torch.no_grad():
        losses = MemoryLM(backbone.model, memory)(collate(samples, backbone.tokenizer.pad_token_id, CPU))
    return {name: float(value) for name, value in losses.items()}


@torch.no_grad()
def by_hand(backbone: Backbone, sample: Sample, bank: MemoryBank) -> tuple[float, float]:
    """Summed token loss and retrieval loss of one sample, position by position."""
    embeds = backbone.model.get_input_embeddings()(torch.tensor([sample.input_ids])).clone()
    if sample.pad_position >= 0:
        for place, vector in enumerate(bank.memory_embeddings(sample.memory_index), start=sample.pad_position):
            embeds[0, place] = vector
    output = backbone.model(inputs_embeds=embeds, output_hidden_states=True)
    log_probs = output.logits[0].log_softmax(dim=-1)
    token_loss = -sum(
        float(log_probs[position - 1, label]) for position, label in enumerate(sample.labels) if label != IGNORE
    )
    if sample.recall_position < 0:
        return token_loss, 0.0
    cosines = F.cosine_similarity(output.hidden_states[-1][0, sample.recall_position][None], bank.keys_MD)
    return token_loss, -float((cosines / TAU).log_softmax(dim=-1)[sample.memory_index])


def test_losses_match_those_by_hand(lively: Backbone) -> None:
    bank = random_bank(lively)
    samples = [sample for batch in batches_of(lively) for sample in batch]
    found = losses_of(lively, samples, term(lively))
    single = [by_hand(lively, sample, bank) for sample in samples]
    learnt = sum(label != IGNORE for sample in samples for label in sample.labels)
    assert found["lm"] == pytest.approx(sum(lm for lm, _ in single) / learnt, rel=1e-4)
    assert found["retrieval"] == pytest.approx(sum(retrieval for _, retrieval in single) / 2, rel=1e-4)


def test_several_vectors_are_fed_one_after_another(lively: Backbone) -> None:
    """Each under a pad of its own, none of which is predicted."""
    bank = random_bank(lively, num_vectors=3)
    samples = [recall_sample(lively, "Where?", "In Cork.", 1, num_pads=3), plain_sample(lively, "Who?", "Ann.")]
    pad = samples[0].pad_position
    assert samples[0].input_ids[pad : pad + 4].count(lively.ids.memory_pad) == 3
    assert samples[0].labels[pad : pad + 3] == (IGNORE,) * 3
    found = losses_of(lively, samples, term_of(bank))
    single = [by_hand(lively, sample, bank) for sample in samples]
    learnt = sum(label != IGNORE for sample in samples for label in sample.labels)
    assert found["lm"] == pytest.approx(sum(lm for lm, _ in single) / learnt, rel=1e-4)


def test_a_weighted_token_counts_as_often_as_its_weight(lively: Backbone) -> None:
    """Weight 0 is no label; the mean is over weights, not tokens."""
    sample = plain_sample(lively, "how far is it?", "it is seven miles")
    learnt = [i for i, label in enumerate(sample.labels) if label != IGNORE]

    def lm(labelled: list[int], weights: dict[int, float] | None = None) -> float:
        labels = tuple(label if i in labelled else IGNORE for i, label in enumerate(sample.labels))
        given = () if weights is None else tuple(weights.get(i, 1.0) for i in range(len(sample)))
        return losses_of(lively, [replace(sample, labels=labels, loss_weights=given)], term(lively))["lm"]

    first, rest = learnt[:1], learnt[1:]
    assert lm(learnt, {first[0]: 0.0}) == pytest.approx(lm(rest), rel=1e-5)
    assert lm(learnt, {}) == pytest.approx(lm(learnt), rel=1e-5)
    mixed = (0.25 * lm(first) + len(rest) * lm(rest)) / (0.25 + len(rest))
    assert lm(learnt, {first[0]: 0.25}) == pytest.approx(mixed, rel=1e-5)


def test_a_loss_that_nothing_asks_for_is_absent(lively: Backbone) -> None:
    plain = losses_of(lively, batches_of(lively)[0], term(lively))
    assert plain.keys() == {"lm"}
    query = supervised(
        [5, 6], [lively.ids.think, lively.ids.recall], "query", recall=1, memory_index=3, target_loss_from=2
    )
    assert losses_of(lively, [query], term(lively)).keys() == {"retrieval"}


def test_the_pads_own_embedding_is_never_read(lively: Backbone) -> None:
    bank, samples = random_bank(lively), batches_of(lively)[1]
    before = losses_of(lively, samples, term_of(bank))
    others = losses_of(lively, samples, MemoryTerm(bank.keys_MD, bank.values_MPD.roll(1, dims=0), bank.gain))
    assert others["retrieval"] == before["retrieval"]
    assert others["lm"] != pytest.approx(before["lm"], rel=1e-5)
    for sample in samples:  # the head's row must stay, so the token is changed instead
        ids = list(sample.input_ids)
        ids[sample.pad_position] = 7
        changed = replace(sample, input_ids=tuple(ids))
        assert losses_of(lively, [changed], term_of(bank)) == losses_of(lively, [sample], term_of(bank))


# In bf16.


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps one precision a process; other tests train in fp32."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_bf16_weights_train_under_bf16_autocast(fresh_accelerate: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """4.3: Accelerate with bf16 and accumulation; LoRA stays fp32, the merged model bf16."""
    from accelerate import Accelerator

    made: list[tuple[str, int]] = []

    class Noted(Accelerator):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append((self.mixed_precision, self.gradient_accumulation_steps))

    dtypes: set[torch.dtype] = set()

    def look(_epoch: int) -> None:
        dtypes.update(p.dtype for name, p in backbone.model.named_parameters() if "lora_" in name)

    monkeypatch.setattr("accelerate.Accelerator", Noted)
    monkeypatch.setattr("methods.train.WARMUP", 0.0001)
    backbone = load_backbone("tiny", device="cpu", dtype="bfloat16")
    before = backbone.model.model.layers[0].self_attn.q_proj.weight.clone()
    config = LoraTrainConfig(max_tokens=10**6, learning_rate=5e-2, gradient_accumulation_steps=2)
    log = train_lora(
        backbone,
        iter([batches_of(backbone)] * 4),
        config,
        stage="",
        memory=term(backbone),
        on_epoch_end=look,
    )
    assert made == [("bf16", 2)]
    assert (len(log.losses["lm"]), log.optimizer_steps) == (8, 4)
    assert dtypes == {torch.float32}
    assert {p.dtype for p in backbone.model.parameters()} == {torch.bfloat16}
    assert not torch.equal(backbone.model.model.layers[0].self_attn.q_proj.weight, before)
    assert all(torch.isfinite(torch.tensor(values)).all() for values in log.losses.values())


# The retrieval loss.


def keys_and_queries(num_memories: int = 5, num_queries: int = 4, width: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(num_memories, width, generator=generator), dim=-1)
    return keys, torch.randn(num_queries, width, generator=generator)


def test_twins_are_no_negatives() -> None:
    """Two memories that no question tells apart: the loss is what it is without the twin."""
    keys_MD = F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    query_ND = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    index_N = torch.zeros(4, dtype=torch.long)
    kind_M = torch.tensor([0, 0, 1])

    def loss(keys: torch.Tensor, kinds: torch.Tensor | None) -> torch.Tensor:
        term = MemoryTerm(keys, keys[:, None], 1.0, kind_M=kinds)
        return term.retrieval_loss(query_ND, index_N)

    assert torch.allclose(loss(keys_MD, kind_M), loss(keys_MD[[0, 2]], None))
    assert not torch.allclose(loss(keys_MD, None), loss(keys_MD, kind_M))


def test_near_keys_are_told_apart_under_autocast() -> None:
    """Cosines near 1 have steps of 0.004 in bf16, 0.08 in a logit; the loss is that of fp32."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.ones(4, 64) + 0.05 * torch.randn(4, 64, generator=generator)
    memory = MemoryTerm(keys, keys[:, None], 1.0)
    query, index = keys[:2] + 0.01, torch.tensor([0, 1])
    exact = memory.retrieval_loss(query, index)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(memory.retrieval_loss(query, index), exact)


# Memory vectors.


@pytest.mark.parametrize("train_values", [True, False])
@pytest.mark.parametrize("train_keys", [True, False])
def test_vectors_learn_only_where_asked(lively: Backbone, train_keys: bool, train_values: bool) -> None:
    """A value moves if it was injected; keys move with every query that they are weighed against."""
    bank, memory = random_bank(lively), term(lively, train_keys=train_keys, train_values=train_values)
    train_lora(lively, itertools.repeat(batches_of(lively)), CONFIG, stage="", memory=memory)
    moved = (memory.values_MPD.detach() - bank.values_MPD)[:, 0].norm(dim=-1) > 1e-4
    assert moved.nonzero().flatten().tolist() == ([1, 4] if train_values else [])
    assert bool(((memory.keys_MD.detach() - bank.keys_MD).norm(dim=-1) > 1e-4).any()) == train_keys


# Adapters.


def test_the_saved_adapter_restores_the_merged_model(pristine_lively: Backbone, tmp_path: Path) -> None:
    trained, restored = pristine_lively.clone(), pristine_lively.clone()
    fit(trained, target_modules=("q_proj", "v_proj"), adapter_to=tmp_path / "one")
    fit(trained, adapter_to=tmp_path / "two")
    merge_adapters(restored, [tmp_path / "one", tmp_path / "two"])
    ids = torch.tensor([[5, 6, 7, *trained.ids.new_rows, 9]])
    with torch.no_grad():
        logits = trained.model(ids).logits
        torch.testing.assert_close(restored.model(ids).logits, logits, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(pristine_lively.model(ids).logits, logits, atol=1e-2)
    assert not restored.model.training
    assert not any(p.requires_grad for p in restored.model.parameters())


def test_merging_changes_no_logit(pristine_lively: Backbone) -> None:
    backbone = pristine_lively.clone()
    ids = torch.tensor([[5, 6, 7, *backbone.ids.new_rows, 9]])
    seen: list[torch.Tensor] = []

    def look(_epoch: int) -> None:
        with torch.no_grad():
            seen.append(backbone.model(ids).logits)

    train_lora(backbone, iter([batches_of(backbone)]), CONFIG, stage="", memory=term(backbone), on_epoch_end=look)
    with torch.no_grad():
        torch.testing.assert_close(backbone.model(ids).logits, seen[-1], atol=1e-4, rtol=1e-4)


def test_a_folder_without_an_adapter_is_named(lively: Backbone, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="nowhere"):
        merge_adapters(lively, [tmp_path / "nowhere"])


# Killed and gone on.


def long_stage(backbone: Backbone, **options: Any) -> TrainLog:
    """What is drawn depends on the epoch, and two batches make a step."""
    epochs = (batches_of(backbone)[: 1 + n % 2] for n in itertools.count())
    memory = term(backbone, train_keys=True, train_values=True)
    config = replace(CONFIG, max_tokens=1500, gradient_accumulation_steps=2)
    log = train_lora(backbone, epochs, config, stage="test", memory=memory, **options)
    log.losses["vectors"] = [float(memory.keys_MD.sum()), float(memory.values_MPD.sum())]
    return log


def killed_at(step: int) -> Any:
    """Progress that ends the process, as it were, after so many batches."""
    steps = itertools.count(1)

    def progress(_stage: str, _done: int, _total: int) -> None:
        if next(steps) == step:
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def kept_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)


def alike(one: Backbone, other: Backbone) -> bool:
    return all(torch.equal(tensor, weights_of(other)[name]) for name, tensor in weights_of(one).items())


@pytest.mark.usefixtures("kept_at_every_step")
@pytest.mark.parametrize("kills", [(2, 3), (1, 1, 1, 4), (9,)])
def test_a_stage_that_is_killed_goes_on_as_if_it_had_not_been(
    pristine_lively: Backbone, tmp_path: Path, kills: tuple[int, ...]
) -> None:
    """The same weights, vectors, losses and counts as without the kills, in the middle of an epoch or a step."""
    whole, again = pristine_lively.clone(), pristine_lively.clone()
    expected = long_stage(whole)
    for step in kills:
        with pytest.raises(KeyboardInterrupt):
            long_stage(pristine_lively.clone(), checkpoints=tmp_path, progress=killed_at(step))
    found = long_stage(again, checkpoints=tmp_path)
    assert found.losses == expected.losses
    assert (found.forward_tokens, found.optimizer_steps) == (expected.forward_tokens, expected.optimizer_steps)
    assert found.samples == expected.samples
    assert alike(whole, again)
    assert found.earlier_s > 0.0 == expected.earlier_s and found.seconds > found.earlier_s


def test_a_stage_that_was_finished_is_not_trained_again(pristine_lively: Backbone, tmp_path: Path) -> None:
    """A kill behind it, in a later stage of the fit."""
    whole, again = pristine_lively.clone(), pristine_lively.clone()
    expected = long_stage(whole, checkpoints=tmp_path)
    shown: list[int] = []
    found = long_stage(again, checkpoints=tmp_path, progress=lambda _s, done, _t: shown.append(done))
    assert shown == [] and found.losses == expected.losses and alike(whole, again)


@pytest.mark.usefixtures("kept_at_every_step")
@pytest.mark.parametrize("damage", [lambda body: body[:-40], lambda body: b"\0" * len(body), lambda _: b""])
def test_a_damaged_checkpoint_is_named_and_the_stage_starts_anew(
    pristine_lively: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    with pytest.raises(KeyboardInterrupt):
        long_stage(pristine_lively.clone(), checkpoints=tmp_path, progress=killed_at(4))
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    whole, again = pristine_lively.clone(), pristine_lively.clone()
    assert long_stage(whole).losses == long_stage(again, checkpoints=tmp_path).losses
    assert alike(whole, again)
    assert f"{file} is damaged" in caplog.text


def test_a_loss_that_is_no_number_ends_the_stage_with_its_step_and_samples(
    pristine_lively: Backbone, tmp_path: Path
) -> None:
    """And is never kept: a state in which every weight is none would be gone on from."""
    backbone = pristine_lively.clone()
    bad = [replace(sample, source="bad") for sample in batches_of(backbone)[0]]
    with torch.no_grad():
        backbone.model.get_input_embeddings().weight[bad[0].input_ids[-2]] = float("nan")
    told = r"^a stage: the lm loss is nan at step 1, after 0 tokens, on samples from bad \(2\); lower train"
    with pytest.raises(MethodError, match=told):
        train_lora(backbone, iter([[bad]]), CONFIG, stage="a stage", checkpoints=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("device", "expected"), [("cuda", [READ_EVERY]), ("cpu", [1] * READ_EVERY)])
def test_on_a_card_losses_are_read_many_at_once(
    device: str, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read one is to wait for all that was launched."""
    accelerator, log = SimpleNamespace(device=torch.device(device), num_processes=1), TrainLog()
    losses = _Losses(accelerator, "stage", log)
    stack, sizes = torch.stack, []
    monkeypatch.setattr(torch, "stack", lambda values: (sizes.append(len(values)), stack(values))[1])
    for number in range(READ_EVERY):
        losses.add({"lm": torch.tensor(float(number))}, [])
    assert sizes == expected
    assert log.losses["lm"] == [float(number) for number in range(READ_EVERY)]
