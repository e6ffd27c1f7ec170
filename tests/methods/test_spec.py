"""The literal recipe: its samples, its segments, its fit, and what else the specification says of recall."""

from __future__ import annotations

import itertools
import json
import logging
import random
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model_script import last_state, random_bank, says, scripted, spied

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_text
from methods.decode import Clock, generate, serially
from methods.recall import generation, spec
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.generation import AutoregressiveRecall, RecallMechanism
from methods.recall.recipe import train_step
from methods.recall.spec import (
    MixedMemorySFTDataset,
    SpecRecallConfig,
    SpecRecallMethod,
    extract_think,
    sample_think_segments,
    segment_epochs,
    segment_sample,
)
from methods.samples import IGNORE, Sample, conversation_sample
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig
from tasks.base import Conversation, Memory, Message, TaskData
from tasks.examples import general

PROMPT = [40, 41, 42, 43]


def bank_of(backbone: Backbone, memories: list[Memory]) -> MemoryBank:
    bank = MemoryBank(torch.zeros(backbone.facts.hidden_size), 1.0, "")
    vectors = torch.randn(len(memories), backbone.facts.hidden_size, generator=torch.Generator().manual_seed(0))
    bank.write([m.id for m in memories], [m.text for m in memories], vectors, list(vectors[:, None]))
    return bank


def dataset_of(
    backbone: Backbone,
    task: TaskData,
    config: SpecRecallConfig | None = None,
    seed: int = 0,
    conversations: list[Conversation] | None = None,
) -> MixedMemorySFTDataset:
    memories = list(task.memories)
    bank = bank_of(backbone, memories)
    conversations = conversations or general(task.sft)
    return MixedMemorySFTDataset(backbone, bank, memories, conversations, config or SpecRecallConfig(), 384, seed)


def conversations_of(lengths: list[int]) -> list[Conversation]:
    return [
        Conversation(f"c{i}", (Message("user", "q"), Message("assistant", f"<think>\n{'x' * n}\n</think>\nA")))
        for i, n in enumerate(lengths)
    ]


def text_of(backbone: Backbone, ids: tuple[int, ...]) -> str:
    return str(backbone.tokenizer.decode(list(ids)))


def test_an_epoch_is_one_and_a_half_times_the_memories_in_three_equal_parts(
    pristine: Backbone, regs: TaskData
) -> None:
    samples = dataset_of(pristine, regs).refresh_epoch_data()
    assert len(samples) == 9  # 1.5 x 6 memories
    assert Counter(s.kind for s in samples) == {"memory_front": 3, "memory_full": 3, "sft_only": 3}
    dealt = [s.memory_index for s in samples if s.memory_index >= 0]
    assert len(dealt) == len(set(dealt))  # shuffled and dealt out: none twice while others wait


def test_label_rules(pristine: Backbone, regs: TaskData) -> None:
    """<recall> is labelled in both memory types, the pad never; text and </recall> are learnt."""
    ids = pristine.ids
    data = dataset_of(pristine, regs)
    for sample in (s for _ in range(4) for s in data.refresh_epoch_data()):
        if sample.kind == "sft_only":
            assert not {ids.recall, ids.memory_pad, ids.recall_end} & set(sample.input_ids)
            continue
        pad = sample.pad_position
        assert sample.input_ids[pad] == ids.memory_pad and sample.labels[pad] == IGNORE
        assert sample.input_ids[pad - 1] == sample.labels[pad - 1] == ids.recall
        assert set(sample.labels[: pad - 1]) == {IGNORE}
        assert sample.labels[pad + 1 :] == sample.input_ids[pad + 1 :]
        end = sample.input_ids.index(ids.recall_end)
        assert text_of(pristine, sample.input_ids[pad + 1 : end]) == data.bank.texts[sample.memory_index]
        assert sample.recall_position == -1  # Step 2 has no loss on the query


def test_memory_full_goes_on_with_the_same_conversation(pristine: Backbone, regs: TaskData) -> None:
    """Without the recall, prefix and suffix are one SFT sample."""
    data = dataset_of(pristine, regs, conversations=general(regs.sft)[:9])
    wholes = {
        text_of(pristine, data_sample.input_ids)
        for data_sample in (conversation_sample(pristine, c) for c in data.conversations)
    }
    for sample in (s for s in data.refresh_epoch_data() if s.kind == "memory_full"):
        start, end = sample.pad_position - 1, sample.input_ids.index(pristine.ids.recall_end)
        rest = text_of(pristine, sample.input_ids[end + 1 :]).removeprefix("\n")
        assert text_of(pristine, sample.input_ids[:start]) + rest in wholes


def test_memory_front_ends_with_the_memory(pristine: Backbone, regs: TaskData) -> None:
    fronts = [s for s in dataset_of(pristine, regs).refresh_epoch_data() if s.kind == "memory_front"]
    assert all(s.input_ids[-1] == pristine.ids.recall_end for s in fronts)


def test_fewer_types_share_the_epoch(pristine: Backbone, regs: TaskData) -> None:
    only = dataset_of(pristine, regs, SpecRecallConfig(sample_types=("memory_front",))).refresh_epoch_data()
    assert Counter(s.kind for s in only) == {"memory_front": 9}
    assert Counter(s.memory_index for s in only).most_common()[-1][1] == 1  # all six are dealt


@pytest.mark.parametrize("types", [(), ("memory_back",)])
def test_unknown_types_are_refused_with_the_choices(types: tuple[str, ...]) -> None:
    with pytest.raises(MethodError, match="memory_front, memory_full, sft_only"):
        SpecRecallConfig(sample_types=types)


def test_every_epoch_is_drawn_afresh_and_seeds_decide(pristine: Backbone, regs: TaskData) -> None:
    def draw(seed: int) -> list[set[Sample]]:
        return [
            {s for batch in epoch for s in batch}
            for epoch in itertools.islice(dataset_of(pristine, regs, seed=seed).epochs(), 2)
        ]

    first, second = draw(0)
    assert first != second
    assert draw(0) == [first, second]
    assert draw(1)[0] != first


def test_too_long_conversations_are_replaced(pristine: Backbone, regs: TaskData) -> None:
    config = SpecRecallConfig(sft_max_tokens=120)
    data = dataset_of(pristine, regs, config, conversations=conversations_of([10, 900] * 9))
    assert data.sampler._is_sft_within_token_limit(data.conversations[0])[0]
    assert not data.sampler._is_sft_within_token_limit(data.conversations[1])[0]
    for _ in range(3):
        assert all(index % 2 == 0 for index in data.sampler._sample_sft_for_epoch(9))


def test_too_few_samples_is_an_error_with_the_numbers(pristine: Backbone, regs: TaskData) -> None:
    config = SpecRecallConfig(sft_max_tokens=120)
    data = dataset_of(pristine, regs, config, conversations=conversations_of([10, 900, 900] * 2))
    with pytest.raises(MethodError, match=r"needs 9 .* at most 120 tokens .* found 2 of 6"):
        data.refresh_epoch_data()


def test_original_indices_types_positions_and_lengths_are_logged(
    pristine: Backbone, regs: TaskData, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "methods.recall.mixture"):
        samples = dataset_of(pristine, regs).refresh_epoch_data()
    for name in ("memory_front", "memory_full", "sft_only"):
        assert f"{name} original indices [" in caplog.text
    for sample in samples:
        assert f"{sample.kind}: memory at {sample.pad_position}, {len(sample)} tokens" in caplog.text


# Step 1: think segments.


def test_the_last_think_is_extracted(regs: TaskData) -> None:
    for conversation in general(regs.sft)[:20]:
        think = extract_think(conversation)
        assert think
        assert f"<think>\n{think}\n</think>" in conversation.messages[-1].content
    assert extract_think(Conversation("c", (Message("user", "q"), Message("assistant", "A")))) == ""


def test_segments_over_the_limit_are_replaced_and_too_few_is_an_error(pristine: Backbone) -> None:
    conversations = conversations_of([5, 900, 7, 900, 9])
    found = sample_think_segments(pristine, conversations, 3, 50, random.Random(0))
    assert sorted(s.index for s in found) == [0, 2, 4]
    assert all(len(encode_text(pristine.tokenizer, s.text)) <= 50 for s in found)
    with pytest.raises(MethodError, match=r"needs 4 .* found 3 in 5"):
        sample_think_segments(pristine, conversations, 4, 50, random.Random(0))


def test_recall_stands_behind_its_segment_and_no_token_is_learnt(pristine: Backbone, regs: TaskData) -> None:
    conversations = general(regs.sft)
    segments = sample_think_segments(pristine, conversations, 4, 500, random.Random(1))
    bank = bank_of(pristine, [Memory(s.id, s.text) for s in segments])
    for segment in segments:
        sample = segment_sample(pristine, conversations[segment.index], segment, bank)
        assert sample.input_ids[-1] == pristine.ids.recall
        assert sample.recall_position == len(sample) - 1
        assert text_of(pristine, sample.input_ids[:-1]).endswith(f"<think>\n{segment.text}")
        assert bank.texts[sample.memory_index] == segment.text
        assert set(sample.labels) == {IGNORE}
    epoch = next(segment_epochs(pristine, bank, segments, conversations, 384, 0))
    assert Counter(s.memory_index for batch in epoch for s in batch) == dict.fromkeys(range(4), 1)


def thinking(*thinks: str) -> list[Conversation]:
    return [
        Conversation(f"c{i}", (Message("user", "q"), Message("assistant", f"<think>\n{think}\n</think>\nA")))
        for i, think in enumerate(thinks)
    ]


def test_segments_are_drawn_in_random_order(pristine: Backbone) -> None:
    """4.2, 5.1."""
    conversations = thinking(*(f"step {i}" for i in range(12)))

    def draw(seed: int) -> list[int]:
        return [s.index for s in sample_think_segments(pristine, conversations, 9, 50, random.Random(seed))]

    assert draw(0) == draw(0)
    assert len({tuple(draw(seed)) for seed in range(4)}) == 4
    assert all(len(set(draw(seed))) == 9 and draw(seed) != sorted(draw(seed)) for seed in range(4))


def test_step_1_teaches_recall_to_find_its_segment(lively: Backbone, tmp_path: Path) -> None:
    """4.1, 4.2: with LoRA on Q and V alone, no token learnt and no vector moved."""
    conversations = thinking("oak and ash", "two and two", "rain at noon", "the old road")
    segments = sample_think_segments(lively, conversations, 4, 50, random.Random(0))
    bank = bank_of(lively, [Memory(s.id, s.text) for s in segments])
    keys = bank.keys_MD.clone()

    def hits() -> int:
        found = 0
        for segment in segments:
            sample = segment_sample(lively, conversations[segment.index], segment, bank)
            state = last_state(lively, list(sample.input_ids))
            found += int(bank.memory_head(state[None]).argmax()) == sample.memory_index
        return found

    assert hits() < 4
    config = LoraTrainConfig(max_tokens=30_000, learning_rate=5e-3, batch_tokens=512)
    epochs = segment_epochs(lively, bank, segments, conversations, config.batch_tokens, 0)
    log = train_step(MethodSetup(lively, folder=tmp_path), "step1", bank, epochs, config, learn_vectors=False)
    assert set(log.losses) == {"retrieval"}
    assert hits() == 4
    assert torch.equal(bank.keys_MD, keys)


# The fit.


def method_of(backbone: Backbone, folder: Path, config: SpecRecallConfig | None = None) -> SpecRecallMethod:
    return SpecRecallMethod(MethodSetup(backbone, LoraTrainConfig(max_tokens=2500), folder=folder), config)


def test_spec_bank_is_plain(pristine_lively: Backbone, regs: TaskData, tmp_path: Path) -> None:
    """Last-token states, L2-normalised, not centred; injected with norm 1; raw cosines; no null memory."""
    method = method_of(pristine_lively.clone(), tmp_path)
    bank = method._make_bank(regs.memories)
    assert bank.ids == [m.id for m in regs.memories]
    assert not bank.center_D.any()
    assert bank.gain == 1.0
    torch.testing.assert_close(bank.keys_MD.norm(dim=-1), torch.ones(len(bank)))
    assert torch.equal(torch.stack(bank.fed), bank.keys_MD[:, None])
    assert method.logit_scale == 1.0


def test_spec_fit_measures_its_gate_and_drops_the_segments(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path
) -> None:
    method = method_of(pristine_lively.clone(), tmp_path)
    report = method.fit(regs.memories, regs.sft)
    assert method.bank is not None
    assert method.bank.ids == [m.id for m in regs.memories]
    assert 0.0 <= report.notes["segment_hit_at_1"] <= 1.0
    assert set(report.curves) == {"step1/retrieval", "step2/lm"}  # Step 2 has no loss on the query
    assert torch.equal(torch.stack(method.bank.fed), method.bank.keys_MD[:, None])  # untouched by training


def test_spec_without_step1(pristine_lively: Backbone, regs: TaskData, tmp_path: Path) -> None:
    config = SpecRecallConfig(step1_share=0.0, sample_types=("memory_front",))
    method = method_of(pristine_lively.clone(), tmp_path / "fit", config)
    report = method.fit(regs.memories, regs.sft)
    assert set(report.curves) == {"step2/lm"}
    method.save(tmp_path / "saved")
    again = method_of(pristine_lively.clone(), tmp_path / "again", config)
    again.load(tmp_path / "saved")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(again.backbone.model(ids).logits, method.backbone.model(ids).logits)


def test_a_written_memory_has_its_texts_own_vector(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path
) -> None:
    """Nothing is optimised: key and value are what a fit's would be."""
    method = method_of(replace(pristine_lively.clone(), origin=pristine_lively), tmp_path)
    whole = method._make_bank(regs.memories)
    method.bank = method._make_bank(regs.memories[1:])
    report = method.write(regs.memories[:1])
    assert (report.trained_tokens, report.exact, report.inexact) == (0, (), ())
    row = method.bank.index(regs.memories[0].id)
    torch.testing.assert_close(method.bank.keys_MD[row], whole.keys_MD[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(method.bank.fed[row], whole.fed[0], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_fit_by_the_letter(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.5 segments a memory; Q and V in Step 1; each epoch drawn afresh and tested; LoRA merged."""
    segments: list[int] = []
    epochs: list[list[Sample]] = []
    tested: list[float] = []
    draw, refresh = spec.sample_think_segments, MixedMemorySFTDataset.refresh_epoch_data
    recite = spec.test_memory_recall

    def counted_draw(*args: Any) -> Any:
        found = draw(*args)
        segments.append(len(found))
        return found

    def counted_refresh(self: MixedMemorySFTDataset) -> list[Sample]:
        epochs.append(refresh(self))
        return epochs[-1]

    def counted_recite(*args: Any, **options: Any) -> float:
        tested.append(recite(*args, **options))
        return tested[-1]

    monkeypatch.setattr(spec, "sample_think_segments", counted_draw)
    monkeypatch.setattr(MixedMemorySFTDataset, "refresh_epoch_data", counted_refresh)
    monkeypatch.setattr(spec, "test_memory_recall", counted_recite)
    setup = MethodSetup(pristine_lively.clone(), LoraTrainConfig(max_tokens=16_000), folder=tmp_path)
    method = spec.SpecRecallMethod(setup)
    method.fit(regs.memories, regs.sft)
    assert segments == [round(1.5 * len(regs.memories))]
    assert len(tested) == len(epochs) >= 2
    assert all(0.0 <= share <= 1.0 for share in tested)
    facts = pristine_lively.facts
    for stage, targets in (("step1", facts.query_value_targets), ("step2", facts.lora_targets)):
        saved = json.loads((tmp_path / "adapters" / stage / "adapter_config.json").read_text(encoding="utf-8"))
        assert set(saved["target_modules"]) == set(targets)
    assert method.backbone.model.state_dict().keys() == pristine_lively.model.state_dict().keys()


# Recall while decoding (`methods.recall.generation`).


def axes() -> MemoryBank:
    """Memory n lies on axis n, and is fed as that axis times 2."""
    bank = MemoryBank(torch.zeros(8), 2.0, "")
    names = [f"m{n}" for n in range(8)]
    bank.write(names, names, torch.eye(8), list(2.0 * torch.eye(8)[:, None]))
    return bank


def test_candidates_are_logged_best_first_and_ten_at_most(
    pristine: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    """3.2: the debug print."""
    mechanism = RecallMechanism(axes(), pristine, AutoregressiveRecall())
    mechanism.begin(1, Clock(torch.device("cpu"), enabled=False))
    with caplog.at_level(logging.DEBUG, "methods.recall.generation"):
        (given,) = mechanism.give([0], torch.tensor([[0.1, 0.9, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0]]))
    said = [record.getMessage() for record in caplog.records]
    best = [
        "recall candidate m1 cosine 0.909",
        "recall candidate m2 cosine 0.404",
        "recall candidate m0 cosine 0.101",
    ]
    assert said[:3] == best
    assert len(said) == 8
    assert torch.equal(given.vectors_PD, 2.0 * torch.eye(8)[1:2])
    mechanism = RecallMechanism(random_bank(pristine, size=12), pristine, AutoregressiveRecall())
    mechanism.begin(1, Clock(torch.device("cpu"), enabled=False))
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "methods.recall.generation"):
        mechanism.give([0], torch.randn(1, pristine.facts.hidden_size))
    assert len(caplog.records) == len(mechanism.events[0][0].candidates) == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_vector_is_fed_as_one_position_in_the_models_dtype(lively: Backbone, dtype: torch.dtype) -> None:
    """3.4: [1, 1, hidden_dim], and no second time."""
    lively.model.to(dtype)
    bank = random_bank(lively)
    mechanism = RecallMechanism(bank, lively, AutoregressiveRecall(), force_memory=[3])
    with spied(lively) as feed, serially():
        generate(lively, [[*PROMPT, lively.ids.recall]], 5, mechanism=mechanism)
    fed = [embeds for embeds in feed.inputs_embeds if embeds is not None]
    assert [(tuple(embeds.shape), embeds.dtype) for embeds in fed] == [((1, 1, lively.facts.hidden_size), dtype)]
    assert torch.equal(fed[0][0], bank.memory_embeddings(3).to(dtype))
    assert feed.inputs_embeds[1] is fed[0] and feed.input_ids[1] is None


def test_after_a_recall_the_cache_holds_the_memory(lively: Backbone) -> None:
    """2.3: token by token or several at a time, it goes on as one forward of the whole sequence says."""
    bank = random_bank(lively, num_vectors=2)
    prompt = [*PROMPT, lively.ids.recall]
    for block in (nullcontext(), serially()):
        mechanism = RecallMechanism(bank, lively, AutoregressiveRecall())
        with block:
            (output,) = generate(lively, [prompt], 24, mechanism=mechanism)
        (event,) = mechanism.events[0]
        ids = torch.tensor([[*prompt, *output.token_ids]])
        pad = len(prompt)
        assert ids[0, pad : pad + 2].tolist() == [lively.ids.memory_pad] * 2
        embeds = lively.model.get_input_embeddings()(ids).detach().clone()
        embeds[0, pad : pad + 2] = bank.memory_embeddings(event.memory_index)
        with torch.no_grad():
            logits = lively.model(inputs_embeds=embeds).logits[0]
        logits[:, lively.ids.memory_pad] = -torch.inf  # never chosen
        assert logits[pad + 1 : -1].argmax(dim=-1).tolist() == list(output.token_ids[2:])


def test_recitation_is_tested_from_true_vectors_with_the_pad_last(lively: Backbone) -> None:
    """4.3: the pad at len(full_input_tokens) - 1, the memory's own vector under it, the null memory left out."""
    ids = lively.ids
    bank = random_bank(lively, size=3)
    bank.ids, bank.texts = [NULL_ID, "m1", "m2"], ["nothing", "ab", "cd"]
    with spied(lively) as feed, scripted(lively, says(lively, "?", "ab", ids.recall_end)):
        assert generation.test_memory_recall(lively, bank, "What?") == 0.5
    prompt, fed = feed.input_ids[0], feed.inputs_embeds[1]
    assert prompt is not None and fed is not None
    full_input_tokens = [*prompt[0].tolist(), ids.memory_pad]
    assert prompt[:, -1].tolist() == [ids.recall] * 2
    assert full_input_tokens.index(ids.memory_pad) == len(full_input_tokens) - 1
    assert torch.equal(fed, torch.stack([bank.memory_embeddings(1), bank.memory_embeddings(2)]))
    with scripted(lively, says(lively, "?", "ab", ids.recall_end)):
        assert generation.test_memory_recall(lively, bank, "What?", limit=1) == 1.0


def test_many_memories_are_recited_in_batches(lively: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """4.3: the same share, whatever the batch; no batch is larger than asked."""
    ids, sizes, generated = lively.ids, [], generation.generate
    bank = random_bank(lively, size=6)
    bank.ids, bank.texts = [NULL_ID, *bank.ids[1:]], ["nothing", "ab", "cd", "ab", "ab", "cd"]

    def counted(backbone: Backbone, prompts: list[list[int]], *args: Any, **options: Any) -> Any:
        sizes.append(len(prompts))
        with scripted(lively, says(lively, "?", "ab", ids.recall_end)):
            return generated(backbone, prompts, *args, **options)

    monkeypatch.setattr(generation, "generate", counted)
    assert generation.test_memory_recall(lively, bank, "What?") == 3 / 5
    monkeypatch.setattr(generation, "BATCH_SIZE", 2)
    assert generation.test_memory_recall(lively, bank, "What?") == 3 / 5
    assert sizes == [5, 2, 2, 1]
