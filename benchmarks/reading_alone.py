"""What a model reads right with the clause at hand: `python benchmarks/reading_alone.py --task regs`.

No fit and no lookup: the clause stands in the think, as if recited, or in the prompt between two near ones
(`eval.reading`). Dev questions. `--task rules`: held-out rules of the general corpus, which no warm-up trains on.
"""

from __future__ import annotations

import argparse
import sys

from eval.reading import WAYS, of_rules, of_task, read_right
from eval.stats import estimate
from methods.backbone import PACKAGED_LM, load_backbone
from tasks.registry import load_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument(
        "--model", default=PACKAGED_LM, help="a packaged name, a folder (a warm-up's, too), a Hub id"
    )
    parser.add_argument("--task", default="regs", help="a task's name, or rules (default: regs)")
    parser.add_argument("--path", help="with --task local: the folder with the documents")
    chosen = parser.parse_args()
    where = {"path": chosen.path} if chosen.path else {}
    asked = of_rules(100, seed=1) if chosen.task == "rules" else of_task(load_task(chosen.task, **where))
    backbone = load_backbone(chosen.model)
    for way in WAYS:
        found = estimate(read_right(backbone, asked, way))
        interval = f"[{found.low or 0.0:.2f}, {found.high or 0.0:.2f}]"
        sys.stdout.write(f"{chosen.task}, {way}: {found.value or 0.0:.2f} {interval} of {found.n} read right\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
