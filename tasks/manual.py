"""A second packaged task: the maintenance manual of the Corvina 36, a bottling line that does not exist.

Its codes, torques, intervals and part numbers are invented, so no model can know them from elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from tasks.base import TaskData
from tasks.handbook import read_handbook
from tasks.slicing import slice_task

DATA = Path(__file__).parent / "data" / "manual"


def load(num_clauses: int | None = None, seed: int = 0, num_train: int = 600, num_heldout: int = 120) -> TaskData:
    """All entries, or a seeded slice of whole families; num_train, num_heldout: see read_handbook."""
    return slice_task(read_handbook(DATA, num_train, num_heldout), num_clauses, seed)
