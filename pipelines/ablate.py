"""Ablate the methods: `python -m pipelines.ablate task=regs rows=section_4_4`.

Every row is a method with some settings changed, fitted on the same clauses and asked the same `dev`
questions; `test` is never read. A run that was cut goes on where it stopped, row by row. The literal recipe
passes a gate first, on data that it may overfit, so that a bug is never reported as a refuted specification.
With `evaluation.ability=true` every row's ordinary ability is measured through lm-eval as well.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from eval.trigger import trigger_area
from methods.backbone import Backbone, load_backbone
from methods.base import Method
from methods.chat import encode_pieces, encode_prompt
from methods.recall.embed import BATCH_SIZE, last_states
from pipelines.ablation_results import TRIGGERS, write_ablation
from pipelines.ablation_rows import SETS, AblationRow, chosen_rows
from pipelines.cli import asks_for_help, compose_config, guarded, one_run, show_help
from pipelines.compare import ask_dialogues, in_run_dtype, say_too_long
from pipelines.config import Resolved, resolve
from pipelines.fit_processes import FitJob, fit_missing, not_made, with_processes
from pipelines.gate import SPEC, gated
from pipelines.log_runs import status_at_end
from pipelines.making import key_of, make_method
from pipelines.packages import logs_to_mlflow
from pipelines.passes import measure_ability
from pipelines.progress import Display, quiet_libraries
from pipelines.report import show_ablation
from pipelines.run import MEASURED, Run, environment, open_run, read_json, write_json
from pipelines.saved_fits import fit_or_load
from reports.base import TaskFacts
from tasks.base import Message, TaskData, TaskError
from tasks.validate import check


def missing_fits(rows: Sequence[AblationRow], config: Resolved, run: Run) -> list[FitJob]:
    """What is left to fit for these rows, on every seed."""
    seeds = range(config.seed, config.seed + config.seeds)
    jobs = (FitJob(r.name, r.method, seed, r.overrides) for seed in seeds for r in rows if not r.fit_of)
    return not_made(run, jobs)


def fit_row(
    row: AblationRow, config: Resolved, run: Run, task: TaskData, seed: int, backbone: Backbone, display: Display
) -> Method:
    """The row's method, fitted, restored, or with another row's fit; it answers under the row's name."""
    folder = run.fit_folder(seed, row.fit_of or row.name)
    method = make_method(config, row.method, task, seed, backbone.clone(), display, folder)
    key = key_of(config, row.method, task, seed, backbone)
    fit_or_load(method, run, folder, task, f"fit {row.name} seed {seed}", key, display.say)
    method.name = row.name
    return method


def ablate(words: list[str], rows: Sequence[AblationRow], display: Display) -> Path:
    """Fits and asks every row; returns the run folder, for `pipelines.ablation_results`."""
    base = resolve(compose_config("compare", words))
    if base.until:
        raise TaskError("until=decided goes with python -m pipelines.compare; rows take seeds=..., e.g. seeds=3")
    configs = {row.name: resolve(compose_config("compare", [*words, *row.overrides])) for row in rows}
    seeds = range(base.seed, base.seed + base.seeds)
    tasks = {seed: base.task.load(seed) for seed in seeds}
    for task in tasks.values():
        check(task)
    trigger_turns(tasks[base.seed])
    backbone = load_backbone(base.model, base.device, base.dtype)
    asked = {
        "ablation": [asdict(row) for row in rows],
        "data_version": tasks[base.seed].version,
        "model_version": backbone.fingerprint,
    }
    run = open_run({**base.raw, **asked})
    display.say(f"run folder: {run.folder}")
    base = with_processes(base, backbone)
    say_too_long([row.method for row in rows], base, tasks[base.seed], backbone, display)
    try:
        if MEASURED not in run.stages:
            measure(base, configs, run, rows, tasks, in_run_dtype(base, run, backbone), display)
            run.stop_clock()
    except BaseException as error:
        run.abandon(error)
        raise
    run.close(status_at_end(base.mlflow))
    return run.folder


def measure(
    base: Resolved,
    configs: Mapping[str, Resolved],
    run: Run,
    rows: Sequence[AblationRow],
    tasks: Mapping[int, TaskData],
    backbone: Backbone,
    display: Display,
) -> None:
    """Fits and asks the rows that pass the gate."""
    write_json(run.folder / "environment.json", environment(backbone))
    write_json(run.folder / "task.json", asdict(TaskFacts.of(tasks[base.seed])))
    sure = missing_fits([row for row in rows if row.method != SPEC], base, run)
    rows = gated(rows, lambda row: row.method, base, run, backbone, display, beside=sure)
    triggers = read_json(run.folder / TRIGGERS) if (run.folder / TRIGGERS).exists() else {}
    fit_missing(base, run, missing_fits(rows, base, run), display)
    for seed, task in tasks.items():
        for row in rows:
            method = fit_row(row, configs[row.name], run, task, seed, backbone, display)
            if row.name not in triggers:  # of the first seed
                triggers[row.name] = trigger_of(method, task) if row.method.startswith("recall") else None
                write_json(run.folder / TRIGGERS, triggers)
            ask_dialogues(base, run, [method], task, seed, display, split="dev")
            if base.evaluation.ability:
                measure_ability(base, run, [method], task, seed, backbone, display)


Conversations = list[tuple[Message, ...]]


def trigger_turns(task: TaskData) -> tuple[Conversations, Conversations]:
    """Dev questions, answerable or not, and the beginnings of held-out ordinary conversations.

    Raises TaskError where there are none: rows are compared on them.
    """
    asked = [qa for kind in ("single", "unanswerable") for qa in task.held_out("dev", kind)]
    ordinary = [c.messages[:1] for c in task.sft_heldout if not c.passage]
    for what, found in (("dev questions", asked), ("held-out ordinary conversations", ordinary)):
        if not found:
            raise TaskError(f"task={task.name} has no {what}, on which rows are compared; choose another task")
    return [(Message("user", qa.question),) for qa in asked], ordinary


@torch.no_grad()
def recall_margins(backbone: Backbone, conversations: Sequence[Sequence[Message]]) -> torch.Tensor:
    """(Q,): logit of <recall> less the largest other behind `<think>\\n`. Positive: greedy decoding recalls."""
    ids = backbone.ids
    tail = encode_pieces(backbone.tokenizer, [ids.think, "\n"])
    sequences = [encode_prompt(backbone, messages) + tail for messages in conversations]
    found: list[torch.Tensor] = []
    for states_BD in last_states(backbone, sequences).split(BATCH_SIZE):
        logits_BV = backbone.model.get_output_embeddings()(states_BD).float()
        recall_B = logits_BV[:, ids.recall].clone()
        logits_BV[:, [ids.recall, ids.memory_pad]] = float("-inf")  # the pad is never decoded freely
        found.append(recall_B - logits_BV.max(dim=-1).values)
    return torch.cat(found)


def trigger_of(method: Method, task: TaskData) -> dict[str, Any]:
    """The area under the trigger's ROC on the seed's dev questions and ordinary conversations."""
    asked, ordinary = trigger_turns(task)
    backbone = method.backbone  # type: ignore[attr-defined]
    area = trigger_area(recall_margins(backbone, asked).tolist(), recall_margins(backbone, ordinary).tolist())
    return {"area": area, "asked": len(asked), "ordinary": len(ordinary)}


def run_and_show(words: list[str], rows: Sequence[AblationRow]) -> None:
    """Runs the rows, logs them to MLflow, prints the table and the verdicts."""
    config = resolve(compose_config("compare", words))
    logging.getLogger("methods").setLevel(config.log_level.upper())
    with Display() as display:
        to_mlflow = logs_to_mlflow(config.mlflow, display.say)
        ablation = write_ablation(ablate(words, rows, display))
    show_ablation(ablation, to_mlflow)


def main() -> None:
    words = sys.argv[1:]
    if asks_for_help(words):
        show_help("ablate", f"rows=...: a set ({', '.join(SETS)}) or row names, with commas\n\n")
        return
    picked = [word for word in words if word.startswith("rows=")]
    names = picked[-1].removeprefix("rows=").strip("[]").split(",") if picked else ["section_4_4"]
    rest = one_run([word for word in words if word not in picked])

    def start() -> None:
        rows = chosen_rows([name for name in names if name])
        quiet_libraries()
        run_and_show(rest, rows)

    guarded(start)


if __name__ == "__main__":
    main()
