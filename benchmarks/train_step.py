"""What each shortening of a training step on a CPU saves, as ratios: `python benchmarks/train_step.py`.

Trainings of the packaged model through `train_lora`, LoRA on all linear layers, batches of SFT samples on clauses
of `regs`: each alone, then as turns of dialogues behind talk. Each batch is stepped once a way before the next
one comes, so the ways share weights, batches and whatever else the machine does; the first rounds warm up. The
median of the paired ratios is what counts.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from methods.augment import augmented
from methods.turns import example_turn, turn_batches

from methods import batches, control_rows
from methods.backbone import Backbone, load_backbone
from methods.batches import lay_out
from methods.chat import Sample
from methods.examples import ExampleConfig, clause_examples, general
from methods.sft import sft_sample
from methods.train import LoraTrainConfig, train_lora
from pipelines.progress import quiet_libraries
from tasks.registry import load_task

NUM_CLAUSES, NUM_BATCHES = 18, 3
ALONE = ExampleConfig(history_probability=0.0)
DIALOGUES = ExampleConfig(dialogue_turns=6, history_probability=0.8)


@dataclass(frozen=True)
class Way:
    """A training step with some of the shortenings taken back."""

    name: str
    stock_attention: bool = False  # SDPA's kernel
    peft_casts: bool = False  # of every LoRA input to fp32
    peft_rows: bool = False  # gradient of the whole embedding and head for the control tokens' rows
    whole_head: bool = False  # logits of every position
    own_rows: bool = False  # samples that begin alike do not share rows


OURS = Way("as it is")
SHORTENED = (
    Way("stock attention", stock_attention=True),
    Way("PEFT's casts", peft_casts=True),
    Way("PEFT's trained rows", peft_rows=True),
    Way("these three", stock_attention=True, peft_casts=True, peft_rows=True),
    Way("head on every position", whole_head=True),
)
SHARED = (Way("a row for each sample", own_rows=True),)


def batches_of(backbone: Backbone, config: ExampleConfig) -> list[list[Sample]]:
    task, rng = load_task("regs", NUM_CLAUSES, 0), random.Random(0)
    conversations = general(task.sft)
    examples = [e for found in clause_examples(task.memories, config).values() for e in found]
    drawn = [augmented(example, conversations, config, rng) for example in examples]
    turns = [example_turn(example, partial(sft_sample, backbone)) for example in drawn]
    return turn_batches(backbone, turns, config.dialogue_turns, LoraTrainConfig().batch_tokens, rng)[:NUM_BATCHES]


def step_times(
    backbone: Backbone, rounds: list[list[Sample]], ways: Sequence[Way], steps: int
) -> dict[str, list[float]]:
    """Way -> seconds of each step, in the order of the rounds; the warm-up is left out."""
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    trained_rows, least_shared = control_rows._trained_rows, batches.MIN_SHARED
    started = 0.0
    now = OURS

    def epochs() -> Iterator[list[list[Sample]]]:
        nonlocal started, now
        model = backbone.model  # PEFT has put its layers into it by now
        casting = [layer for layer in model.modules() if hasattr(layer, "cast_input_dtype_enabled")]
        for number in range(NUM_BATCHES + steps):
            batch = rounds[number % NUM_BATCHES]
            for now in ways:
                model.set_attn_implementation("sdpa" if now.stock_attention else "eager")
                for layer in casting:
                    layer.cast_input_dtype_enabled = now.peft_casts or backbone.dtype is not torch.bfloat16
                control_rows._trained_rows = (lambda _layer: None) if now.peft_rows else trained_rows
                batches.MIN_SHARED = sys.maxsize if now.own_rows else least_shared
                started = time.perf_counter()
                yield [[replace(s, labels=s.input_ids) for s in batch] if now.whole_head else batch]

    def stepped(_stage: str, _done: int, _total: int) -> None:
        times[now.name].append(time.perf_counter() - started)

    try:
        train_lora(backbone, epochs(), LoraTrainConfig(max_tokens=10**9), stage="", progress=stepped)
    finally:
        control_rows._trained_rows, batches.MIN_SHARED = trained_rows, least_shared
    return {name: found[NUM_BATCHES:] for name, found in times.items()}


def measure(backbone: Backbone, what: str, config: ExampleConfig, ways: Sequence[Way], steps: int) -> None:
    """Prints what a step takes in each way, over what it takes as it is."""
    rounds = batches_of(backbone, config)
    tokens = [sum(map(len, lay_out(batch))) for batch in rounds]
    times = step_times(backbone.clone(), rounds, (OURS, *ways), steps)
    ours = times[OURS.name]
    sys.stdout.write(
        f"{what}: {steps} steps a way on batches of {min(tokens)} to {max(tokens)} tokens; a step as it is: "
        f"{statistics.median(ours):.2f} s\ntime over that of the same step as it is, median (min to max):\n"
    )
    for way in ways:
        ratios = [other / own for other, own in zip(times[way.name], ours, strict=True)]
        sys.stdout.write(
            f"  {way.name:<24}{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--steps", type=int, default=12, help="steps a way, without the warm-up (default: 12)")
    steps = parser.parse_args().steps
    quiet_libraries()
    backbone = load_backbone(device="cpu")
    sys.stdout.write(f"{backbone.name}, {backbone.dtype_name}, threads: {torch.get_num_threads()}\n")
    measure(backbone, "samples alone", ALONE, SHORTENED, steps)
    measure(backbone, "dialogues", DIALOGUES, SHARED, steps)


if __name__ == "__main__":
    main()
