"""What is kept of a run for others: all that its figures are computed from, without weights, in a few hundred KB.

`python -m pipelines.report run=FOLDER` computes every figure again from such a folder.
"""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

from eval.records import PACKED, RecordError
from pipelines.run import GATE_FILE

FILES = ("config.json", "environment.json", "run.json", "task.json", "triggers.json", GATE_FILE)
RESULTS = ("summary.json", "report.md", "ablation.json", "ablation.md")  # to be read where they lie


def keep(folder: Path, target: Path) -> None:
    """Copies a finished run's records, packed, its settings, fit reports and results into a new folder."""
    if target.exists():
        raise RecordError(f"keep={target}: exists already; name a new folder")
    for file in (*folder.glob("fits/**/fit.json"), *(folder / name for name in (*FILES, *RESULTS))):
        if file.exists():
            copy = target / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    with (folder / "records.jsonl").open("rb") as records, lzma.open(target / PACKED, "wb") as packed:
        shutil.copyfileobj(records, packed)
