"""The rulebooks in benchmarks/ can be compared as they are: every file, clause and row is used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tasks.check import report
from tasks.local import read

FOLDERS = Path(__file__).resolve().parents[2] / "benchmarks" / "rulebooks"


@pytest.mark.parametrize("name", ["django_project", "pgbouncer"])
def test_every_row_is_used_and_every_clause_is_asked_about(name: str) -> None:
    found = read(str(FOLDERS / name), num_train=9, num_heldout=9)
    _, unusable = report(found.task, found, "")
    assert unusable == ""
    assert not found.folder.skipped and not found.cut.too_short and not found.cut.duplicates
    drawn = found.questions
    assert drawn.num_refused == 0, "\n".join(map(str, drawn.refused))
    assert drawn.num_found == len(drawn.used) - drawn.num_stock
    assert 30 <= len(found.task.memories) <= 45
    for split in ("dev", "test"):
        asked = {qa.memory_ids[0] for qa in found.task.held_out(split)}
        assert asked == {memory.id for memory in found.task.memories}
    own = [qa for qa in drawn.used if qa.id.startswith("questions.csv/") and qa.kind == "unanswerable"]
    assert Counter(qa.split for qa in own) == {"dev": 5, "test": 5}
    cues = [len(memory.cues) for memory in found.task.memories]
    assert sum(n > 0 for n in cues) == 27 and min(n for n in cues if n) >= 2
    assert not any(qa.think for memory in found.task.memories for qa in memory.cues)
