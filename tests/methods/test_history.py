"""A history longer than the context window: every method loses the same of it, passages give way first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import methods.rag
from eval.arms import build_arm
from methods.backbone import Backbone
from methods.base import Answer, Context, Method
from methods.chat import PASSAGE_ROOM, encode_prompt, history_room
from methods.rag import ChromaRetriever, RagConfig, RagMethod, open_book
from methods.recall.method import RecallMethod
from methods.recall.recipe import make_bank
from methods.setup import MethodSetup
from methods.sft import SftMethod
from tasks.base import Memory, Message, TaskData

NEW_TOKENS = 12
FACTS = [Memory(f"m{n}", f"Locker {n} holds {'spare keys and ' * 12}coats.") for n in range(3)]


def talk(exchanges: int, words: int) -> tuple[Message, ...]:
    """A long history of other talk, and a question."""
    history = [
        message
        for n in range(exchanges)
        for message in (Message("user", f"{n}? " + "so " * words), Message("assistant", "Well. " * words))
    ]
    return (*history, Message("user", "What does locker 2 hold?"))


def window(backbone: Backbone, tokens: int) -> Backbone:
    """The same model with a context window of so many tokens."""
    backbone.facts = replace(backbone.facts, context_length=tokens)
    return backbone


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What RAG gives to the model, as it comes."""
    seen: list[list[int]] = []
    original = methods.rag.generate

    def spy(backbone: Backbone, given: Any, *args: Any, **settings: Any) -> Any:
        seen.extend(given)
        return original(backbone, given, *args, **settings)

    monkeypatch.setattr(methods.rag, "generate", spy)
    return seen


def rag(backbone: Backbone, folder: Path, encoder: Any) -> RagMethod:
    retriever = ChromaRetriever(folder / "c", encoder)
    method = RagMethod(MethodSetup(backbone, folder=folder), RagConfig(), retriever=retriever)
    method.retriever.upsert(FACTS)
    return method


def test_the_room_of_a_history_leaves_room_for_passages() -> None:
    assert history_room(8192, 192) == 8000 - PASSAGE_ROOM
    assert history_room(412, 12) == 300  # a quarter of a small window


def test_every_method_loses_the_same_of_a_history(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, encoder: Any
) -> None:
    backbone = window(pristine_lively.clone(), 1700)
    setup = MethodSetup(backbone, folder=tmp_path)
    recall = RecallMethod(setup)
    recall.bank = make_bank(backbone, regs.memories, 8, seed=0)
    book: Any = build_arm("full_context", setup, {}, {})
    book.retriever.upsert(regs.memories[:4])
    asked: list[Method] = [SftMethod(setup), recall, rag(backbone, tmp_path, encoder), book]
    for exchanges in (1, 8, 9):
        ctx = Context(talk(exchanges, 40), NEW_TOKENS)
        usages = [method.answer(ctx).usage for method in asked]
        assert len({usage.truncated_turns for usage in usages}) == 1
        assert (usages[0].truncated_turns > 0) == (exchanges > 1)
        assert all(usage.prompt_tokens + NEW_TOKENS <= 1700 for usage in usages)
        assert [usage.dropped_passages for usage in usages[:2]] == [None, None]


def answered(method: RagMethod, ctx: Context) -> Answer:
    (answer,) = method.answer_batch([ctx])
    return answer


def test_passages_that_do_not_fit_are_dropped_from_the_least_near_one_on(
    pristine_lively: Backbone, tmp_path: Path, encoder: Any, prompts: list[list[int]]
) -> None:
    backbone = pristine_lively.clone()
    method = rag(backbone, tmp_path, encoder)
    messages = talk(0, 0)
    found, _ = method.retriever.retrieve([messages], 3)
    for kept in (3, 2, 1, 0):
        exact = encode_prompt(backbone, open_book(messages, found[0][:kept][::-1]))
        window(backbone, len(exact) + NEW_TOKENS)
        answer = answered(method, Context(messages, NEW_TOKENS))
        assert prompts.pop() == exact
        assert answer.usage.dropped_passages == 3 - kept
        assert [lookup.memory_id for lookup in answer.lookups] == [p.memory_id for p in found[0][:kept]]
        assert all(len(lookup.candidates) == 3 for lookup in answer.lookups)
    assert found[0][0].memory_id == "m2"


def test_a_question_is_never_cut(
    pristine_lively: Backbone, tmp_path: Path, encoder: Any, prompts: list[list[int]]
) -> None:
    backbone = window(pristine_lively.clone(), 300)
    method = rag(backbone, tmp_path, encoder)
    question = (Message("user", "What does locker 2 hold? " + "Say " * 240),)
    answer = answered(method, Context((*talk(2, 20)[:-1], *question), NEW_TOKENS))
    assert prompts == [encode_prompt(backbone, question)]
    assert (answer.usage.truncated_turns, answer.usage.dropped_passages) == (4, 3)
