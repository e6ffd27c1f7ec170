"""benchmarks/gpu.py on a CPU with the tiny model: each part measures, one that fails or hangs is written so."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import ON_CPU, Part
from methods.backbone import Backbone
from tasks.base import Message

CPU = torch.device("cpu")
SLEEP = "import time; time.sleep(600)"


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def in_python(name: str, code: str, limit_s: float = 60, may_be_cut: bool = False) -> Part:
    return Part(name, [sys.executable, "-c", code], limit_s, may_be_cut)


def test_ceilings_are_rates() -> None:
    product, copy = gpu.ceilings(CPU, ON_CPU)
    assert product["flops_per_s"] > 0 and copy["bytes_per_s"] > 0


def test_both_trainings_step_on_the_same_tokens(tiny: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    ours, stock = gpu.training(tiny, ON_CPU)
    assert (ours["name"], stock["name"]) == ("train_lora", "stock PEFT, HF Trainer")
    tokens = [each["tokens_per_s"] * each["step_s"] * each["steps"] for each in (ours, stock)]
    batches = gpu.training_batches(tiny, ON_CPU)
    assert len(batches) == ON_CPU.steps
    counted = sum(len(sample) for batch in batches for sample in batch)
    assert all(math.isclose(found, counted) for found in tokens)
    assert all(tensor.equal(before[name]) for name, tensor in tiny.model.state_dict().items())


def test_both_loops_decode_the_same_number_of_tokens(lively: Backbone) -> None:
    found = list(gpu.decoding(lively, ON_CPU))
    pairs = list(zip(found[::2], found[1::2], strict=True))
    assert [(a["batch"], b["batch"]) for a, b in pairs] == [(size, size) for size in ON_CPU.batches]
    assert all(a["new_tokens"] == b["new_tokens"] > 0 for a, b in pairs)


def test_a_row_ends_at_its_first_stop_token(lively: Backbone) -> None:
    prompts = [
        gpu.encode_prompt(lively, [Message("user", text)]) for text in ("a", "what is due, and when?", "b c")
    ]
    ours = gpu.decoded_here(lively, prompts, 40)
    assert gpu.decoded_by_transformers(lively, prompts, 40) == ours


def test_a_part_that_fails_or_hangs_is_written_and_the_next_goes_on(tmp_path: Path) -> None:
    found = json.dumps({"name": "first", "seen_bytes": 2**20})
    parts = [
        in_python("broken", f"print({gpu.MARK + found!r}, flush=True); raise ValueError('no room on the card')"),
        in_python("hanging", f"print({gpu.MARK + found!r}, flush=True); {SLEEP}", limit_s=gpu.LEAST_S),
        in_python("well", f"print('chatter'); print({gpu.MARK + found!r})"),
    ]
    assert not gpu.run_parts(parts, 5, tmp_path)
    ended = {each["part"]: each for each in rows(tmp_path) if "status" in each}
    assert {name: each["status"] for name, each in ended.items()} == {
        "broken": "failed",
        "hanging": "failed",
        "well": "done",
    }
    assert "no room on the card" in ended["broken"]["error"]
    assert "was ended" in ended["hanging"]["error"]
    measured = [each["part"] for each in rows(tmp_path) if "name" in each]
    assert measured == ["broken", "hanging", "well"]  # what came before the end is kept
    text = (tmp_path / "results.txt").read_text(encoding="utf-8")
    assert "no room on the card" in text and "first: seen_bytes 1 MiB" in text


def test_what_may_be_cut_is_no_failure_and_a_part_without_time_is_left_out(tmp_path: Path) -> None:
    endless = in_python("comparison", SLEEP, limit_s=gpu.LEAST_S, may_be_cut=True)
    assert gpu.run_parts([endless], 5, tmp_path)
    assert gpu.run_parts([in_python("late", "raise SystemExit(1)")], gpu.LEAST_S / 60 / 2, tmp_path)
    assert [each["status"] for each in rows(tmp_path)] == ["cut", "left out"]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(gpu.ROOT)}
    call = [sys.executable, "benchmarks/gpu.py", *words]
    return subprocess.run(call, capture_output=True, text=True, cwd=gpu.ROOT, env=env, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_and_ends(tmp_path: Path) -> None:
    done = command("--to", str(tmp_path / "results"))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "no CUDA device" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_refused(tmp_path: Path) -> None:
    done = command("--to", str(tmp_path), "--device", "cpu")
    assert done.returncode == 2 and "name a new folder" in done.stderr


def test_all_parts_on_a_cpu(tmp_path: Path) -> None:
    """The command as it is, but for its size."""
    smallest = "preset=smoke run_methods=[sft] train.max_tokens=300 evaluation.max_new_tokens=8"
    words = ("--device", "cpu", "--model", "tiny", "--minutes", "60", "--compare", smallest)
    done = command("--to", str(tmp_path / "results"), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(tmp_path / "results")
    assert found[0]["part"] == "machine" and found[0]["device"] == "cpu"
    ended = {each["part"]: each["status"] for each in found if "status" in each}
    assert [name for name in ended if name != "tests"] == [
        "ceilings",
        "training",
        "decoding",
        "memory",
        "comparison",
    ]
    assert set(ended.values()) == {"done"}
    peaks = {each["name"]: each["peak_rss_bytes"] for each in found if each["part"] == "memory" and "name" in each}
    assert peaks.keys() == {"recall", "sft", "rag"} and all(peak > 0 for peak in peaks.values())
    assert (tmp_path / "results" / "runs" / "latest" / "summary.json").exists()
