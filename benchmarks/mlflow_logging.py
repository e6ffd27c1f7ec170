"""What logging to MLflow adds to a run: `python benchmarks/mlflow_logging.py [run folder]`.

Without a folder: the measured laptop comparison (reports/results/laptop-seed0, whose records were not kept)
with made-up records of its size: 131 generated turns a method in 77 dialogues, a think of 400 characters,
8 candidates a lookup. Logs into an SQLite store in a temporary folder, twice: the first time makes it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval.records import CostRecord, TurnRecord
from methods.base import Answer, Lookup, Usage
from methods.parts import Part
from reports.base import ClauseFacts, Comparison, TaskFacts
from reports.saved import MEASURED, read_run
from tasks.base import QA

NUM_DIALOGUES, NUM_TURNS, NUM_CANDIDATES = 77, 131, 8
CLAUSE = "Employees who travel to Lisbon on business stay at the Hotel Marisol. The company pays up to 128 euros. "


def made_up(run: Comparison) -> Comparison:
    """The run with records of the laptop preset's size."""
    clauses = tuple(ClauseFacts(f"c{i}", f"Clause {i}", CLAUSE, f"family {i // 3}", i % 3 > 0) for i in range(18))
    ranked = tuple((f"c{i}", 0.9 - 0.05 * i) for i in range(NUM_CANDIDATES))
    turns, costs = [], []
    for method in run.methods:
        lookups = {"recall": 1, "sft": 0}.get(method, 3)
        for number in range(NUM_TURNS):
            dialogue, turn = number % NUM_DIALOGUES, number // NUM_DIALOGUES
            qa = QA(f"q{number}", "What does a night in Lisbon cost at most?", "128 euros", (f"c{number % 18}",))
            think, said = (CLAUSE * 4)[:400], Part("text", "128 euros")
            answer = Answer(
                parts=(Part("control", "<think>"), Part("text", think), Part("control", "</think>"), said),
                lookups=tuple(Lookup(f"c{i}", 0.9 - 0.05 * i, CLAUSE, ranked) for i in range(lookups)),
                usage=Usage(300, 90),
            )
            turns.append(
                TurnRecord(
                    method, 0, f"d{dialogue}", turn, "first_ask", qa.question, answer, qa, 0, "c0", True, CLAUSE
                )
            )
        costs += [
            CostRecord(method, 0, f"q{i}", 0, Usage(300, 90, 0.1, 1.0, 2.0), 10**9, "rss") for i in range(12)
        ]
    return replace(run, turns=turns, costs=costs, data=TaskFacts("regs", "0" * 12, memories=clauses))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> None:
    given = len(sys.argv) > 1
    run = read_run(Path(sys.argv[1]) if given else MEASURED / "laptop-seed0")
    run = run if given else made_up(run)
    wall_s = float(run.summary["wall_s"])
    num_dialogues = len({(turn.seed, turn.dialogue_id) for turn in run.turns})
    say(f"{len(run.turns)} turns, {num_dialogues} dialogues, {len(run.methods)} methods; the run: {wall_s:.0f} s")
    started = time.perf_counter()
    from reports.mlflow_log import log_comparison

    say(f"import: {time.perf_counter() - started:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for store in ("new", "kept"):
            started = time.perf_counter()
            logged = log_comparison(run, tracking_uri=f"sqlite:///{folder}/mlflow.db")
            seconds = time.perf_counter() - started
            say(f"{store} store: {seconds:.1f} s, {logged.num_traces} traces; {seconds / wall_s:.2%} of the run")
        os.chdir("/")


if __name__ == "__main__":
    main()
