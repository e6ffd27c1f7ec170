"""Fits in processes of their own: the same fits, side by side; what goes wrong there is said here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import SMALL, run_command, run_folders
from safetensors.torch import load_file

from eval.records import LifecycleRecord, TurnRecord, read_all_records, read_records
from eval.runner import Footprint
from methods.base import MethodError
from pipelines import children, compare, fit_processes
from pipelines.config import saved_config
from pipelines.progress import Display
from pipelines.run import Run
from pipelines.saved_fits import load_fit, on_fit_threads, saved_fits

WORDS = (*SMALL, "run_methods=[recall,sft]", "mlflow=false")
ADAPTER = "adapter_model.safetensors"


def jobs(*names: str) -> list[fit_processes.FitJob]:
    return [fit_processes.FitJob(name, name, 0) for name in names]


@pytest.fixture(autouse=True)
def no_footprints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        compare, "footprints", lambda _folder, _seed, names, _display: {n: Footprint(1, "rss") for n in names}
    )


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's threads until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def turns_of(monkeypatch: pytest.MonkeyPatch, runs_dir: Path, processes: int) -> list[TurnRecord]:
    run_command(monkeypatch, *WORDS, f"runs_dir={runs_dir}", f"fit_processes={processes}")
    (folder,) = run_folders(runs_dir)
    return read_records(folder / "records.jsonl")[0]


def test_fitted_apart_or_here_the_answers_are_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    apart = turns_of(monkeypatch, tmp_path / "apart", 2)
    here = turns_of(monkeypatch, tmp_path / "here", 1)
    assert [(r.id, r.answer.raw) for r in apart] == [(r.id, r.answer.raw) for r in here]
    assert {r.method for r in apart} == {"recall", "sft"}


def test_the_fits_of_all_seeds_are_made_before_any_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else two processes would have one seed's single method to share."""
    made: list[list[bool]] = []
    ask = compare.ask_dialogues

    def asked(config: Any, run: Run, *rest: Any) -> None:
        made.append([load_fit(run.fit_folder(seed, "recall")) is not None for seed in (0, 1)])
        ask(config, run, *rest)

    monkeypatch.setattr(compare, "ask_dialogues", asked)
    words = (*SMALL, "run_methods=[recall]", "mlflow=false", f"runs_dir={tmp_path}", "seeds=2")
    run_command(monkeypatch, *words, "fit_processes=2")
    assert made == [[True, True], [True, True]]


def lifecycle_of(
    monkeypatch: pytest.MonkeyPatch, runs_dir: Path, processes: int
) -> tuple[Path, list[LifecycleRecord]]:
    words = (*SMALL, "run_methods=[sft]", "mlflow=false", "evaluation.lifecycle=true", "lifecycle.num_written=2")
    run_command(monkeypatch, *words, f"runs_dir={runs_dir}", f"fit_processes={processes}")
    (folder,) = run_folders(runs_dir)
    return folder, [r for r in read_all_records(folder / "records.jsonl") if isinstance(r, LifecycleRecord)]


def test_refits_apart_are_those_made_here_and_stay_in_the_run_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same weights, which are those of the set in the fit's folder and of no other."""
    folder, apart = lifecycle_of(monkeypatch, tmp_path / "apart", 2)
    folder_here, here = lifecycle_of(monkeypatch, tmp_path / "here", 1)
    assert [(r.step, r.turn.id, r.turn.answer.raw) for r in apart] == [
        (r.step, r.turn.id, r.turn.answer.raw) for r in here
    ]
    assert {r.step for r in apart if r.refit} == {"write", "update", "forget"}
    refits = folder / "refits" / "0" / "sft"
    changed, forgotten = (fit_processes.read_memories(refits / name) for name in ("changed", "forgotten"))
    task = saved_config(folder).task.load(0)
    assert {m.id for m in changed} > {m.id for m in task.memories} > {m.id for m in forgotten}
    assert set(forgotten) < set(task.memories)
    assert task.revisions and set(task.revisions) <= set(changed)
    weights = {
        (place, name): load_file(place / "refits" / "0" / "sft" / name / "adapters" / "sft" / ADAPTER)
        for place in (folder, folder_here)
        for name in ("changed", "forgotten")
    }
    for name in ("changed", "forgotten"):
        assert (refits / name / "fit.json").exists()
        one, two = weights[folder, name], weights[folder_here, name]
        for key in one:
            torch.testing.assert_close(two[key], one[key], rtol=0.0, atol=1e-4)
    one, two = weights[folder, "changed"], weights[folder, "forgotten"]
    assert max(float((one[key] - two[key]).abs().max()) for key in one) > 1e-3
    assert saved_fits(folder) == {(0, "sft")}  # a chat, say, does not offer them


def test_devices_that_share_a_fit_make_the_same_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two processes on a CPU: the same steps and tokens, and weights and vectors that differ by rounding alone."""
    fitted = []
    for devices in (1, 2):
        words = (*SMALL, "run_methods=[recall]", "mlflow=false", "train.max_tokens=1500", f"fit_devices={devices}")
        run_command(monkeypatch, *words, f"runs_dir={tmp_path / str(devices)}")
        (folder,) = run_folders(tmp_path / str(devices))
        fitted.append(folder / "fits" / "0" / "recall")
    alone, shared = [json.loads((folder / "fit.json").read_text(encoding="utf-8")) for folder in fitted]
    for same in ("forward_tokens", "optimizer_steps", "bytes_stored"):
        assert alone[same] == shared[same]
    assert alone["curves"].keys() == shared["curves"].keys()
    for name, curve in alone["curves"].items():
        assert shared["curves"][name] == pytest.approx(curve, rel=1e-2)
    for file in ("bank/bank.safetensors", "adapters/step2/adapter_model.safetensors"):
        one, two = [load_file(folder / file) for folder in fitted]
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=0.0, atol=5e-3)


def test_more_devices_than_gpus_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with two GPUs."""
    monkeypatch.setattr(fit_processes, "resolve_device", lambda _device: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert fit_processes.own_device("auto") == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(MethodError, match=r"fit_devices=3 asks for more GPUs than torch sees here \(2\)"):
        fit_processes.own_device("auto")


def test_a_mistake_of_the_users_comes_back_as_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = [f"methods.recall.mixture.{n}=0" for n in ("memory_front", "memory_full", "openings", "queries")]
    nothing += [f"examples.{n}=0" for n in ("sft_only", "reading", "unanswerable")]
    words = (*WORDS, "fit_processes=2", f"runs_dir={tmp_path}", *nothing)
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, *words)
    assert stopped.value.code == 2
    assert "mixture: an epoch would hold no sample" in capsys.readouterr().err


def test_a_process_that_dies_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    """Here: the run folder holds no configuration."""
    run = Run(tmp_path, {})
    with pytest.raises(RuntimeError, match=r"(?s)fitting (sft|recall) failed:.*config\.json"):
        fit_processes.fit_apart(run, jobs("sft", "recall"), 2, Display())


def test_what_a_library_prints_goes_to_the_log_and_nothing_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words, JSON, bytes that are no text, half a line before one of the fit's own."""
    mark = children.MARK.encode()
    prints = {
        "a": b'loaded\n{"loss": 1}\n3\n\xff\nhalf ' + mark + b'{"stage": "a", "done": 1, "total": 2}\nend\n',
        "b": b"half " + mark + b'{"error": "put it right"}\n',
    }

    def printing(_run: Run, job: fit_processes.FitJob, _devices: int) -> list[str]:
        return [sys.executable, "-c", f"import sys; sys.stdout.buffer.write({prints[job.name]!r})"]

    monkeypatch.setattr(fit_processes, "command_of", printing)
    heard: list[tuple[str, int, int]] = []
    monkeypatch.setattr(Display, "__call__", lambda _self, *said: heard.append(said))
    run = Run(tmp_path, {})
    with pytest.raises(MethodError, match=r"^put it right$"):
        fit_processes.fit_apart(run, jobs("a", "b"), 1, Display())
    assert heard == [("a", 1, 2)] and run.stages == ["fit a seed 0"]
    logs = [(run.fit_folder(0, name) / "fit.log").read_text(encoding="utf-8") for name in ("a", "b")]
    assert logs == ['loaded\n{"loss": 1}\n3\n\ufffd\nhalf end\n', "half "]


def test_after_a_failure_nothing_new_is_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even the name that the failed fit's own worker would take next."""
    started: list[str] = []
    popen = fit_processes.subprocess.Popen

    def noting(words: list[str], **settings: object) -> object:
        started.append(json.loads(words[-1])["name"])
        return popen(words, **settings)  # type: ignore[call-overload]

    monkeypatch.setattr(fit_processes.subprocess, "Popen", noting)
    with pytest.raises(RuntimeError, match="fitting a failed"):
        fit_processes.fit_apart(Run(tmp_path, {}), jobs("a", "b", "c"), 1, Display())
    assert started == ["a"]


def test_a_fit_takes_as_many_threads_beside_others_as_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: Callable[[int], None]
) -> None:
    """Other numbers of threads would end in other weights."""
    monkeypatch.setenv("MKL_DYNAMIC", "FALSE")  # else a process has no more threads than cores
    threads(6)
    run_command(monkeypatch, *WORDS, f"runs_dir={tmp_path / 'apart'}", "fit_processes=2")
    run_command(monkeypatch, *SMALL, "run_methods=[sft]", "mlflow=false", f"runs_dir={tmp_path / 'here'}")
    assert torch.get_num_threads() == 6
    fits = [run_folders(tmp_path / name)[0] / "fits/0/sft" for name in ("apart", "here")]
    assert [read.notes["threads"] for fit in fits if (read := load_fit(fit))] == [2, 2]
    one, two = (load_file(fit / "adapters" / "sft" / ADAPTER) for fit in fits)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_fit_that_fails_gives_the_threads_back(threads: Callable[[int], None]) -> None:
    threads(3)
    with pytest.raises(ZeroDivisionError), on_fit_threads():
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3
