"""What a GPU does, in one call and under eight minutes: `python benchmarks/gpu.py --to FOLDER`.

Parts, in this order, each in a process of its own under a limit: a part that fails or hangs is written as such and
the next one goes on. FOLDER/results.jsonl grows by a line a measurement, FOLDER/results.txt says it in words.

ceilings    a bf16 matrix product, a copy on the device
training    tokens/s of `train_lora`, beside stock PEFT with the HF Trainer on the same batches
decoding    tokens/s of the one decode loop at several batches, beside stock `generate`
tests       the tests marked `cuda`
memory      peak memory of each method while it answers, of fits that learn next to nothing
comparison  `pipelines.compare`, as far as the time allows; results.txt says how one that was cut goes on

`--device cpu --model tiny` tries it all where there is no GPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from methods.backbone import PACKAGED_LM, Backbone, load_backbone
from methods.batches import length_grouped
from methods.chat import encode_prompt
from methods.decode import generate
from methods.samples import Sample
from methods.sft import sft_sample
from methods.train import LoraTrainConfig, train_lora
from pipelines.cli import fail
from pipelines.progress import quiet_libraries
from pipelines.run import PACKAGES, git_sha, version_of
from tasks.base import Message
from tasks.examples import ExampleConfig, augmented, clause_examples, general
from tasks.registry import load_task

ROOT = Path(__file__).resolve().parent.parent
LEAST_S = 20.0  # a part that would have less is not begun
LAST_WORDS = 600  # characters of a failed part's error stream that are kept
MARK = "measured: "  # before a measurement that a part prints for the process that started it
Measurement = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is done: what a GPU takes, or as little as will do to try the parts."""

    matrix: int  # rows and columns of each factor
    copy_mib: int
    repeats: int
    batch_tokens: int
    steps: int  # of training, once to warm up and once more
    batches: tuple[int, ...]  # of decoding
    new_tokens: int


ON_GPU = Sizes(8192, 4096, 10, 2048, 48, (1, 32, 256), 128)
ON_CPU = Sizes(256, 8, 2, 512, 2, (1, 3), 6)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median wall time, after one call that is not counted."""
    work()
    found = []
    for _ in range(repeats):
        synchronize(device)
        begin = time.perf_counter()
        work()
        synchronize(device)
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


# The parts: each yields its measurements as they come, `name` and what was measured.


def ceilings(device: torch.device, sizes: Sizes) -> Iterator[Measurement]:
    """What no program on this card exceeds: FLOP/s of a matrix product, bytes/s of a copy (read and written)."""
    n = sizes.matrix
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = seconds_of(lambda: a @ b, device, sizes.repeats)
    yield {"name": "matrix product", "size": n, "flops_per_s": 2 * n**3 / seconds}
    source = torch.zeros(sizes.copy_mib * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = seconds_of(lambda: target.copy_(source), device, sizes.repeats)
    yield {"name": "copy", "mib": sizes.copy_mib, "bytes_per_s": 2 * len(source) / seconds}


def training_batches(backbone: Backbone, sizes: Sizes) -> list[list[Sample]]:
    """SFT samples on clauses of `regs`, as many batches as are stepped."""
    rng, config, task = random.Random(0), ExampleConfig(), load_task("regs", 18, 0)
    conversations = general(task.sft)
    found: list[list[Sample]] = []
    while len(found) < sizes.steps:
        examples = [e for each in clause_examples(task.memories, config).values() for e in each]
        samples = [sft_sample(backbone, augmented(e, conversations, config, rng)) for e in examples]
        found += length_grouped(samples, sizes.batch_tokens, rng)
    return found[: sizes.steps]


def training(backbone: Backbone, sizes: Sizes) -> Iterator[Measurement]:
    """LoRA on all linear layers, on the same batches both ways: once, which is told apart, and once more.

    A token costs about 4 FLOPs a parameter: forward, and back to what came before, the weights themselves frozen.
    """
    batches = training_batches(backbone, sizes)
    tokens = sum(len(sample) for batch in batches for sample in batch)
    size = sum(parameter.numel() for parameter in backbone.model.parameters())
    for name, train in (("train_lora", trained_here), ("stock PEFT, HF Trainer", trained_by_trainer)):
        fresh = backbone.clone()
        reset_peak(backbone.device)
        first_s, seconds = train(fresh, batches)
        yield {
            "name": name,
            "batch_tokens": sizes.batch_tokens,
            "steps": sizes.steps,
            "step_s": seconds / sizes.steps,
            "first_s": first_s,
            "tokens_per_s": tokens / seconds,
            "flops_per_s": 4 * size * tokens / seconds,
            **peaks(backbone.device),
        }


def trained_here(backbone: Backbone, batches: Sequence[list[Sample]]) -> tuple[float, float]:
    """Seconds of the first time through the batches, and of the second."""
    clock: list[float] = []

    def tick() -> None:
        synchronize(backbone.device)
        clock.append(time.perf_counter())

    def epochs() -> Iterator[list[list[Sample]]]:
        tick()
        for _ in range(2):
            yield list(batches)
            tick()

    config = LoraTrainConfig(max_tokens=10**9, learning_rate=1e-5)
    train_lora(backbone, epochs(), config, stage="")
    begin, middle, end = clock
    return middle - begin, end - middle


def trained_by_trainer(backbone: Backbone, batches: Sequence[list[Sample]]) -> tuple[float, float]:
    """The same with nothing of ours: padded batches, PEFT's layers, the Trainer's loop."""
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    pad, device = int(backbone.tokenizer.pad_token_id), backbone.device

    def padded(batch: Sequence[Sample]) -> dict[str, torch.Tensor]:
        width = max(map(len, batch))
        rows = [[*s.input_ids, *[pad] * (width - len(s))] for s in batch]
        labels = [[*s.labels, *[-100] * (width - len(s))] for s in batch]
        mask = [[1] * len(s) + [0] * (width - len(s)) for s in batch]
        return {name: torch.tensor(x) for name, x in zip(INPUTS, (rows, mask, labels), strict=True)}

    clock: list[float] = []

    class Watch(TrainerCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.on_epoch_end()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            synchronize(device)
            clock.append(time.perf_counter())

    lora = LoraConfig(
        r=LoraTrainConfig().lora_rank,
        target_modules=list(backbone.facts.lora_targets),
        fan_in_fan_out=backbone.facts.fan_in_fan_out,
        trainable_token_indices={name: list(backbone.ids.new_rows) for name in backbone.facts.trained_matrices},
        task_type="CAUSAL_LM",
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=1,  # each item is a batch already
            num_train_epochs=2,
            bf16=backbone.dtype is torch.bfloat16,
            use_cpu=device.type == "cpu",
            learning_rate=1e-5,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(
            get_peft_model(backbone.model, lora),
            arguments,
            data_collator=lambda items: items[0],
            train_dataset=[padded(batch) for batch in batches],  # type: ignore[arg-type]
            callbacks=[Watch()],
        )
        trainer.train()
    begin, first, middle, end = clock  # of two epochs, their beginnings and ends
    return first - begin, end - middle


INPUTS = ("input_ids", "attention_mask", "labels")


def decoding(backbone: Backbone, sizes: Sizes) -> Iterator[Measurement]:
    """Greedy answers to dev questions, both loops on the same prompts; the first call warms up and is told apart.

    A step reads every weight once at least: floor_bytes, which over the copy's rate is the least time it takes.
    """
    questions = [qa.question for qa in load_task("regs", 18, 0).held_out("dev")]
    floor = sum(p.numel() * p.element_size() for p in backbone.model.parameters())
    for batch in sizes.batches:
        asked = [questions[n % len(questions)] for n in range(batch)]
        prompts = [encode_prompt(backbone, [Message("user", question)]) for question in asked]
        for name, decode in (("generate", decoded_here), ("stock generate", decoded_by_transformers)):
            reset_peak(backbone.device)
            seconds = []
            for _ in range(2):
                synchronize(backbone.device)
                begin = time.perf_counter()
                lengths = decode(backbone, prompts, sizes.new_tokens)
                synchronize(backbone.device)
                seconds.append(time.perf_counter() - begin)
            yield {
                "name": name,
                "batch": batch,
                "new_tokens": sum(lengths),
                "first_s": seconds[0],
                "tokens_per_s": sum(lengths) / seconds[1],
                "step_s": seconds[1] / max(lengths),
                "floor_bytes": floor,
                **peaks(backbone.device),
            }


def decoded_here(backbone: Backbone, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[int]:
    """How many tokens each row got."""
    return [len(row.token_ids) for row in generate(backbone, prompts, new_tokens)]


def decoded_by_transformers(backbone: Backbone, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[int]:
    pad, stops = int(backbone.tokenizer.pad_token_id), list(backbone.facts.stop_ids)
    width = max(map(len, prompts))
    ids = torch.tensor([[*[pad] * (width - len(p)), *p] for p in prompts], device=backbone.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=backbone.device)
    found = backbone.model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=pad,
        suppress_tokens=[backbone.ids.memory_pad],
    )
    said = found[:, width:].tolist()
    return [next((n + 1 for n, token in enumerate(row) if token in stops), len(row)) for row in said]


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> Measurement:
    """Of this process since `reset_peak`, allocated and reserved; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    return {
        "peak_bytes": torch.cuda.max_memory_allocated(device),
        "reserved_bytes": torch.cuda.max_memory_reserved(device),
    }


@dataclass(frozen=True)
class Asked:
    """The command's words."""

    to: Path
    device: str
    model: str
    minutes: float
    compare: str

    @property
    def sizes(self) -> Sizes:
        return ON_GPU if self.device == "cuda" else ON_CPU

    @property
    def words(self) -> list[str]:
        """What every comparison is told."""
        return [f"device={self.device}", f"model={self.model}", f"runs_dir={self.to / 'runs'}", "mlflow=false"]


def measured(part: str, asked: Asked) -> Iterator[Measurement]:
    """The measurements of one part, in this process."""
    device = torch.device(asked.device)
    if part == "ceilings":
        yield from ceilings(device, asked.sizes)
    elif part in ("training", "decoding"):
        backbone = load_backbone(asked.model, asked.device)
        work = training if part == "training" else decoding
        for found in work(backbone, asked.sizes):
            yield {**found, "model": backbone.name, "dtype": backbone.dtype_name}
    elif part == "memory":
        yield from memory(asked)


def memory(asked: Asked) -> Iterator[Measurement]:
    """A comparison whose fits learn next to nothing: the peaks of its footprints, a process a method."""
    words = ["task=regs", "preset=smoke", "evaluation.timed_questions=1", *asked.words]
    subprocess.run([sys.executable, "-m", "pipelines.compare", *words], cwd=ROOT, check=True, stdout=sys.stderr)
    body = json.loads((asked.to / "runs" / "latest" / "summary.json").read_text(encoding="utf-8"))
    for method, found in body["methods"].items():
        kept = {key.removeprefix("cost/"): value["value"] for key, value in found.items() if "cost/peak" in key}
        yield {"name": method, **{key: value for key, value in kept.items() if value is not None}}


# Running the parts


@dataclass(frozen=True)
class Part:
    """One of them: what starts it and the most that it may take."""

    name: str
    words: Sequence[str]
    limit_s: float
    may_be_cut: bool = False  # what it has done by then stands


def parts_of(asked: Asked) -> list[Part]:
    """The limits of single parts keep a card's time; on a CPU only that of all together counts."""
    whole_s = 60 * asked.minutes

    def own(name: str, limit_s: float) -> Part:
        told = ["--to", str(asked.to), "--device", asked.device, "--model", asked.model, "--part", name]
        words = [sys.executable, str(Path(__file__).resolve()), *told]
        return Part(name, words, whole_s if asked.device == "cpu" else limit_s)

    files = [
        file for file in (ROOT / "tests").rglob("test_*.py") if "mark.cuda" in file.read_text(encoding="utf-8")
    ]
    tests = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", *map(str, sorted(files))]
    compare = [sys.executable, "-m", "pipelines.compare", *asked.compare.split(), *asked.words]
    return [
        own("ceilings", 40),
        own("training", 90),
        own("decoding", 90),
        *([Part("tests", tests, 90)] if files else []),
        own("memory", 120),
        Part("comparison", compare, whole_s, may_be_cut=True),
    ]


def run_part(part: Part, limit_s: float, folder: Path) -> tuple[list[Measurement], Measurement]:
    """(what it measured, how it ended), of a process that is ended at its limit; its output stays in a log."""
    log = folder / f"{part.name}.log"
    begin = time.perf_counter()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            part.words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, text=True
        )
        try:
            status = "done" if process.wait(limit_s) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "cut"
            end_group(process)
        except BaseException:
            end_group(process)
            raise
    seconds = round(time.perf_counter() - begin, 1)
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    found = [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]
    ended: Measurement = {"part": part.name, "status": status, "seconds": seconds}
    if status == "failed":
        ended["error"] = text[-LAST_WORDS:]
    elif status == "cut" and part.may_be_cut:
        ended["said"] = f"it goes on with {shlex.join(part.words)}"
    elif status == "cut":
        ended |= {"status": "failed", "error": f"it took more than its {limit_s:.0f} s and was ended"}
    elif lines and not found:
        ended["said"] = lines[-1]
    return [{"part": part.name, **each} for each in found], ended


def end_group(process: subprocess.Popen[str]) -> None:
    """Asks a part and what it started to end, as Ctrl-C does, and ends them if they do not."""
    for asked, patience_s in ((signal.SIGINT, 8), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, asked)
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            pass
        process.wait()
        return


def machine(device: str) -> Measurement:
    """What the figures were measured with."""
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    versions = {package: version_of(package) for package in PACKAGES}
    return {"part": "machine", "device": name, "git_sha": git_sha(), "versions": versions}


def write(folder: Path, lines: Sequence[Measurement], text: Sequence[str]) -> None:
    """Behind what is written already, and on the terminal."""
    with (folder / "results.jsonl").open("a", encoding="utf-8") as results:
        results.writelines(json.dumps(line) + "\n" for line in lines)
    with (folder / "results.txt").open("a", encoding="utf-8") as results:
        results.writelines(line + "\n" for line in text)
    sys.stdout.writelines(line + "\n" for line in text)
    sys.stdout.flush()


def run_parts(parts: Iterable[Part], minutes: float, folder: Path) -> bool:
    """Runs them in order within the time, writes each as it ends; whether none failed."""
    until = time.perf_counter() + 60 * minutes
    well = True
    rates: dict[str, float] = {}  # the ceilings
    for part in parts:
        limit_s = min(part.limit_s, until - time.perf_counter())
        if limit_s < LEAST_S:
            found, ended = [], {"part": part.name, "status": "left out", "seconds": 0.0}
        else:
            found, ended = run_part(part, limit_s, folder)
        if part.name == "ceilings":
            rates = {key: each[key] for each in found for key in ("flops_per_s", "bytes_per_s") if key in each}
        write(folder, [*found, ended], [*(in_words(each, rates) for each in found), how_it_ended(ended)])
        well = well and ended["status"] != "failed"
    return well


def in_words(each: Measurement, rates: dict[str, float]) -> str:
    """One measurement on a line, beside the ceilings where they are known."""
    part, name = each["part"], each["name"]
    if part == "ceilings":
        flops, moved = each.get("flops_per_s"), each.get("bytes_per_s")
        return f"{name}: {flops / 1e12:.1f} TFLOP/s" if flops else f"{name}: {moved / 1e12:.3f} TB/s"
    peak = f", peak {each['peak_bytes'] / 2**30:.2f} GiB" if "peak_bytes" in each else ""
    peak += f", first time {each['first_s']:.1f} s" if "first_s" in each else ""
    if part == "training":
        reached = each["flops_per_s"] / rates["flops_per_s"] if "flops_per_s" in rates else None
        share = f", {reached:.1%} of the matrix product" if reached is not None else ""
        step = f"{each['tokens_per_s']:,.0f} tokens/s, {1e3 * each['step_s']:.1f} ms a step"
        return f"training, {name}: {step}{share}{peak}"
    if part == "decoding":
        least = 1e3 * each["floor_bytes"] / rates["bytes_per_s"] if "bytes_per_s" in rates else None
        floor = f" (weights alone: {least:.2f})" if least is not None else ""
        return (
            f"decoding, batch {each['batch']}, {name}: {each['tokens_per_s']:,.0f} tokens/s, "
            f"{1e3 * each['step_s']:.2f} ms a step{floor}{peak}"
        )
    figures = ", ".join(f"{key} {value / 2**20:.0f} MiB" for key, value in each.items() if key.endswith("_bytes"))
    return f"{part}, {name}: {figures}"


def how_it_ended(ended: Measurement) -> str:
    lines = str(ended.get("error", "")).split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    said = f": {last or ended['said']}" if last or "said" in ended else ""
    return f"[{ended['part']} {ended['status']} in {ended['seconds']} s{said}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--to", type=Path, required=True, help="a new folder for the results")
    parser.add_argument(
        "--device", default="cuda", choices=("cuda", "cpu"), help="cpu tries the parts (default: cuda)"
    )
    parser.add_argument("--model", default=PACKAGED_LM, help="a packaged name, a folder, a Hub id")
    parser.add_argument("--minutes", type=float, default=7.5, help="for all parts together (default: 7.5)")
    parser.add_argument("--compare", default="task=regs preset=full seeds=1", help="words of the last part")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    words = vars(parser.parse_args())
    part, asked = words.pop("part"), Asked(**words)
    if part:
        quiet_libraries()
        for found in measured(part, asked):
            sys.stdout.write(MARK + json.dumps(found) + "\n")
            sys.stdout.flush()
        return
    if asked.device == "cuda" and not torch.cuda.is_available():
        fail("torch sees no CUDA device here; --device cpu --model tiny tries the parts without one")
    try:
        asked.to.mkdir(parents=True)
    except OSError as error:
        fail(f"--to {asked.to}: name a new folder ({error.strerror})")
    asked = replace(asked, to=asked.to.resolve())
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one card: the Trainer takes all that it sees
    write(asked.to, [machine(asked.device)], [])
    if not run_parts(parts_of(asked), asked.minutes, asked.to):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
