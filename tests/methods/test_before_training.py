"""What cannot come to a good end is refused before anything is trained, whatever the recall recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from methods.backbone import Backbone
from methods.base import MethodError
from methods.recall import recipe
from methods.recall.method import RecallMethod
from methods.recall.recipe import RecallConfig, make_bank, quoted
from methods.recall.spec import SpecRecallConfig, SpecRecallMethod
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig
from tasks.base import Conversation, Memory, Message, TaskData

GOOD = Memory("good", "Meals cost 31 euros.")
RECIPES = ("recall", "recall_quoted", "recall_spec")


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: Any, **_options: Any) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr(recipe, "train_lora", never)


def method_of(name: str, backbone: Backbone, folder: Path) -> RecallMethod:
    setup = MethodSetup(backbone, LoraTrainConfig(max_tokens=1500), folder=folder)
    if name == "recall_spec":
        return SpecRecallMethod(setup)
    config = RecallConfig()
    return RecallMethod(setup, quoted(config) if name == "recall_quoted" else config)


def test_the_check_can_fail(lively: Backbone, regs: TaskData, tmp_path: Path) -> None:
    for name in RECIPES:
        with pytest.raises(AssertionError, match="it trains"):
            method_of(name, lively, tmp_path).fit(regs.memories, regs.sft)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    ("memories", "said"),
    [
        ([], "no memory to write"),
        ([GOOD, GOOD], "two memories have the id 'good'"),
        ([GOOD, Memory("empty", " \n")], "memory 'empty' has no text"),
        ([GOOD, Memory("long", "x" * 1600)], "memory 'long' has 1600 tokens, .* leaves 1536"),
    ],
)
def test_memories_that_no_bank_could_hold(
    lively: Backbone, regs: TaskData, tmp_path: Path, name: str, memories: list[Memory], said: str
) -> None:
    with pytest.raises(MethodError, match=said):
        method_of(name, lively, tmp_path).fit(memories, regs.sft)


@pytest.mark.parametrize("name", RECIPES)
def test_memories_that_cannot_be_written(lively: Backbone, tmp_path: Path, name: str) -> None:
    method = method_of(name, lively, tmp_path)
    method.bank = make_bank(lively, [GOOD], method.config.vectors_per_memory, seed=0)
    for bad in ([], [Memory("long", "x" * 1600)]):
        for change in (method.write, method.index):
            with pytest.raises(MethodError, match=r"no memory to write|'long' has 1600 tokens"):
                change(bad)
    assert GOOD.id in method.bank.ids


def test_a_vector_with_nan_is_blamed_on_its_own_memory(
    lively: Backbone, regs: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be in the centre, and so in every vector."""
    method = method_of("recall", lively, tmp_path)
    bad, extract = regs.memories[3].id, recipe.extract

    def broken(backbone: Backbone, memories: list[Memory]) -> torch.Tensor:
        raw_ND = extract(backbone, memories)
        raw_ND[[m.id for m in memories].index(bad)] = torch.nan
        return raw_ND

    monkeypatch.setattr(recipe, "extract", broken)
    with pytest.raises(MethodError, match=f"the vector of '{bad}' is zero or holds NaN"):
        method.fit(regs.memories, regs.sft)


def thinking(count: int, user_tokens: int) -> list[Conversation]:
    reply = Message("assistant", "<think>\nshort\n</think>\nA")
    return [Conversation(f"c{i}", (Message("user", "x" * user_tokens), reply)) for i in range(count)]


def test_too_few_conversations_for_step_2_by_the_letter(lively: Backbone, regs: TaskData, tmp_path: Path) -> None:
    """Their thinks fit, they themselves do not."""
    method = method_of("recall_spec", lively, tmp_path)
    assert isinstance(method, SpecRecallMethod)
    method.spec = SpecRecallConfig(sft_max_tokens=120)
    with pytest.raises(MethodError) as error:
        method.fit(regs.memories, [*thinking(5, 10), *thinking(7, 200)])
    assert str(error.value) == (
        "Step 2 needs 9 SFT conversations of at most 120 tokens an epoch and found 5 of 12; take fewer memories "
        "or raise sft_max_tokens"
    )


def test_no_conversation_for_the_calibrated_step_2(
    lively: Backbone, regs: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.recall.mixture.SFT_MAX_TOKENS", 120)
    method = method_of("recall", lively, tmp_path)
    special = [c for c in regs.sft if c.passage or c.kind == "unanswerable"]
    with pytest.raises(MethodError, match=r"found 0 of \d+; take shorter ones"):
        method.fit(regs.memories, [*special, *thinking(3, 200)])  # abstentions are conversations too, and long


def test_more_memories_than_conversations_are_trained_in_the_calibrated_recipe(
    lively: Backbone, regs: TaskData, tmp_path: Path
) -> None:
    special = [c for c in regs.sft if c.passage or c.kind == "unanswerable"]
    with pytest.raises(AssertionError, match="it trains"):
        method_of("recall", lively, tmp_path).fit(regs.memories, [*special, *thinking(3, 10)])


def test_think_segments_may_be_as_long_as_was_asked_for(lively: Backbone, regs: TaskData, tmp_path: Path) -> None:
    method = method_of("recall_spec", lively, tmp_path)
    assert isinstance(method, SpecRecallMethod)
    method.spec = SpecRecallConfig(sft_max_tokens=2700)
    bank = method._make_bank([*regs.memories, Memory("segment", "x" * 2600)])
    assert bank.ids[-1] == "segment"
