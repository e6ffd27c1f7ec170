"""Every method keeps the one promise: fit, then the same answers alone, in a batch, and from disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from model_script import EVERY_ROW, scripted

from eval.arms import ARMS, NAMES, build_arm
from methods.backbone import Backbone
from methods.base import Answer, Context, Method, MethodError, Stored
from methods.decode import Sampling
from methods.recall.method import RecallMethod
from methods.recall.recipe import RecallConfig, make_bank
from methods.recall.spec import SpecRecallMethod
from methods.recall.writing import WriteConfig
from methods.registry import CONFIGS, build_method
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig
from tasks.base import Memory, Message, TaskData
from tasks.examples import ExampleConfig

NEW_MEMORY = Memory("new", "Skates are returned to desk eleven by noon.", "Skates, Oulu")
BUDGET = 8000  # the last batch of a stage has a learning rate of zero: more than one each
RECALLS = ("recall", "recall_spec", "recall_quoted", "oracle_vector", "random_vector")
LOOK_UP = (*RECALLS, "rag", "rag_direct", "oracle_text")


@pytest.fixture(autouse=True)
def light_encoder(monkeypatch: pytest.MonkeyPatch, encoder: Any) -> None:
    monkeypatch.setattr("methods.rag.load_encoder", lambda *_args, **_kwargs: encoder)


def build(name: str, backbone: Backbone, task: TaskData, folder: Path) -> Method:
    setup = MethodSetup(backbone, LoraTrainConfig(max_tokens=BUDGET), folder=folder)
    short = WriteConfig(max_steps=4)  # writing to the end is test_writing's matter
    configs = {n: kind() for n, kind in CONFIGS.items()} | {"recall": RecallConfig(write=short)}
    if name in ARMS:
        return build_arm(name, setup, configs, {qa.question: qa.memory_ids for qa in task.questions})
    return build_method(name, setup, configs)


def give_memories(method: Any, memories: Sequence[Memory]) -> None:
    """A bank or an index as a fit begins with it."""
    if isinstance(method, SpecRecallMethod):
        method.bank = method._make_bank(memories)
    elif isinstance(method, RecallMethod):
        method.bank = make_bank(method.backbone, memories, method.config.vectors_per_memory, seed=0)
    elif hasattr(method, "retriever"):
        method.retriever.upsert(memories)


def contexts(task: TaskData) -> list[Context]:
    questions = [qa.question for qa in task.held_out("test")][:3]
    history = (Message("user", "Good morning!"), Message("assistant", "Good morning."))
    asked = [(*history, Message("user", question)) for question in questions]
    asked[0] = asked[0][2:]
    return [Context(messages, 12) for messages in asked]


def answers(method: Method, ctxs: list[Context], backbone: Backbone) -> tuple[list[Answer], list[Answer]]:
    """(alone, in one batch); each answer recalls at its second token, where the method can."""
    script = {(EVERY_ROW, 1): backbone.ids.recall}
    alone = []
    for ctx in ctxs:
        with scripted(backbone, script):
            alone.append(method.answer(ctx))
    with scripted(backbone, script):
        return alone, method.answer_batch(ctxs)


def content(answer: Answer) -> tuple[Any, ...]:
    """An answer without its times; scores rounded, since a batch sums in another order."""
    lookups = [
        (lookup.memory_id, lookup.text, round(lookup.score, 4), [i for i, _ in lookup.candidates])
        for lookup in answer.lookups
    ]
    usage = answer.usage
    return answer.raw, answer.final, answer.finished, lookups, usage.prompt_tokens, usage.new_tokens


@pytest.mark.parametrize("name", NAMES)
def test_the_protocol(pristine_lively: Backbone, regs: TaskData, tmp_path: Path, name: str) -> None:
    method = build(name, pristine_lively.clone(), regs, tmp_path / "fit")
    assert isinstance(method, Method)
    assert method.name == name

    report = method.fit(regs.memories, regs.sft)
    assert BUDGET <= report.forward_tokens < BUDGET + 2 * 1200  # equal budgets, to within a batch a stage
    assert report.optimizer_steps > 0
    assert report.seconds > 0
    assert report.curves
    assert all(curve for curve in report.curves.values())

    ctxs = contexts(regs)
    alone, together = answers(method, ctxs, method.backbone)  # type: ignore[attr-defined]
    assert [content(a) for a in alone] == [content(a) for a in together]
    assert all(a.usage.total_s > 0 for a in alone)
    assert all(a.usage.total_s == 0.0 and a.usage.stage_s == {} for a in together)
    assert all("<recall>" in a.raw for a in alone)
    assert all(bool(a.lookups) == (name in LOOK_UP) for a in alone)

    method.save(tmp_path / "saved")
    other = build(name, pristine_lively.clone(), regs, tmp_path / "other")
    other.load(tmp_path / "saved")
    _, restored = answers(other, ctxs, other.backbone)  # type: ignore[attr-defined]
    assert [content(a) for a in restored] == [content(a) for a in together]
    trained, loaded = (m.backbone.model.state_dict() for m in (method, other))  # type: ignore[attr-defined]
    for key, weight in pristine_lively.model.state_dict().items():
        torch.testing.assert_close(loaded[key], trained[key], atol=1e-6, rtol=1e-6)
        if "q_proj" in key or "embed" in key:
            assert not torch.allclose(weight, trained[key], atol=1e-6), key  # the fit did something


@pytest.mark.parametrize("name", NAMES)
def test_a_cap_of_ones_own_holds_in_a_batch(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, name: str
) -> None:
    method = build(name, pristine_lively.clone(), regs, tmp_path)
    give_memories(method, regs.memories)
    ctxs = [replace(ctx, max_new_tokens=4 + 3 * i) for i, ctx in enumerate(contexts(regs))]
    alone, together = answers(method, ctxs, method.backbone)  # type: ignore[attr-defined]
    assert [content(a) for a in alone] == [content(a) for a in together]


@pytest.mark.parametrize("name", ["recall", "recall_quoted", "rag"])
def test_write_and_forget(pristine_lively: Backbone, regs: TaskData, tmp_path: Path, name: str) -> None:
    method = build(name, pristine_lively.clone(), regs, tmp_path)
    backbone = method.backbone  # type: ignore[attr-defined]
    give_memories(method, regs.memories)
    before = {key: value.clone() for key, value in backbone.model.state_dict().items()}
    report = method.write([NEW_MEMORY])
    assert report.num_memories == 1
    assert (report.trained_tokens > 0) == (name == "recall")  # a value is optimised, no weight is
    assert report.bytes_stored > 0

    def found() -> set[str]:
        alone, _ = answers(method, [Context((Message("user", NEW_MEMORY.text),), 12)], backbone)
        return {i for lookup in alone[0].lookups for i, _ in lookup.candidates}

    assert "new" in found()
    method.forget(["new"])
    assert "new" not in found()
    with pytest.raises(MethodError, match="'new'"):
        method.forget(["new"])
    assert all(torch.equal(value, before[key]) for key, value in backbone.model.state_dict().items())


def test_the_bank_holds_every_memory_and_the_null_memory(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path
) -> None:
    method = build("recall", pristine_lively.clone(), regs, tmp_path)
    give_memories(method, regs.memories)
    bank = method.bank  # type: ignore[attr-defined]
    assert bank.ids == ["", *(m.id for m in regs.memories)]
    torch.testing.assert_close(bank.keys_MD.norm(dim=-1), torch.ones(7))
    assert bank.gain == pytest.approx(pristine_lively.facts.embedding_norm)
    assert float((bank.keys_MD @ bank.keys_MD.T - torch.eye(7)).max()) < 0.999  # no two keys coincide


def test_nothing_can_be_asked_before_a_fit(pristine_lively: Backbone, regs: TaskData, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="recall: nothing was fitted yet"):
        build("recall", pristine_lively.clone(), regs, tmp_path / "a").answer(contexts(regs)[0])
    with pytest.raises(MethodError, match="index is empty"):
        build("rag", pristine_lively.clone(), regs, tmp_path / "b").answer(contexts(regs)[0])
    with pytest.raises(MethodError, match="nothing to save"):
        build("sft", pristine_lively.clone(), regs, tmp_path / "c").save(tmp_path / "saved")


def test_a_bank_of_another_model_is_refused(pristine_lively: Backbone, regs: TaskData, tmp_path: Path) -> None:
    method = build("recall", pristine_lively.clone(), regs, tmp_path)
    give_memories(method, regs.memories)
    method.bank.save(tmp_path / "bank")  # type: ignore[attr-defined]
    stranger = replace(pristine_lively.clone(), fingerprint="0123456789ab")
    with pytest.raises(MethodError, match="another model"):
        build("recall", stranger, regs, tmp_path).load(tmp_path)


def test_a_history_over_the_window_is_cut_and_counted(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path
) -> None:
    method = build("sft", pristine_lively.clone(), regs, tmp_path)
    talk = [Message("user", "a" * 700), Message("assistant", "b" * 700)] * 2
    answer = method.answer(Context((*talk, Message("user", "How much?")), 12))
    assert answer.usage.truncated_turns == 2
    assert answer.usage.prompt_tokens + 12 <= pristine_lively.facts.context_length


def test_what_is_kept_beside_the_weights_is_told(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path
) -> None:
    """A forgotten memory frees the bytes of its vectors and of its text; SFT keeps nothing of that kind."""
    for name, num_vectors in (("recall", 9), ("recall_quoted", 1)):  # a key, and eight values or none
        recall: Any = build(name, pristine_lively.clone(), regs, tmp_path / name)
        give_memories(recall, regs.memories)
        assert isinstance(recall, Stored)
        before = recall.stored_bytes()
        recall.forget([regs.memories[0].id])
        freed = num_vectors * recall.backbone.facts.hidden_size * 4 + len(regs.memories[0].text.encode())
        assert before == recall.stored_bytes() + freed
    rag: Any = build("rag", pristine_lively.clone(), regs, tmp_path / "b")
    assert isinstance(rag, Stored)
    rag.write(regs.memories)
    assert rag.stored_bytes() > 0
    assert not isinstance(build("sft", pristine_lively.clone(), regs, tmp_path / "c"), Stored)


def settings_of(kind: type) -> Iterator[str]:
    """Names of the fields that a user sets; a config inside another one is not a setting itself."""
    types = get_type_hints(kind)
    yield from (f"{kind.__name__}.{f.name}" for f in fields(kind) if not is_dataclass(types[f.name]))


def configs_under(kind: type) -> Iterator[type]:
    """The config and those inside it."""
    yield kind
    for inner in get_type_hints(kind).values():
        if is_dataclass(inner) and isinstance(inner, type):
            yield from configs_under(inner)


def test_there_are_few_settings() -> None:
    """Counted once each, though several methods have them. What nobody turns is a constant beside its owner."""
    shared = (LoraTrainConfig, ExampleConfig, Sampling)
    kinds = {inner for kind in (*CONFIGS.values(), *shared) for inner in configs_under(kind)}
    found = sorted(name for kind in kinds for name in settings_of(kind))
    assert {"RagConfig.top_k", "AutoregressiveRecall.top_k", "WriteConfig.max_steps"} <= set(found)
    assert "RecallConfig.mixture" not in found
    assert len(found) <= 40, found
