"""Figures with an interval, on the page of answers and in README, come out of the kept records again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.pooled import pool
from pipelines.results import write_results

ROOT = Path(__file__).resolve().parent.parent
RUNS = sorted((ROOT / "reports" / "results").glob("regs-seed*"))
FIGURE = re.compile(r"(-?\d\.\d+) \[(-?\d\.\d+), (-?\d\.\d+)\]")


def figures(text: str) -> set[tuple[str, ...]]:
    return set(FIGURE.findall(text.replace("\\", "").replace("+", "")))


def section(page: str, heading: str) -> str:
    return page.split(f"\n## {heading}\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, ...]]:
    """All figures of the report over these runs, computed anew."""
    saved = pool(RUNS, tmp_path_factory.mktemp("runs"))
    write_results(saved)
    return figures((saved.folder / "report.md").read_text(encoding="utf-8"))


def test_the_page_of_answers_is_what_the_records_say(computed: set[tuple[str, ...]]) -> None:
    quoted = figures((ROOT / "docs" / "ANSWER.md").read_text(encoding="utf-8"))
    assert len(quoted) > 10
    assert quoted - computed == set()


def test_so_is_what_readme_found(computed: set[tuple[str, ...]]) -> None:
    quoted = figures(section((ROOT / "README.md").read_text(encoding="utf-8"), "What was found so far"))
    assert len(quoted) > 10
    assert quoted - computed == set()
