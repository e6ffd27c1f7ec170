"""The packaged handbook in Chinese, aligned clause by clause with regs, for models that read Chinese.

Ids, families, facts, splits and figures are those of regs; places and people are transliterated, codes kept.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tasks.base import TaskData
from tasks.handbook import read_handbook
from tasks.slicing import slice_task
from tasks.think_sft import IN_ENGLISH

DATA = Path(__file__).parent / "data" / "regs_zh"


def load(num_clauses: int | None = None, seed: int = 0, num_train: int = 600, num_heldout: int = 120) -> TaskData:
    """All clauses, or a seeded slice of whole families; num_train, num_heldout: see read_handbook."""
    task = replace(read_handbook(DATA, num_train, num_heldout), notes=(IN_ENGLISH,))
    return slice_task(task, num_clauses, seed)
