"""Fits on several cards, as many side by side as have room; what a run holds of its models. No card is needed."""

from __future__ import annotations

import json
import logging
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import SMALL, run_command, run_folders, use
from omegaconf import OmegaConf

from eval.runner import Footprint, run_retention
from methods import decode, fixed_cache
from methods.backbone import Backbone
from methods.base import Answer, Context, MethodError, Usage
from methods.parts import Part
from methods.rag import RagMethod
from pipelines import children, compare, fit_processes, footprint
from pipelines.cli import CONF, compose_config
from pipelines.config import resolve
from pipelines.fit_processes import FitJob, cards_of, fit_apart, fit_bytes, with_processes
from pipelines.progress import Display
from pipelines.run import Run
from tasks.base import TaskError
from tasks.dialogues import DialogueOptions, build_dialogues
from tasks.registry import load_task

GIB = 2**30


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.mark.usefixtures("two_cards")
def test_fits_go_to_all_cards_unless_one_is_named() -> None:
    assert cards_of("auto") == cards_of("cuda") == ["cuda:0", "cuda:1"]
    assert cards_of("cuda:1") == cards_of("cpu") == []


class Said(Display):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def run_in(folder: Path, device: str) -> Run:
    folder.mkdir()
    return Run(folder, {"device": device})


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize(("device", "expected"), [("auto", ["cuda:0", "cuda:1"]), ("cuda:1", [])])
def test_each_fit_is_told_its_card_and_what_it_warns_of_is_said(
    device: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process in place of a fit, which warns of the devices that it was given."""
    child = (
        "import json, sys; said = [w for w in json.loads(sys.argv[1])['overrides'] if w.startswith('device=')]; "
        f"print({children.MARK!r} + json.dumps({{'warning': ' '.join(said)}}))"
    )

    def command(_run: Run, job: FitJob, _devices: int) -> list[str]:
        return [sys.executable, "-c", child, json.dumps({"overrides": job.overrides})]

    monkeypatch.setattr(fit_processes, "command_of", command)
    jobs = [FitJob("sft", "sft", seed, ("train.lora_rank=4",)) for seed in range(4)]
    display = Said()
    fit_apart(run_in(tmp_path / "run", device), jobs, 2, display)
    given = [line.removeprefix("sft: ").removeprefix("device=") for line in display.lines]
    assert len(given) == 4
    assert sorted({card for card in given if card}) == expected


def resolved(*words: str) -> Any:
    return resolve(compose_config("compare", ["preset=smoke", *words]))


def test_as_many_fits_go_side_by_side_as_have_room(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    need = fit_bytes(tiny, 384)
    config = resolved("fit_processes=0", "train.batch_tokens=384")
    for free, threads, expected in (
        (need // 2, 5, 1),
        (3 * need + 1, 5, 3),
        (100 * need, 5, 5),
        (100 * need, 13, 3),  # four each
    ):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        memory = SimpleNamespace(available=free)
        monkeypatch.setattr(fit_processes.psutil, "virtual_memory", lambda memory=memory: memory)
        settled = with_processes(config, tiny)
        assert settled.fit_processes == expected
    assert config.fit_processes == 0  # as it is kept: another sitting may have other room
    assert with_processes(resolved("fit_processes=2"), tiny).fit_processes == 2
    assert fit_bytes(tiny, 2048) > need


def test_a_negative_number_of_fits_is_one_sentence() -> None:
    with pytest.raises(TaskError, match=r"fit_processes=-1 must be at least 1, or 0"):
        resolved("fit_processes=-1")


def test_the_full_preset_trains_a_clause_as_the_laptop_preset_does() -> None:
    def preset(name: str) -> Mapping[str, Any]:
        found = OmegaConf.to_container(OmegaConf.load(CONF / "preset" / f"{name}.yaml"))
        assert isinstance(found, dict)
        return {str(key): value for key, value in found.items()}

    full, laptop = resolve(compose_config("compare", ["preset=full"])), preset("laptop")
    num_clauses = len(load_task("regs").memories)
    of_laptop = laptop["train"]["max_tokens"] / laptop["task"]["num_clauses"]
    assert full.train.max_tokens / num_clauses == pytest.approx(of_laptop, rel=0.01)
    assert (full.task.num_clauses, full.seeds, full.fit_processes) == (0, 3, 0)
    assert (full.evaluation.batch_size, full.evaluation.timed_questions) == (256, 40)


def test_the_models_of_a_finished_seed_are_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pristine_lively: Backbone
) -> None:
    use(monkeypatch, pristine_lively)
    models: dict[int, list[weakref.ref[Any]]] = {}
    left: list[int] = []
    ask = compare.ask_dialogues

    def asked(config: Any, run: Run, methods: list[Any], task: Any, seed: int, *rest: Any) -> None:
        models[seed] = [weakref.ref(method.backbone.model) for method in methods]
        left.append(sum(model() is not None for model in models.get(seed - 1, ())))
        ask(config, run, methods, task, seed, *rest)

    monkeypatch.setattr(compare, "ask_dialogues", asked)
    run_command(monkeypatch, *SMALL, "run_methods=[sft]", "mlflow=false", f"runs_dir={tmp_path}", "seeds=2")
    assert len(models) == 2
    assert left == [0, 0]


def test_writing_takes_the_base_model_that_is_at_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pristine_lively: Backbone
) -> None:
    use(monkeypatch, pristine_lively)
    loaded: list[str] = []

    def load(name: str, *_args: Any) -> Backbone:
        loaded.append(name)
        return pristine_lively.clone()

    monkeypatch.setattr("methods.recall.spec.load_backbone", load)
    words = (*SMALL, "run_methods=[recall]", "mlflow=false", "task.num_clauses=3", f"runs_dir={tmp_path}")
    run_command(monkeypatch, *words)  # the other clauses of the rulebook are written into what is searched
    assert run_folders(tmp_path)
    assert loaded == []


def test_what_a_batch_of_dialogues_held_is_gone_before_memory_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pristine_lively: Backbone
) -> None:
    use(monkeypatch, pristine_lively)
    monkeypatch.setattr(decode, "recordable", lambda _device: True)  # as on a card
    held: list[int] = []
    answers, time = RagMethod.answer_batch, compare.time_answers

    def answered(*args: Any) -> Any:
        found = answers(*args)
        held.append(len(fixed_cache._kept))
        return found

    def timed(*args: Any) -> None:
        held.append(len(fixed_cache._kept))
        monkeypatch.setattr(decode, "recordable", lambda _device: False)
        time(*args)

    monkeypatch.setattr(RagMethod, "answer_batch", answered)
    monkeypatch.setattr(compare, "time_answers", timed)
    run_command(monkeypatch, *SMALL, "run_methods=[rag]", "mlflow=false", f"runs_dir={tmp_path}")
    assert held[0] > 0 and held[-1] == 0


def test_on_a_card_memory_is_measured_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each in a process of its own: all have begun before any has ended."""
    together = threading.Barrier(3, timeout=20)

    def run(words: list[str], **_settings: Any) -> Any:
        together.wait()
        body = {"peak_bytes": len(words[-1]), "kind": "vram", "peaks_bytes": [1, 2], "reserved_bytes": 9}
        return SimpleNamespace(returncode=0, stdout=children.MARK + json.dumps(body) + "\n", stderr="")

    monkeypatch.setattr(footprint.subprocess, "run", run)
    monkeypatch.setattr(footprint, "saved_config", lambda _folder: SimpleNamespace(device="cuda"))
    monkeypatch.setattr(footprint, "resolve_device", lambda _device: torch.device("cuda", 0))
    found = footprint.footprints(tmp_path, 0, ["recall", "sft", "rag"], Said())
    assert found["sft"] == Footprint(3, "vram", (1, 2), 9)


class Narrow:
    """A method that has room for so many answers at once."""

    name = "narrow"

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def answer_batch(self, contexts: list[Context]) -> list[Answer]:
        if len(contexts) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(len(contexts))
        return [Answer((Part("text", ctx.messages[-1].content),), (), Usage(1, 1)) for ctx in contexts]


def test_answers_that_find_no_room_together_are_generated_in_parts(caplog: pytest.LogCaptureFixture) -> None:
    task = load_task("regs", 6, 0)
    dialogues = build_dialogues(
        task,
        0,
        "test",
        DialogueOptions(questions_per_clause=1, max_unanswerable=3, max_two_clause=2, num_ordinary=3),
    )
    settings: dict[str, Any] = {"seed": 0, "max_new_tokens": 8, "batch_size": 16}
    wide, narrow = Narrow(99), Narrow(3)
    expected = [r.answer.raw for records in run_retention(wide, task, dialogues, **settings) for r in records]  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, logger="eval"):
        found = [r.answer.raw for records in run_retention(narrow, task, dialogues, **settings) for r in records]  # type: ignore[arg-type]
    assert found == expected
    assert max(narrow.sizes) <= 3 < max(wide.sizes)
    assert any("answers are generated in two parts" in record.getMessage() for record in caplog.records)
    with pytest.raises(MethodError, match="one answer of narrow does not fit"):
        list(run_retention(Narrow(0), task, dialogues, **settings))  # type: ignore[arg-type]
