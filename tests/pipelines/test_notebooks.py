"""The notebooks of reports/ are clean as committed and run from top to bottom on a saved run."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from commands import Finished
from nbclient import NotebookClient

REPORTS = Path(__file__).resolve().parents[2] / "reports"
NOTEBOOKS = sorted(REPORTS.glob("*.ipynb"))
RUN = 'RUN = "runs/latest"'
HEADINGS = {  # what each must show: a text of its output
    "compare": ("**H1", "first ask, cued"),
    "cost": ("break-even", "seconds for the whole answer"),
    "inside_recall": ("principal axis 1", "two families", "right clause"),
    "retention": ("regs-seed0", "turn of the dialogue"),
}


def test_they_are_all_there() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(HEADINGS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_without_outputs(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    codes = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.id for cell in codes if cell.outputs or cell.execution_count is not None] == []
    assert sum(RUN in cell.source for cell in codes[:1]) == 1  # at the top


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_on_a_saved_run(
    path: Path, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, in the folder where an editor would start it."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    book = nbformat.read(path, as_version=4)
    book.cells[1].source = book.cells[1].source.replace(RUN, f"RUN = {str(finished.folder)!r}")
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(book, timeout=900, kernel_name="python3", resources=resources).execute()
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    shown = "\n".join(str(output) for cell in cells for output in cell.outputs)
    assert str(finished.folder) in shown
    assert [text for text in HEADINGS[path.stem] if text not in shown] == []
    assert "<svg" in shown
    assert [o for cell in cells for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"] == []
    silent = [cell.id for cell in cells[2:] if not cell.outputs]
    assert silent == []  # every cell below the imports shows something
