"""Sentences of the specification that no other test holds, each by its section."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from methods.recall.mixed_dataset import MixedMemorySFTDataset
from methods.recall.segments import sample_think_segments, segment_epochs, segment_sample
from methods.recall.stage1 import train_recall_token
from model_script import random_bank, says, scripted, spied
from test_recall_generation import PROMPT, axes, recall_at
from test_train import CONFIG, batches_of, term

from methods.backbone import Backbone, load_backbone
from methods.chat import Sample
from methods.decode import Clock
from methods.recall import spec, stage2
from methods.recall.bank import NULL_ID
from methods.recall.generation import AutoregressiveRecall, RecallInterceptor
from methods.setup import MethodSetup
from methods.train import ALL_LINEAR, QUERY_VALUE, LoraTrainConfig, no_progress, train_lora
from tasks.base import Conversation, Message, TaskData


def asked_once(backbone: Backbone, config: AutoregressiveRecall) -> RecallInterceptor:
    """An interceptor after one <recall> whose state lies between memories m1 (0.909) and m2 (0.404)."""
    interceptor = RecallInterceptor(axes(8), backbone.ids, config)
    interceptor.begin(1, Clock(torch.device("cpu"), enabled=False))
    state = torch.tensor([[0.1, 0.9, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0]])
    interceptor.after_forward(torch.tensor([[5, backbone.ids.recall]]), state)
    return interceptor


def thinking(*thinks: str) -> list[Conversation]:
    return [
        Conversation(f"c{i}", (Message("user", "q"), Message("assistant", f"<think>\n{think}\n</think>\nA")))
        for i, think in enumerate(thinks)
    ]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_as_many_candidates_are_printed_as_asked_for(
    pristine: Backbone, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    """3.2: the debug print, best first; off unless asked for."""
    with caplog.at_level(logging.INFO, "methods.recall.generation"):
        asked_once(pristine, AutoregressiveRecall(debug_top_k=count))
    best = ["recall candidate m1 cosine 0.909", "recall candidate m2 cosine 0.404"]
    assert [record.getMessage() for record in caplog.records] == best[:count]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_vector_is_fed_as_one_position_in_the_models_dtype(pristine: Backbone, dtype: torch.dtype) -> None:
    """3.4: [1, 1, hidden_dim], and no second time."""
    interceptor = asked_once(pristine, AutoregressiveRecall())
    pad = torch.tensor([[pristine.ids.memory_pad]])
    fed = interceptor.next_inputs_embeds(pad, lambda ids: torch.zeros(1, 1, 8, dtype=dtype))
    assert fed is not None
    assert fed.dtype == dtype
    assert torch.equal(fed, interceptor.bank.memory_embedding(1).to(dtype)[None, None])
    assert interceptor.next_inputs_embeds(pad, lambda ids: torch.zeros(1, 1, 8)) is None


def test_after_a_recall_the_cache_holds_the_memory(lively: Backbone) -> None:
    """2.3: step by step over the KV cache says what one forward of the whole sequence says."""
    bank = random_bank(lively)
    (output,), interceptor = recall_at(lively, bank, {(0, 2): lively.ids.recall})
    (event,) = interceptor.events[0]
    ids = torch.tensor([[*PROMPT, *output.token_ids]])
    pad = len(PROMPT) + 3
    assert ids[0, pad] == lively.ids.memory_pad
    embeds = lively.model.get_input_embeddings()(ids).detach().clone()
    embeds[0, pad] = bank.memory_embedding(event.memory_index)
    with torch.no_grad():
        logits = lively.model(inputs_embeds=embeds).logits[0]
    logits[:, [*lively.ids.new_rows, lively.ids.eos]] = -torch.inf  # as `scripted` has it
    assert logits[pad:-1].argmax(dim=-1).tolist() == list(output.token_ids[4:])


def test_segments_are_drawn_in_random_order(pristine: Backbone) -> None:
    """4.2, 5.1."""
    conversations = thinking(*(f"step {i}" for i in range(12)))

    def draw(seed: int) -> list[int]:
        return [s.index for s in sample_think_segments(pristine, conversations, 9, 50, random.Random(seed))]

    assert draw(0) == draw(0)
    assert len({tuple(draw(seed)) for seed in range(4)}) == 4
    assert all(len(set(draw(seed))) == 9 and draw(seed) != sorted(draw(seed)) for seed in range(4))


def test_step_1_teaches_recall_to_find_its_segment(lively: Backbone) -> None:
    """4.1, 4.2: with LoRA on Q and V alone and no token learnt."""
    conversations = thinking("oak and ash", "two and two", "rain at noon", "the old road")
    segments = sample_think_segments(lively, conversations, 4, 50, random.Random(0))
    bank = random_bank(lively, size=4)
    bank.ids = [s.id for s in segments]

    def hits() -> int:
        found = 0
        for segment in segments:
            sample = segment_sample(lively, conversations[segment.index], segment, bank)
            with torch.no_grad():
                state = lively.model.model(torch.tensor([sample.input_ids])).last_hidden_state[:, -1]
            found += int(bank.memory_head(state).argmax()) == sample.memory_index
        return found

    assert hits() < 4
    config = LoraTrainConfig(max_tokens=30_000, learning_rate=5e-3, batch_tokens=512, target_modules=QUERY_VALUE)
    epochs = segment_epochs(lively, bank, segments, conversations, config.batch_tokens, 0)
    log = train_recall_token(lively, bank, epochs, config, no_progress)
    assert set(log.losses) == {"retrieval"}
    assert hits() == 4


def test_recitation_is_tested_from_true_vectors_with_the_pad_last(lively: Backbone) -> None:
    """4.3: the pad at len(full_input_tokens) - 1, the memory's own vector under it, the null memory left out."""
    ids = lively.ids
    bank = random_bank(lively, size=3)
    bank.ids, bank.texts = [NULL_ID, "m1", "m2"], ["nothing", "ab", "cd"]
    with spied(lively) as feed, scripted(lively, says(lively, "?", "ab", ids.recall_end)):
        assert stage2.test_memory_recall(lively, bank, "What?", max_new_tokens=5) == 0.5
    prompt, fed = feed.input_ids[0], feed.inputs_embeds[1]
    assert prompt is not None and fed is not None
    full_input_tokens = [*prompt[0].tolist(), ids.memory_pad]
    assert prompt[:, -1].tolist() == [ids.recall] * 2
    assert full_input_tokens.index(ids.memory_pad) == len(full_input_tokens) - 1
    assert torch.equal(fed, torch.stack([bank.memory_embedding(1), bank.memory_embedding(2)])[:, None])
    with scripted(lively, says(lively, "?", "ab", ids.recall_end)):
        assert stage2.test_memory_recall(lively, bank, "What?", max_new_tokens=5, limit=1) == 1.0


def test_many_memories_are_recited_in_batches(lively: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """4.3: the same share, whatever the batch; no batch is larger than asked."""
    ids, sizes, generated = lively.ids, [], stage2.generate
    bank = random_bank(lively, size=6)
    bank.ids, bank.texts = [NULL_ID, *bank.ids[1:]], ["nothing", "ab", "cd", "ab", "ab", "cd"]

    def counted(backbone: Backbone, prompts: list[list[int]], *args: Any, **options: Any) -> Any:
        sizes.append(len(prompts))
        with scripted(lively, says(lively, "?", "ab", ids.recall_end)):
            return generated(backbone, prompts, *args, **options)

    monkeypatch.setattr(stage2, "generate", counted)
    assert stage2.test_memory_recall(lively, bank, "What?") == 3 / 5
    assert stage2.test_memory_recall(lively, bank, "What?", batch_size=2) == 3 / 5
    assert sizes == [5, 2, 2, 1]


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
    for stage, targets in (("step1", QUERY_VALUE), ("step2", ALL_LINEAR)):
        saved = json.loads((tmp_path / "adapters" / stage / "adapter_config.json").read_text(encoding="utf-8"))
        assert set(saved["target_modules"]) == set(targets)
    assert method.backbone.model.state_dict().keys() == pristine_lively.model.state_dict().keys()


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

    def look(peft_model: Any, _epoch: int) -> None:
        dtypes.update(p.dtype for name, p in peft_model.named_parameters() if "lora_" in name)

    monkeypatch.setattr("accelerate.Accelerator", Noted)
    backbone = load_backbone("tiny", device="cpu", dtype="bfloat16")
    before = backbone.model.model.layers[0].self_attn.q_proj.weight.clone()
    config = LoraTrainConfig(max_tokens=10**6, learning_rate=5e-2, gradient_accumulation_steps=2, warmup=0.0001)
    log = train_lora(
        backbone,
        iter([batches_of(backbone)] * 4),
        config,
        stage="",
        memory=term(backbone, CONFIG),
        on_epoch_end=look,
    )
    assert made == [("bf16", 2)]
    assert (len(log.losses["lm"]), log.optimizer_steps) == (8, 4)
    assert dtypes == {torch.float32}
    assert {p.dtype for p in backbone.model.parameters()} == {torch.bfloat16}
    assert not torch.equal(backbone.model.model.layers[0].self_attn.q_proj.weight, before)
    assert all(torch.isfinite(torch.tensor(values)).all() for values in log.losses.values())
