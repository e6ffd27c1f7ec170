"""The specification's samples: what is labelled, what is injected, equal parts, drawn afresh (4.2, 4.3, 5)."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter

import pytest
import torch
from methods.recall.mixed_dataset import MixedMemorySFTDataset, SpecMixture
from methods.recall.segments import (
    extract_think,
    sample_think_segments,
    segment_epochs,
    segment_sample,
)

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import IGNORE, Sample, encode_text
from methods.examples import general
from methods.recall.bank import MemoryBank
from tasks.base import Conversation, Memory, Message, TaskData


def bank_of(backbone: Backbone, memories: list[Memory]) -> MemoryBank:
    bank = MemoryBank(torch.zeros(backbone.hidden_size), 1.0, "")
    vectors = torch.randn(len(memories), backbone.hidden_size, generator=torch.Generator().manual_seed(0))
    bank.write([m.id for m in memories], [m.text for m in memories], vectors, vectors)
    return bank


def dataset_of(
    backbone: Backbone,
    task: TaskData,
    mixture: SpecMixture | None = None,
    seed: int = 0,
    conversations: list[Conversation] | None = None,
) -> MixedMemorySFTDataset:
    memories = list(task.memories)
    return MixedMemorySFTDataset(
        backbone,
        bank_of(backbone, memories),
        memories,
        conversations or general(task.sft),
        mixture or SpecMixture(),
        384,
        seed,
    )


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
        for data_sample in (_sft_only(pristine, c) for c in data.conversations)
    }
    for sample in (s for s in data.refresh_epoch_data() if s.kind == "memory_full"):
        start, end = sample.pad_position - 1, sample.input_ids.index(pristine.ids.recall_end)
        rest = text_of(pristine, sample.input_ids[end + 1 :]).removeprefix("\n")
        assert text_of(pristine, sample.input_ids[:start]) + rest in wholes


def _sft_only(backbone: Backbone, conversation: Conversation) -> Sample:
    from methods.samples import conversation_sample

    return conversation_sample(backbone, conversation)


def test_memory_front_ends_with_the_memory(pristine: Backbone, regs: TaskData) -> None:
    fronts = [s for s in dataset_of(pristine, regs).refresh_epoch_data() if s.kind == "memory_front"]
    assert all(s.input_ids[-1] == pristine.ids.recall_end for s in fronts)


def test_fewer_types_share_the_epoch(pristine: Backbone, regs: TaskData) -> None:
    only = dataset_of(pristine, regs, SpecMixture(sample_types=("memory_front",))).refresh_epoch_data()
    assert Counter(s.kind for s in only) == {"memory_front": 9}
    assert Counter(s.memory_index for s in only).most_common()[-1][1] == 1  # all six are dealt


@pytest.mark.parametrize("types", [(), ("memory_back",)])
def test_unknown_types_are_refused_with_the_choices(types: tuple[str, ...]) -> None:
    with pytest.raises(MethodError, match="memory_front, memory_full, sft_only"):
        SpecMixture(sample_types=types)


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
    mixture = SpecMixture(sft_max_tokens=120)
    data = dataset_of(pristine, regs, mixture, conversations=conversations_of([10, 900] * 9))
    assert data.sampler._is_sft_within_token_limit(data.conversations[0])[0]
    assert not data.sampler._is_sft_within_token_limit(data.conversations[1])[0]
    for _ in range(3):
        assert all(index % 2 == 0 for index in data.sampler._sample_sft_for_epoch(9))


def test_too_few_samples_is_an_error_with_the_numbers(pristine: Backbone, regs: TaskData) -> None:
    mixture = SpecMixture(sft_max_tokens=120)
    data = dataset_of(pristine, regs, mixture, conversations=conversations_of([10, 900, 900] * 2))
    with pytest.raises(MethodError, match=r"needs 9 .* at most 120 tokens .* found 2 of 6"):
        data.refresh_epoch_data()


def test_original_indices_types_positions_and_lengths_are_logged(
    pristine: Backbone, regs: TaskData, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "methods.recall.mixed_dataset"):
        samples = dataset_of(pristine, regs).refresh_epoch_data()
    for name in ("memory_front", "memory_full", "sft_only"):
        assert f"{name} original indices [" in caplog.text
    for sample in samples:
        assert f"{sample.kind}: memory at {sample.pad_position}, {len(sample)} tokens" in caplog.text


# Step 1: think segments.


def test_think_is_extracted_through_the_chat_template(pristine: Backbone, regs: TaskData) -> None:
    for conversation in general(regs.sft)[:20]:
        think = extract_think(pristine, conversation)
        assert think
        assert f"<think>\n{think}\n</think>" in conversation.messages[-1].content
    assert extract_think(pristine, Conversation("c", (Message("user", "q"), Message("assistant", "A")))) == ""


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
