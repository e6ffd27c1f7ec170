"""A slice is searched among all clauses of its rulebook, from the fit on; what a lifecycle writes is news."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.arms import ARMS
from eval.lifecycle_plan import plan_lifecycle
from methods.backbone import Backbone
from methods.base import Method
from methods.rag import RagMethod
from methods.recall.bank import NULL_ID
from methods.recall.method import RecallMethod
from pipelines.cli import compose_config
from pipelines.config import Resolved, resolve
from pipelines.making import indexed_beside, make_method
from pipelines.progress import Display
from tasks.base import Message, TaskData
from tasks.registry import load_task

SMALL = ("task=regs", "preset=smoke", "device=cpu", "dtype=float32", "train.max_tokens=300", "mlflow=false")


@pytest.fixture(scope="module")
def regs() -> TaskData:
    return load_task("regs", num_clauses=18)


def config_of(*words: str) -> Resolved:
    return resolve(compose_config("compare", [*SMALL, "task.num_clauses=18", *words]))


def made(name: str, task: TaskData, backbone: Backbone, folder: Path, *words: str) -> Method:
    return make_method(config_of(*words), name, task, 0, backbone.clone(), Display(), folder)


def test_a_slice_keeps_what_it_leaves_out_without_its_questions(regs: TaskData) -> None:
    whole = load_task("regs")
    assert {m.id for m in regs.memories} | {m.id for m in regs.rest} == {m.id for m in whole.memories}
    assert len(regs.memories) + len(regs.rest) == len(whole.memories) == 132
    assert not any(memory.cues for memory in regs.rest)
    assert not whole.rest
    asked = {memory_id for qa in regs.questions for memory_id in qa.memory_ids}
    assert not asked & {memory.id for memory in regs.rest}


@pytest.mark.parametrize("name", ["recall", "recall_spec"])
def test_the_bank_of_a_fit_holds_the_whole_rulebook(
    name: str, regs: TaskData, pristine: Backbone, tmp_path: Path
) -> None:
    method = made(name, regs, pristine, tmp_path)
    assert isinstance(method, RecallMethod)
    method.fit(regs.memories, regs.sft)
    ids = method.fitted_bank().ids
    assert {*ids} - {NULL_ID} == {m.id for m in (*regs.memories, *regs.rest)}
    method.save(tmp_path)
    again = made(name, regs, pristine, tmp_path)
    again.load(tmp_path)
    assert isinstance(again, RecallMethod)
    assert again.fitted_bank().ids == ids


def test_rag_finds_among_all_and_saves_them(regs: TaskData, pristine: Backbone, tmp_path: Path) -> None:
    method = made("rag", regs, pristine, tmp_path, "train.max_tokens=300")
    assert isinstance(method, RagMethod)
    method.fit(regs.memories, regs.sft)
    found = method.retriever.retrieve([[Message("user", regs.questions[0].question)]], 132)[0][0]
    assert {p.memory_id for p in found} == {m.id for m in (*regs.memories, *regs.rest)}


@pytest.mark.parametrize("name", ARMS)
def test_arms_keep_to_the_slice(name: str, regs: TaskData, pristine: Backbone, tmp_path: Path) -> None:
    assert not made(name, regs, pristine, tmp_path).setup.indexed  # type: ignore[attr-defined]


def test_what_a_lifecycle_writes_is_not_searched_before(regs: TaskData) -> None:
    config = config_of("evaluation=full")
    written = plan_lifecycle(regs, load_task("regs"), 0, config.lifecycle).written
    beside = indexed_beside(config, regs, 0)
    assert written
    assert {m.id for m in beside} == {m.id for m in regs.rest} - {m.id for m in written}
    assert indexed_beside(config_of(), regs, 0) == list(regs.rest)
