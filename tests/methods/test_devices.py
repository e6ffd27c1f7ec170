"""Which device, and which type of weights: a card is one card, by its number; what is wrong is one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_families import save_family

from methods.backbone import Backbone, load_backbone, resolve_device, resolve_dtype, room_on
from methods.base import MethodError
from methods.decode import Clock
from methods.model_facts import read_facts

GIB = 2**30


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """As on a machine with two cards, of which the first is current; other processes fill the second."""
    seen = SimpleNamespace(synchronised=[], bf16=True)

    def bf16(including_emulation: bool = True) -> bool:
        return seen.bf16 or including_emulation

    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "current_device": lambda: 0,
        "is_bf16_supported": bf16,
        "synchronize": seen.synchronised.append,
        "mem_get_info": lambda device: (GIB // 2, 16 * GIB) if device.index else (14 * GIB, 16 * GIB),
        "memory_reserved": lambda device: 0 if device.index else GIB,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return seen


@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_a_card_comes_with_its_number(two_cards: SimpleNamespace, asked: str, expected: str) -> None:
    assert str(resolve_device(asked)) == expected


def test_a_card_that_is_not_there_is_one_sentence(two_cards: SimpleNamespace) -> None:
    with pytest.raises(MethodError, match=r"device=cuda:2: torch sees 2 CUDA devices here, from cuda:0 on"):
        resolve_device("cuda:2")
    with pytest.raises(MethodError, match=r"device=gpu is unknown; choose auto, cpu, cuda or cuda:<number>"):
        resolve_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_card_none_can_be_asked_for() -> None:
    assert str(resolve_device("auto")) == "cpu"
    with pytest.raises(MethodError, match=r"device=cuda:1 was asked for, but torch sees no CUDA device"):
        resolve_device("cuda:1")


def test_bf16_that_is_only_emulated_is_not_taken(
    two_cards: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    card = torch.device("cuda", 0)
    assert resolve_dtype("auto", card) is torch.bfloat16
    two_cards.bf16 = False
    assert asked == []
    assert resolve_dtype("auto", card) is torch.float32
    assert asked == ["high"]  # TF32 in its place
    assert resolve_dtype("float32", card) is torch.float32
    assert asked == ["high"]  # who asks for fp32 gets it


def test_a_card_that_others_fill_is_one_sentence(two_cards: SimpleNamespace) -> None:
    device = torch.device("cuda", 1)
    with (
        pytest.raises(
            MethodError,
            match=r"cuda:1 has too little memory: of 16.0 GiB, 0.0 GiB by this process and 15.5 GiB by other "
            r"processes are in use; free it, name another with device=..., or take a smaller model",
        ),
        room_on(device),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_the_clock_waits_for_the_models_own_card(two_cards: SimpleNamespace) -> None:
    clock = Clock(torch.device("cuda", 1), enabled=True)
    clock.passed()
    assert two_cards.synchronised == [torch.device("cuda", 1)] * 2


def test_a_copy_knows_the_untouched_weights(tiny: Backbone) -> None:
    first = tiny.clone()
    second = first.clone()
    base = tiny.origin
    assert base is not None and first.origin is base and second.origin is base
    trained = replace(tiny, origin=None, merged=True)
    assert trained.clone().origin is None  # what was trained is nobody's origin


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3"])
def test_facts_of_weights_in_their_own_type_are_those_of_fp32(family: str, tmp_path: Path) -> None:
    backbone = load_backbone(str(save_family(family, tmp_path / family)), device="cpu", dtype="float32")
    facts = read_facts(backbone.model.to(torch.bfloat16), backbone.tokenizer)
    assert facts.embedding_norm == pytest.approx(backbone.facts.embedding_norm, rel=1e-2)
    expected = replace(backbone.facts, embedding_norm=facts.embedding_norm, stop_ids=facts.stop_ids)
    assert facts == expected


@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
def test_weights_kept_in_16_bits_load(kept: torch.dtype, tmp_path: Path) -> None:
    folder = save_family("llama", tmp_path / "llama")
    whole = load_backbone(str(folder), device="cpu", dtype="float32")
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model.to(kept).save_pretrained(folder)
    loaded = load_backbone(str(folder), device="cpu", dtype="float32")
    assert loaded.dtype is torch.float32
    for name, tensor in whole.model.state_dict().items():
        if tensor.dim() == 2 and "embed" not in name and "lm_head" not in name:
            torch.testing.assert_close(loaded.model.state_dict()[name], tensor.to(kept).float())
