"""Samples in one row are what they are one by one, in losses, gradients and what each sees, for every family."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import (
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen3Config,
)

from methods.batches import collate, counts, row_tokens, share_of, shared_tokens
from methods.packing import APART, packing, packs
from methods.samples import IGNORE, Sample, supervised
from methods.train import MemoryLM, MemoryTerm

CPU = torch.device("cpu")
VOCABULARY, HIDDEN, MEMORIES, WINDOW = 40, 16, 5, 6
HEADS = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "pad_token_id": 0,
}
ALTERNATING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": HIDDEN, "n_layer": 2, "n_head": 4}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**HEADS, attention_bias=True),
    "qwen3": lambda: Qwen3Config(**HEADS),
    "gemma3": lambda: Gemma3TextConfig(**HEADS, **ALTERNATING),
    "gemma2": lambda: Gemma2Config(**HEADS, **ALTERNATING, attn_logit_softcapping=2.0),
    "mistral": lambda: MistralConfig(**HEADS, sliding_window=WINDOW),
    "phi3": lambda: Phi3Config(**HEADS, sliding_window=WINDOW),
    "gpt2": lambda: GPT2Config(**GPT2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
}
PADDED: dict[str, Callable[[], PreTrainedConfig]] = {
    "positions by place": lambda: GPTNeoConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, num_layers=2, num_heads=4, attention_types=[[["global"], 2]]
    ),
    "attention of its own": lambda: BloomConfig(vocab_size=VOCABULARY, hidden_size=HIDDEN, n_layer=2, n_head=4),
}


def model_of(config: PreTrainedConfig) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.train()


def samples_of(rng: random.Random, common: int = 7) -> list[Sample]:
    """One of each kind, over the window's length; they begin alike, two for longer; two are learnt by weight."""
    begin = [rng.randrange(4, VOCABULARY) for _ in range(common)]

    def ids(count: int) -> list[int]:
        return [rng.randrange(4, VOCABULARY) for _ in range(count)]

    recalled = supervised(
        [*begin, *ids(5)], [1, 2, 3, 3, *ids(9)], "memory_full", recall=1, pad=2, num_pads=2, memory_index=3
    )
    front = supervised([*begin, *ids(2)], [1, 2, 3, 3, *ids(4)], "memory_front", pad=2, num_pads=2, memory_index=1)
    query = supervised([*begin, *ids(11)], [1, 2], "query", recall=1, memory_index=2, target_loss_from=2)
    weights = tuple(float(n % 3) for n in range(len(recalled)))
    return [
        supervised([*begin, *ids(3)], ids(8), "sft_only"),
        replace(recalled, loss_weights=weights),
        query,
        supervised(query.input_ids[: common + 9], ids(3), "sft_only"),
        front,
        supervised(begin, ids(1), "sft_only"),
    ]


def memory_term() -> MemoryTerm:
    generator = torch.Generator().manual_seed(1)
    keys_MD = F.normalize(torch.randn(MEMORIES, HIDDEN, generator=generator), dim=-1)
    values_MPD = F.normalize(torch.randn(MEMORIES, 2, HIDDEN, generator=generator), dim=-1)
    return MemoryTerm(keys_MD, values_MPD, 1.5, train_keys=True, train_values=True)


def computed(
    model: Any, samples: list[Sample], multiple: int = 8
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Losses, and the gradients of their sum."""
    module = MemoryLM(model, memory_term())
    module.zero_grad()
    losses = module(collate(samples, 0, CPU, multiple))
    torch.stack(list(losses.values())).sum().backward()
    grads = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    return {name: float(value.detach()) for name, value in losses.items()}, grads


def one_by_one(model: Any, samples: list[Sample]) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The same of a batch from samples that were computed alone: each loss by its part of the mean."""
    total: dict[str, float] = {}
    sums: dict[str, torch.Tensor] = {}
    batches = [collate([sample], 0, CPU) for sample in samples]
    whole = {"lm": sum(b.lm_weight for b in batches), "retrieval": sum(b.num_asked for b in batches)}
    for batch in batches:
        module = MemoryLM(model, memory_term())
        module.zero_grad()
        parts = {"lm": batch.lm_weight / whole["lm"], "retrieval": batch.num_asked / whole["retrieval"]}
        losses = {name: value * parts[name] for name, value in module(batch).items()}
        torch.stack(list(losses.values())).sum().backward()
        for name, value in losses.items():
            total[name] = total.get(name, 0.0) + float(value.detach())
        for name, p in module.named_parameters():
            if p.grad is not None:
                sums[name] = sums.get(name, torch.zeros_like(p)) + p.grad
    return total, sums


def assert_same(
    found: tuple[dict[str, float], dict[str, torch.Tensor]],
    expected: tuple[dict[str, float], dict[str, torch.Tensor]],
) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(
            found[1][name], gradient, rtol=1e-4, atol=3e-5, msg=lambda said, name=name: f"{name}: {said}"
        )


@pytest.mark.parametrize("kind", [*CONFIGS, *PADDED])
@pytest.mark.parametrize("common", [0, 7])
def test_a_batch_has_the_losses_and_gradients_of_its_samples(kind: str, common: int) -> None:
    """Every weight of the model, and what is injected and searched."""
    model = model_of((CONFIGS | PADDED)[kind]())
    samples = samples_of(random.Random(0), common)
    assert shared_tokens(samples) == [0, common, common, common + 9, common, common]
    expected = one_by_one(model, samples)
    assert min(float(gradient.abs().max()) for gradient in expected[1].values()) > 0
    usual = model.config._attn_implementation
    assert packs(model) == (kind in CONFIGS)
    with packing(model):
        assert (model.config._attn_implementation in APART.values()) == (kind in CONFIGS)
        assert_same(computed(model, samples), expected)
        assert_same(computed(model, samples, multiple=32), expected)
    assert model.config._attn_implementation == usual
    assert_same(computed(model, samples), expected)  # padded


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_sample_sees_another(kind: str) -> None:
    model, samples = model_of(CONFIGS[kind]()), samples_of(random.Random(0))
    losses = []
    for shift in (0, 1):
        first, *rest = samples
        tail = tuple((token + shift) % VOCABULARY for token in first.input_ids[7:])
        changed = replace(first, input_ids=(*first.input_ids[:7], *tail), labels=(IGNORE,) * len(first))
        with packing(model):
            losses.append([computed(model, batch)[0] for batch in ([changed, *rest], [*rest, changed])])
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_within_an_ordinary_forward_is_an_ordinary_one(kind: str) -> None:
    """What looks at the model between two steps."""
    model = model_of(CONFIGS[kind]()).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13], [0, 0, 5, 6, 7, 8, 9, 10, 11]])
    with torch.no_grad():
        expected = model(ids, attention_mask=(ids > 0).long()).logits
        with packing(model):
            found = model(ids, attention_mask=(ids > 0).long()).logits
    torch.testing.assert_close(found[ids > 0], expected[ids > 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_of_a_batch_average_to_the_whole(world: int) -> None:
    model, samples = model_of(CONFIGS["llama"]()), samples_of(random.Random(0))
    module = MemoryLM(model, memory_term())
    with torch.no_grad(), packing(model):
        whole = module(collate(samples, 0, CPU))
        shares = [share_of(samples, rank, world) for rank in range(world)]
        parts = [collate(share, 0, CPU, 8, whole=counts(samples, world)) for share in shares]
        losses = [module(part) for part in parts]
    for name, value in whole.items():
        mean = sum(found.get(name, torch.tensor(0.0)) for found in losses) / world
        torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-5)


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=9), min_size=1, max_size=5), st.integers(1, 8))
def test_a_row_gives_every_sample_back(ids: list[list[int]], multiple: int) -> None:
    """Tokens, positions, labels and the way back; a token stands once where neighbours begin with it."""
    samples = [supervised(s[: len(s) // 2], s[len(s) // 2 :], "sft_only") for s in ids]
    batch = collate(samples, 0, CPU, multiple)
    num_own = row_tokens(samples)
    for before, after, shared in zip(ids, ids[1:], shared_tokens(samples)[1:], strict=False):
        assert before[:shared] == after[:shared]
        assert shared == min(len(before), len(after)) - 1 or before[shared] != after[shared]
    assert len(batch.input_ids_N) == -(-num_own // multiple) * multiple
    for sample, places, mask in zip(samples, batch.places_BT, batch.attention_mask_BT, strict=True):
        places = places[mask.bool()]
        assert batch.input_ids_N[places].tolist() == list(sample.input_ids)
        assert batch.positions_N[places].tolist() == list(range(len(sample)))
    assert batch.places_BT.flatten()[batch.back_N[:num_own]].tolist() == list(range(num_own))
    learnt = [
        (s.input_ids[n - 1], s.labels[n]) for s in samples for n in range(1, len(s)) if s.labels[n] != IGNORE
    ]
    real = batch.weights_L > 0
    found = (batch.input_ids_N[batch.predicting_L[real]].tolist(), batch.labels_L[real].tolist())
    assert list(zip(*found, strict=True)) == learnt
