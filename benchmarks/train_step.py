"""What each shortening of a training step saves, as ratios: `python benchmarks/train_step.py`.

Trainings of the packaged model through `train_lora`, LoRA on all linear layers, on batches of SFT samples on
clauses of `regs`. Each batch is stepped once a way before the next one comes, so the ways share weights, batches
and whatever else the machine does; the first rounds warm up. The median of the paired ratios is what counts.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from methods import control_rows, packing
from methods.backbone import Backbone, load_backbone
from methods.batches import length_grouped
from methods.samples import Sample
from methods.sft import sft_sample
from methods.train import LoraTrainConfig, train_lora
from pipelines.progress import quiet_libraries
from tasks.examples import ExampleConfig, augmented, clause_examples, general
from tasks.registry import load_task

NUM_CLAUSES, NUM_BATCHES = 18, 3


@dataclass(frozen=True)
class Way:
    """A training step with some of the shortenings taken back."""

    name: str
    padded: bool = False  # samples padded to one length, what they begin with computed for each
    peft_lora: bool = False  # PEFT's own forward of its layers
    peft_rows: bool = False  # gradient of the whole embedding and head for the control tokens' rows
    whole_head: bool = False  # logits of every position


OURS = Way("as it is")
WAYS = (
    Way("padded rows", padded=True),
    Way("PEFT's LoRA", peft_lora=True),
    Way("padded rows and PEFT's LoRA", padded=True, peft_lora=True),
    Way("PEFT's trained rows", peft_rows=True),
    Way("head on every position", whole_head=True),
)


def batches_of(backbone: Backbone) -> list[list[Sample]]:
    task, rng, config = load_task("regs", NUM_CLAUSES, 0), random.Random(0), ExampleConfig()
    conversations = general(task.sft)
    examples = [e for found in clause_examples(task.memories, config).values() for e in found]
    samples = [sft_sample(backbone, augmented(example, conversations, config, rng)) for example in examples]
    return length_grouped(samples, LoraTrainConfig().batch_tokens, rng)[:NUM_BATCHES]


def step_times(backbone: Backbone, rounds: list[list[Sample]], steps: int) -> dict[str, list[float]]:
    """Way -> seconds of each step, in the order of the rounds; the warm-up is left out."""
    times: dict[str, list[float]] = {way.name: [] for way in (OURS, *WAYS)}
    trained_rows = control_rows._trained_rows
    started, now = 0.0, OURS

    def epochs() -> Iterator[list[list[Sample]]]:
        nonlocal started, now
        model = backbone.model  # PEFT has put its layers into it by now
        ours = model.config._attn_implementation
        plain = next((usual for usual, apart in packing.APART.items() if apart == ours), ours)
        layers = [layer for layer in model.modules() if "forward" in vars(layer)]
        forwards = [layer.forward for layer in layers]
        for number in range(NUM_BATCHES + steps):
            batch = rounds[number % NUM_BATCHES]
            for now in (OURS, *WAYS):
                model.set_attn_implementation(plain if now.padded else ours)
                for layer, fused in zip(layers, forwards, strict=True):
                    layer.forward = type(layer).forward.__get__(layer) if now.peft_lora else fused
                control_rows._trained_rows = (lambda _layer: None) if now.peft_rows else trained_rows
                started = time.perf_counter()
                yield [[replace(s, labels=s.input_ids) for s in batch] if now.whole_head else batch]
        model.set_attn_implementation(ours)
        for layer, fused in zip(layers, forwards, strict=True):
            layer.forward = fused

    def stepped(_stage: str, _done: int, _total: int) -> None:
        times[now.name].append(time.perf_counter() - started)

    try:
        train_lora(backbone, epochs(), LoraTrainConfig(max_tokens=10**9), stage="", progress=stepped)
    finally:
        control_rows._trained_rows = trained_rows
    return {name: found[NUM_BATCHES:] for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--steps", type=int, default=12, help="steps a way, without the warm-up (default: 12)")
    steps = parser.parse_args().steps
    quiet_libraries()
    backbone = load_backbone(device="cpu")
    rounds = batches_of(backbone)
    times = step_times(backbone, rounds, steps)
    ours = times[OURS.name]
    tokens = [sum(map(len, batch)) for batch in rounds]
    sys.stdout.write(
        f"{backbone.name}, {backbone.dtype_name}, threads: {torch.get_num_threads()}; {steps} steps a way on "
        f"batches of {min(tokens)} to {max(tokens)} tokens; a step as it is: {statistics.median(ours):.2f} s\n"
        "time over that of the same step as it is, median (min to max):\n"
    )
    for way in WAYS:
        ratios = [other / own for other, own in zip(times[way.name], ours, strict=True)]
        sys.stdout.write(
            f"  {way.name:<28}{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})\n"
        )


if __name__ == "__main__":
    main()
