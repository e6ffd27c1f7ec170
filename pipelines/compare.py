"""Compare recall, SFT and RAG on a task: `python -m pipelines.compare task=regs`.

The main path reads from top to bottom in `compare`: load the task; for each seed fit the methods, run the
dialogues, time single answers (`measure`); write the results. With until=decided seeds come one by one. What an
earlier attempt has done is skipped.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from eval.arms import ARMS, borrow, borrows_from, check_window
from eval.runner import cost_questions, run_cost, run_retention
from methods.answering import prompts_for
from methods.backbone import Backbone, load_backbone
from methods.base import Context, Method, MethodError
from methods.chat import encode_text
from methods.fixed_cache import release
from pipelines.cli import main_of
from pipelines.config import Resolved, resolve
from pipelines.fit_processes import FitJob, fit_missing, not_made, with_processes
from pipelines.footprint import footprints, release_memory
from pipelines.gate import SPEC, gated
from pipelines.log_runs import status_at_end, tried
from pipelines.making import key_of, load_of_run, make_method
from pipelines.packages import logs_to_mlflow
from pipelines.passes import change_memories, lifecycle_of, measure_ability, named_tasks
from pipelines.progress import Display
from pipelines.results import read_saved, write_results
from pipelines.run import MEASURED, PAUSED, Run, environment, open_run, read_json, write_json
from pipelines.saved_fits import fit_or_load, load_fit, save_fit
from pipelines.until import is_over, until_decided
from reports.base import Comparison, TaskFacts
from tasks.base import Memory, Message, Split, TaskData
from tasks.dialogues import build_dialogues
from tasks.validate import check

RECALL_TOKENS = 4  # around a recited text but for its pads: <think>, line break, <recall>, </recall>


def compare(config: Resolved, display: Display) -> Comparison:
    """The whole experiment; returns what the reports are made from."""
    seeds = range(config.seed, config.seed + config.seeds)
    tasks = {seed: config.task.load(seed) for seed in seeds}
    for seed, task in tasks.items():
        check(task)
        if config.evaluation.lifecycle:
            lifecycle_of(config, task, seed)
    data = tasks[config.seed]
    named_tasks(config)
    backbone = load_backbone(config.model, config.device, config.dtype)
    check_questions(backbone, tasks.values(), config.evaluation.max_new_tokens)
    run = open_run({**config.raw, "data_version": data.version, "model_version": backbone.fingerprint})
    display.say(f"run folder: {run.folder}")
    config = with_processes(config, backbone)
    say_too_long(config.run_methods, config, data, backbone, display)
    try:
        if MEASURED not in run.stages:
            backbone = in_run_dtype(config, run, backbone)
            write_json(run.folder / "environment.json", environment(backbone))
            write_json(run.folder / "task.json", asdict(TaskFacts.of(data)))
            for together in until_decided(config, run, display) if config.until else [list(seeds)]:
                names = fit_apart_first(config, run, {seed: tasks[seed] for seed in together}, backbone, display)
                for seed in together:
                    measure(config, run, names[seed], tasks[seed], seed, backbone, display)
                    release_memory()  # of this seed's methods, before the next one's are loaded
            run.stop_clock()
        comparison = write_results(read_saved(run.folder))  # from the files, as `pipelines.report` does it
    except BaseException as error:
        run.abandon(error)
        raise
    run.close(status_at_end(config.mlflow) if is_over(comparison.summary) else PAUSED)
    return comparison


def in_run_dtype(config: Resolved, run: Run, backbone: Backbone) -> Backbone:
    """The model in the dtype that the run began with: another probe may choose another."""
    facts = run.folder / "environment.json"
    if facts.exists() and read_json(facts).get("dtype") != backbone.dtype_name:
        return load_of_run(config, run.folder, config.device)
    return backbone


def measure(
    config: Resolved,
    run: Run,
    names: Sequence[str],
    task: TaskData,
    seed: int,
    backbone: Backbone,
    display: Display,
) -> None:
    """All passes of one seed: its methods fitted on its slice, asked, timed, and what the evaluation adds.

    They are gone at its end: each holds a copy of the model. What is measured to the end is not loaded again.
    """
    if passes_of(config, names, seed) <= set(run.stages):
        return
    methods = fit_methods(config, run, names, task, seed, backbone, display)
    ask_dialogues(config, run, methods, task, seed, display)
    methods = [method for method in methods if method.name in config.run_methods]
    time_answers(config, run, methods, task, seed, display)
    learners = [method for method in methods if method.name not in ARMS]
    if config.evaluation.ability:
        measure_ability(config, run, learners, task, seed, backbone, display)
    if config.evaluation.lifecycle:
        change_memories(config, run, learners, task, seed, backbone, display)


def passes_of(config: Resolved, names: Sequence[str], seed: int) -> set[str]:
    """The stages of `measure`, the fits' own apart."""
    learners = [name for name in names if name in config.run_methods and name not in ARMS]
    further = {"ability": config.evaluation.ability, "lifecycle": config.evaluation.lifecycle}
    stages = {f"timing seed {seed}", *(f"dialogues {name} seed {seed}" for name in names)}
    return stages | {f"{kind} {name} seed {seed}" for kind in further if further[kind] for name in learners}


def check_questions(backbone: Backbone, tasks: Iterable[TaskData], max_new_tokens: int) -> None:
    """Raises MethodError, before any fit, for a question that the model could not be asked."""
    for task in tasks:
        prompts_for(backbone, [Context((Message("user", qa.question),), max_new_tokens) for qa in task.questions])


def too_long_to_recite(
    backbone: Backbone, memories: Sequence[Memory], max_new_tokens: int, num_pads: int = 1
) -> str:
    """One sentence on memories that alone fill an answer of so many tokens; "" where there are none.

    num_pads: of a recall, each of which takes a token of the answer.
    """
    around = RECALL_TOKENS + num_pads
    lengths = {m.id: len(encode_text(backbone.tokenizer, m.text)) + around for m in memories}
    over = [memory_id for memory_id, num_tokens in lengths.items() if num_tokens >= max_new_tokens]
    if not over:
        return ""
    longest = max(over, key=lambda memory_id: lengths[memory_id])
    return (
        f"recall cannot recite {len(over)} of {len(memories)} memories and answer: an answer has "
        f"{max_new_tokens} tokens and {longest!r} takes {lengths[longest]}; raise evaluation.max_new_tokens or "
        "cut them into clauses"
    )


def say_too_long(
    names: Sequence[str], config: Resolved, task: TaskData, backbone: Backbone, display: Display
) -> None:
    """Says before any fit which memories are longer than an answer: no recall could recite them."""
    if any(name.startswith("recall") for name in names):
        num_pads = config.method_configs["recall"].vectors_per_memory if "recall" in names else 1
        said = too_long_to_recite(backbone, task.memories, config.evaluation.max_new_tokens, num_pads)
        if said:
            display.say(said)


def fit_apart_first(
    config: Resolved, run: Run, tasks: Mapping[int, TaskData], backbone: Backbone, display: Display
) -> dict[int, list[str]]:
    """Seed -> the methods and arms that run, those that fail their gate left out.

    Where fits go side by side, those of all seeds are made here; `fit_methods` finds them.
    """
    asked = {
        seed: [*config.run_methods, *arms_that_fit(config, run, task, backbone, display)]
        for seed, task in tasks.items()
    }

    def missing(names: Mapping[int, Sequence[str]]) -> list[FitJob]:
        jobs = (FitJob(n, n, seed) for seed, own in names.items() for n in own if borrows_from(n, own) == n)
        return not_made(run, jobs)

    sure = [job for job in missing(asked) if job.method != SPEC]
    counting = gated(config.run_methods, lambda name: name, config, run, backbone, display, beside=sure)
    names = {seed: [name for name in own if name in counting or name in ARMS] for seed, own in asked.items()}
    fit_missing(config, run, missing(names), display)
    return names


def fit_methods(
    config: Resolved,
    run: Run,
    names: Sequence[str],
    task: TaskData,
    seed: int,
    backbone: Backbone,
    display: Display,
) -> list[Method]:
    """Every method on the same memories and conversations, each from the same untouched weights.

    A control arm borrows the fit of the method that it bounds, where that method runs too.
    """
    methods: dict[str, Method] = {}
    for name in sorted(names, key=lambda name: borrows_from(name, names) != name):  # lenders come first
        folder, lender = run.fit_folder(seed, name), borrows_from(name, names)
        weights = backbone if lender in methods else backbone.clone()
        method = make_method(config, name, task, seed, weights, display, folder)
        if lender in methods:
            borrow(method, methods[lender], run.fit_folder(seed, lender))
            report = load_fit(run.fit_folder(seed, lender))
            assert report is not None
            save_fit(folder, report)
        else:
            key = key_of(config, name, task, seed, backbone)
            fit_or_load(method, run, folder, task, f"fit {name} seed {seed}", key, display.say)
        methods[name] = method
    return [methods[name] for name in names]


def arms_that_fit(config: Resolved, run: Run, task: TaskData, backbone: Backbone, display: Display) -> list[str]:
    """The evaluation's arms, without full_context where the clauses are too long for the context window.

    Among run_methods it would be an error, since there it was asked for by name.
    """
    arms = config.arms
    if "full_context" in arms:
        try:
            check_window(backbone, task.memories)
        except MethodError as error:
            display.say(f"left out: {error}")
            run.leave_out("full_context", str(error))
            arms.remove("full_context")
    return arms


def ask_dialogues(
    config: Resolved,
    run: Run,
    methods: list[Method],
    task: TaskData,
    seed: int,
    display: Display,
    split: Split = "test",
) -> None:
    """The retention pass: the same scripted dialogues for every method."""
    dialogues = build_dialogues(task, seed, split, config.dialogues)
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
        release()  # a large batch's caches: on a card the next method and other processes take their room


def time_answers(
    config: Resolved, run: Run, methods: list[Method], task: TaskData, seed: int, display: Display
) -> None:
    """The cost pass: single answers, interleaved over the methods; memory in a process a method."""
    stage = f"timing seed {seed}"
    if stage in run.stages:
        return
    options = config.evaluation
    questions = cost_questions(task, seed, options.timed_questions, options.max_new_tokens)
    peaks = footprints(run.folder, seed, [method.name for method in methods], display)
    done = {(r.method, r.question_id, r.round) for r in run.costs if r.seed == seed}  # of a pass that was cut
    timed = run_cost(
        methods, questions, peaks, seed=seed, rounds=options.timed_rounds, done=done, progress=display
    )
    for record in timed:
        run.add([record])
    run.finish_stage(stage)


def run_and_show(config: Any) -> None:
    """Compares, logs to MLflow, prints the table."""
    from reports.terminal import show

    resolved = resolve(config)
    logging.getLogger("methods").setLevel(resolved.log_level.upper())
    with Display() as display:
        to_mlflow = logs_to_mlflow(resolved.mlflow, display.say)
        comparison = compare(resolved, display)
        if to_mlflow:
            display.say("logging to MLflow")
        logged, refused = tried(comparison) if to_mlflow else (None, None)
    show(comparison, logged, sys.stdout)
    if refused is not None:
        raise refused


if __name__ == "__main__":
    main_of("compare", run_and_show)
