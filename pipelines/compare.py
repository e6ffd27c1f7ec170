"""Compare recall, SFT and RAG on a task: `python -m pipelines.compare task=regs`.

The main path reads from top to bottom in `compare`: load the task, build the methods, fit them, run the
dialogues, time single answers, summarise, report.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from eval.runner import cost_questions, run_cost, run_retention
from eval.summary import summarise
from methods.backbone import Backbone, load_backbone
from methods.base import FitReport, Method
from methods.registry import build_method
from methods.setup import MethodSetup
from pipelines.cli import main_of
from pipelines.config import Resolved, resolve
from pipelines.progress import Display
from pipelines.run import Run, environment, load_fit, open_run, save_fit, write_json
from reports.base import Comparison
from reports.markdown import write_report
from tasks.base import TaskData
from tasks.dialogues import build_dialogues
from tasks.registry import load_task
from tasks.validate import check


def compare(config: Resolved, display: Display) -> Comparison:
    """The whole experiment; returns what the reports are made from."""
    seeds = range(config.seed, config.seed + config.seeds)
    tasks = {seed: load_task(config.task.name, config.task.num_clauses or None, seed) for seed in seeds}
    check(tasks[seeds[0]])
    backbone = load_backbone(config.model, config.device, config.dtype)
    run = open_run({**config.raw, "data_version": tasks[seeds[0]].version})
    facts = environment(backbone.device, backbone.dtype)
    write_json(run.folder / "environment.json", facts)
    display.say(f"run folder: {run.folder}")
    fits: dict[str, list[FitReport]] = {name: [] for name in config.run_methods}
    try:
        for seed in seeds:
            methods = fit_methods(config, run, tasks[seed], seed, backbone, fits, display)
            ask_dialogues(config, run, methods, tasks[seed], seed, display)
            time_answers(config, run, methods, tasks[seed], seed, display)
        summary = summarise(
            run.turns,
            run.costs,
            {name: mean_fit(reports) for name, reports in fits.items()},
            np.random.default_rng(config.seed),
            task=config.task.name,
            preset=config.preset,
            wall_s=run.wall_s,
            num_resamples=config.evaluation.bootstrap_resamples,
        )
        write_json(run.folder / "summary.json", summary)
        comparison = Comparison(
            summary, run.folder, config.raw, facts, run.turns, run.costs, by_seed(fits), tasks[seeds[0]]
        )
        write_report(comparison)
    except KeyboardInterrupt:
        run.close("interrupted")
        raise
    except BaseException:
        run.close("failed")
        raise
    run.close("finished")
    return comparison


def fit_methods(
    config: Resolved,
    run: Run,
    task: TaskData,
    seed: int,
    backbone: Backbone,
    fits: dict[str, list[FitReport]],
    display: Display,
) -> list[Method]:
    """Every method on the same memories and conversations, each from the same untouched weights."""
    gold = {qa.question: qa.memory_ids for qa in task.questions}
    methods = []
    for name in config.run_methods:
        folder = run.fit_folder(seed, name)
        folder.mkdir(parents=True, exist_ok=True)
        setup = MethodSetup(
            backbone.clone(),
            replace(config.train, seed=seed),
            config.examples,
            config.sampling,
            display,
            folder,
        )
        method = build_method(name, setup, config.method_configs, gold)
        report = load_fit(folder)
        if report is None:
            report = method.fit(task.memories, task.sft)
            method.save(folder)
            save_fit(folder, report)
            run.finish_stage(f"fit {name} seed {seed}")
        else:
            method.load(folder)
        fits[name].append(report)
        methods.append(method)
    return methods


def ask_dialogues(
    config: Resolved, run: Run, methods: list[Method], task: TaskData, seed: int, display: Display
) -> None:
    """The retention pass: the same scripted dialogues for every method."""
    dialogues = build_dialogues(task, seed, "test", config.dialogues)
    for method in methods:
        done = {(r.dialogue_id, r.turn): r for r in run.turns if (r.method, r.seed) == (method.name, seed)}
        for records in run_retention(
            method,
            task,
            dialogues,
            seed=seed,
            max_new_tokens=config.evaluation.max_new_tokens,
            batch_size=config.evaluation.batch_size,
            done=done,
            progress=display,
        ):
            run.add(records)
        run.finish_stage(f"dialogues {method.name} seed {seed}")


def time_answers(
    config: Resolved, run: Run, methods: list[Method], task: TaskData, seed: int, display: Display
) -> None:
    """The cost pass: single answers, interleaved over the methods."""
    stage = f"timing seed {seed}"
    if stage in run.stages:
        return
    options = config.evaluation
    questions = cost_questions(task, seed, options.timed_questions, options.max_new_tokens)
    records = list(run_cost(methods, questions, seed=seed, rounds=options.timed_rounds, progress=display))
    run.add(records)
    run.finish_stage(stage)


def by_seed(fits: dict[str, list[FitReport]]) -> dict[str, FitReport]:
    """method -> report; method/seed -> report where several seeds ran."""
    return {
        name if len(reports) == 1 else f"{name}/{number}": report
        for name, reports in fits.items()
        for number, report in enumerate(reports)
    }


def mean_fit(reports: list[FitReport]) -> FitReport:
    """The mean cost over seeds."""
    return replace(
        reports[0],
        seconds=float(np.mean([r.seconds for r in reports])),
        forward_tokens=round(float(np.mean([r.forward_tokens for r in reports]))),
        optimizer_steps=round(float(np.mean([r.optimizer_steps for r in reports]))),
        bytes_stored=round(float(np.mean([r.bytes_stored for r in reports]))),
    )


def run_and_show(config: Any) -> None:
    """Hydra's entry: compare, log to MLflow, print the table."""
    from reports.terminal import show

    resolved = resolve(config)
    with Display() as display:
        comparison = compare(resolved, display)
        logged = None
        if resolved.mlflow:
            from reports.mlflow_log import log_comparison

            display.say("logging to MLflow")
            logged = log_comparison(comparison)
    show(comparison, logged, sys.stdout)


if __name__ == "__main__":
    main_of("compare", run_and_show)
