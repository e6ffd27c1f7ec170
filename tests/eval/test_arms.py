"""The control arms: what stands in their prompts, which vector they get, and whose weights they use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from model_script import EVERY_ROW, scripted

from eval.arms import ARMS, LENDERS, NAMES, borrow, borrows_from, build_arm, check_window, gold_key
from methods.backbone import Backbone
from methods.base import Answer, Context, MethodError, RecallSwitch
from methods.rag import RagMethod
from methods.recall.method import RecallMethod
from methods.recall.recipe import make_bank
from methods.registry import build_method
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig
from tasks.base import Memory, Message, TaskData
from tasks.examples import ExampleConfig

NOBODY_KNOWS = "Who waters the plants?"


def asked(*questions: str) -> tuple[Message, ...]:
    """A dialogue in which the last question is open."""
    messages: list[Message] = []
    for question in questions[:-1]:
        messages += [Message("user", question), Message("assistant", "I see.")]
    return (*messages, Message("user", questions[-1]))


def setup_of(backbone: Backbone, folder: Path, max_tokens: int = 600) -> MethodSetup:
    return MethodSetup(backbone, LoraTrainConfig(max_tokens=max_tokens), folder=folder)


def gold_of(task: TaskData) -> dict[str, tuple[str, ...]]:
    return {qa.question: qa.memory_ids for qa in task.questions}


def full_context(setup: MethodSetup) -> RagMethod:
    method = build_arm("full_context", setup, {}, {})
    assert isinstance(method, RagMethod)
    return method


def recalling(method: Any, ctxs: list[Context], steps: tuple[int, ...] = (1,)) -> list[Answer]:
    """Answers in which every row emits <recall> at these steps."""
    with scripted(method.backbone, {(EVERY_ROW, step): method.backbone.ids.recall for step in steps}):
        found: list[Answer] = method.answer_batch(ctxs)
    return found


@pytest.fixture
def vector_arm(pristine_lively: Backbone, regs: TaskData, tmp_path: Path) -> Any:
    def make(name: str, **gold: Any) -> RecallMethod:
        method = build_arm(name, setup_of(pristine_lively.clone(), tmp_path), {}, gold or gold_of(regs))
        assert isinstance(method, RecallMethod)
        method.bank = make_bank(method.backbone, regs.memories, 8, seed=0)
        return method

    return make


# Vectors.


def test_the_oracle_gets_the_gold_vector_and_random_never_does(vector_arm: Any, regs: TaskData) -> None:
    questions = list(regs.held_out("test"))[:6]
    ctxs = [Context(asked(qa.question), 8) for qa in questions]
    right = [a.lookups[0].memory_id for a in recalling(vector_arm("oracle_vector"), ctxs)]
    assert right == [qa.memory_ids[0] for qa in questions]
    wrong = [a.lookups[0].memory_id for a in recalling(vector_arm("random_vector"), ctxs)]
    assert all(found and found != qa.memory_ids[0] for found, qa in zip(wrong, questions, strict=True))
    assert len(set(wrong)) > 1


def test_what_no_clause_answers_gets_the_null_memory(vector_arm: Any) -> None:
    (answer,) = recalling(vector_arm("oracle_vector"), [Context(asked(NOBODY_KNOWS), 8)])
    assert [lookup.memory_id for lookup in answer.lookups] == [""]


def test_two_recalls_get_both_gold_vectors_and_a_third_the_last(vector_arm: Any, regs: TaskData) -> None:
    first, second = (m.id for m in regs.memories[:2])
    method = vector_arm("oracle_vector", Both=(second, first))
    apart = method.bank.num_vectors + 3  # steps from one <recall> to the next, behind its pads
    (answer,) = recalling(method, [Context(asked("Both"), 3 * apart)], steps=(1, 1 + apart, 1 + 2 * apart))
    assert [lookup.memory_id for lookup in answer.lookups] == [second, first, first]


def test_a_random_vector_is_the_same_each_time(vector_arm: Any, regs: TaskData) -> None:
    ctxs = [Context(asked(qa.question), 8) for qa in list(regs.held_out("test"))[:5]]
    method = vector_arm("random_vector")
    together = [a.lookups[0].memory_id for a in recalling(method, ctxs)]
    alone = [recalling(method, [ctx])[0].lookups[0].memory_id for ctx in ctxs]
    assert together == alone


def test_an_elliptic_question_rests_on_the_dialogue(vector_arm: Any, regs: TaskData) -> None:
    first, second = (m.id for m in regs.memories[:2])
    gold = {
        gold_key(asked("Lunch in Cork?", "And in Oslo?")): (first,),
        gold_key(asked("Rent in Cork?", "And in Oslo?")): (second,),
        "Lunch in Cork?": (second,),
    }
    method = vector_arm("oracle_vector", **gold)
    dialogues = [
        ("Lunch in Cork?", "And in Oslo?"),
        ("Rent in Cork?", "And in Oslo?"),
        ("Hello", "Lunch in Cork?"),
    ]
    answers = recalling(method, [Context(asked(*d), 8) for d in dialogues])
    assert [a.lookups[0].memory_id for a in answers] == [first, second, second]  # the last by itself


def test_recall_can_be_switched_off(vector_arm: Any, regs: TaskData) -> None:
    method = vector_arm("oracle_vector")
    assert isinstance(method, RecallSwitch)
    ctx = Context(asked(next(regs.held_out("test")).question), 8)
    method.enable_recall(False)
    assert recalling(method, [ctx])[0].lookups == ()
    method.enable_recall(True)
    assert recalling(method, [ctx])[0].lookups


# The whole handbook in the prompt.


def book_of(method: RagMethod, question: str) -> list[str]:
    """The clauses that it is shown with, in their order."""
    passages, _ = method.retriever.retrieve([asked(question)], method.top_k)
    return [passage.text for passage in passages[0]]


def test_every_clause_stands_in_the_prompt_in_its_order(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import methods.rag

    prompts: list[str] = []
    original = methods.rag.generate

    def spy(backbone: Backbone, given: list[list[int]], *args: Any, **settings: Any) -> Any:
        prompts.extend(backbone.tokenizer.decode(ids) for ids in given)
        return original(backbone, given, *args, **settings)

    monkeypatch.setattr(methods.rag, "generate", spy)
    method = full_context(setup_of(pristine_lively.clone(), tmp_path))
    method.retriever.upsert(regs.memories)
    answer = method.answer(Context(asked(NOBODY_KNOWS), 8))
    places = [prompts[0].index(memory.text) for memory in regs.memories]
    assert places == sorted(places)
    assert prompts[0].index(f"Question: {NOBODY_KNOWS}") > places[-1]
    assert answer.lookups == ()  # nothing was looked up


def test_the_reader_is_trained_on_the_whole_handbook_in_order(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.rag.GOLD_MISSING", 0.0)
    backbone = pristine_lively.clone()
    method = full_context(setup_of(backbone, tmp_path))
    method.retriever.upsert(regs.memories)
    batches = next(method._reader_epochs(regs.memories, regs.sft))
    texts = [backbone.tokenizer.decode(sample.input_ids) for batch in batches for sample in batch]
    orders = [[text.index(memory.text) for memory in regs.memories] for text in texts]
    assert all(order == sorted(order) for order in orders)
    assert len(orders) > len(regs.memories)


def test_a_missing_gold_clause_is_missing(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.rag.GOLD_MISSING", 1.0)
    backbone = pristine_lively.clone()
    setup = setup_of(backbone, tmp_path)
    setup.examples = ExampleConfig(reading=0.0, sft_only=0.0, unanswerable=0.0)
    method = full_context(setup)
    method.retriever.upsert(regs.memories)
    for batch in next(method._reader_epochs(regs.memories, regs.sft)):
        for sample in batch:
            text = backbone.tokenizer.decode(sample.input_ids)
            assert sum(memory.text in text for memory in regs.memories) == len(regs.memories) - 1


def test_a_handbook_over_the_window_is_refused_with_the_numbers(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path
) -> None:
    many = [replace(m, id=f"{m.id}/{n}") for n in range(3) for m in regs.memories]
    method = full_context(setup_of(pristine_lively.clone(), tmp_path))
    with pytest.raises(MethodError, match=r"full_context: 18 clauses make a prompt of \d{4} tokens .* reads 2048"):
        method.fit(many, regs.sft)
    check_window(pristine_lively, regs.memories)
    method.retriever.upsert(regs.memories)
    with pytest.raises(MethodError, match="24 clauses"):
        method.write(many)


def test_what_is_forgotten_leaves_the_prompt(pristine_lively: Backbone, regs: TaskData, tmp_path: Path) -> None:
    method = full_context(setup_of(pristine_lively.clone(), tmp_path))
    method.retriever.upsert(regs.memories)
    method.forget([regs.memories[0].id])
    assert book_of(method, NOBODY_KNOWS) == [m.text for m in regs.memories[1:]]
    with pytest.raises(MethodError, match="no clause has that id"):
        method.forget([regs.memories[0].id])
    method.write([Memory("new", "Bins go out on Tuesday.")])
    assert book_of(method, NOBODY_KNOWS)[-1] == "Bins go out on Tuesday."


# Borrowed fits.


def test_who_borrows_from_whom() -> None:
    assert borrows_from("oracle_vector", ["recall", "oracle_vector"]) == "recall"
    assert borrows_from("oracle_vector", ["rag", "oracle_vector"]) == "oracle_vector"
    assert borrows_from("oracle_text", ["rag", "oracle_text"]) == "rag"
    assert all(borrows_from(name, NAMES) in ("recall", "rag") for name in LENDERS)
    assert all(borrows_from(name, NAMES) == name for name in set(NAMES) - set(LENDERS))
    assert set(ARMS) < set(NAMES)


@pytest.mark.parametrize("name", list(LENDERS))
def test_a_borrower_answers_with_the_lenders_weights(
    pristine_lively: Backbone,
    regs: TaskData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoder: Any,
    name: str,
) -> None:
    monkeypatch.setattr("methods.rag.load_encoder", lambda *_args, **_kwargs: encoder)
    gold = gold_of(regs)
    lender: Any = build_method(LENDERS[name], setup_of(pristine_lively.clone(), tmp_path / "fit"), {})
    lender.fit(regs.memories, regs.sft)
    (tmp_path / "saved").mkdir()
    lender.save(tmp_path / "saved")
    borrower: Any = build_arm(name, setup_of(pristine_lively, tmp_path / "arm"), {}, gold)
    borrow(borrower, lender, tmp_path / "saved")
    assert borrower.backbone is lender.backbone
    questions = list(regs.held_out("test"))[:3]
    answers = recalling(borrower, [Context(asked(qa.question), 8) for qa in questions])
    found = [a.lookups[0].memory_id for a in answers]
    right = [qa.memory_ids[0] for qa in questions]
    assert (found == right) == (name != "random_vector")
    known = {m.id: m.text for m in regs.memories}
    assert name != "oracle_text" or [a.lookups[0].text for a in answers] == [known[i] for i in right]

    loaded: Any = build_arm(name, setup_of(pristine_lively.clone(), tmp_path / "alone"), {}, gold)
    loaded.load(tmp_path / "saved")  # a process of its own has no lender to share with
    again = recalling(loaded, [Context(asked(qa.question), 8) for qa in questions])
    assert [a.raw for a in again] == [a.raw for a in answers]
