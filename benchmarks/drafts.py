"""What drafts save on a run's fitted methods: `python benchmarks/drafts.py --run latest --questions 40`.

Each dev question is answered by every method in turn, with drafts and a token a forward, in one process. Answers
must be the same both ways; seconds are set beside each other answer by answer, and recall's beside SFT's on the
questions that both answer (who says in one sentence that it does not know is quick).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from pathlib import Path

from eval.scoring import abstains
from methods.base import Answer, Context
from methods.decode import serially
from pipelines.fitted_run import FittedRun
from pipelines.progress import quiet_libraries
from pipelines.report import find_run
from tasks.base import Message


def ratio(others: list[float], own: list[float]) -> str:
    """Medians of both sides, the median of the paired ratios, and the ratio of the sums."""
    paired = statistics.median(a / b for a, b in zip(others, own, strict=True))
    return (
        f"{statistics.median(others):.2f} s over {statistics.median(own):.2f} s, paired median "
        f"{paired:.2f}, sums {sum(others) / sum(own):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--run", default="latest", help="a run's folder or id (default: latest)")
    parser.add_argument("--questions", type=int, default=40, help="dev questions (default: 40)")
    parser.add_argument("--methods", default="recall,rag,sft", help="fitted methods of the run")
    options = parser.parse_args()
    quiet_libraries()
    fitted = FittedRun(find_run(options.run, Path("runs")))
    names = [name for name in options.methods.split(",") if name in fitted.names]
    methods = {name: fitted.method(name) for name in names}
    pool = list(fitted.task.held_out("dev", "single"))
    asked = random.Random(0).sample(pool, min(options.questions, len(pool)))
    drafted: dict[str, list[Answer]] = {name: [] for name in names}
    serial: dict[str, list[Answer]] = {name: [] for name in names}
    for number, qa in enumerate(asked):
        ctx = Context((Message("user", qa.question),), fitted.config.evaluation.max_new_tokens)
        for name in [*names[number % len(names) :], *names[: number % len(names)]]:
            if number == 0:  # warm-up
                methods[name].answer(ctx)
            drafted[name].append(methods[name].answer(ctx))
            with serially():
                serial[name].append(methods[name].answer(ctx))
    sys.stdout.write(f"{len(asked)} dev questions, seed {fitted.seed}\n")
    for name in names:
        pairs = list(zip(serial[name], drafted[name], strict=True))
        same = sum(a.raw == b.raw for a, b in pairs)
        forwards = [
            statistics.median(answer.usage.forwards for answer in side) for side in zip(*pairs, strict=True)
        ]
        seconds = [[answer.usage.total_s for answer in side] for side in zip(*pairs, strict=True)]
        sys.stdout.write(
            f"{name}: serial over drafted {ratio(seconds[0], seconds[1])}; forwards {forwards[0]:.0f} and "
            f"{forwards[1]:.0f}; {same} of {len(pairs)} answers the same\n"
        )
    if "recall" in names and "sft" in names:
        both = [
            (a.usage.total_s, b.usage.total_s)
            for a, b, qa in zip(drafted["recall"], drafted["sft"], asked, strict=True)
            if a.final and b.final and not abstains(a.final, qa) and not abstains(b.final, qa)
        ]
        if both:
            seconds = [list(side) for side in zip(*both, strict=True)]
            said = ratio(seconds[0], seconds[1])
            sys.stdout.write(f"recall over sft on the {len(both)} that both answer: {said}\n")


if __name__ == "__main__":
    main()
