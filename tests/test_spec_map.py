"""The map of the specification: every row names code and tests that exist, and no section is left out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEC = (ROOT / "docs/SPEC.zh.md").read_text(encoding="utf-8")
MAP = ROOT / "docs/SPEC_MAP.md"
ROW = re.compile(
    r"^\| (?P<section>[2-5]\.\d[^|]*?) \| (?P<asked>[^|]+) \| (?P<code>[^|]+) \| (?P<tests>[^|]+) \|$"
)
CODE = re.compile(r"`((?:tasks|methods|eval|reports|pipelines)/[\w/]+\.py):([\w.]+)`")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PAGES = sorted(set(re.findall(r"docs/\w+\.md", SPEC)))
ROWS = [
    match.groupdict() for line in MAP.read_text(encoding="utf-8").splitlines() if (match := ROW.fullmatch(line))
]


def names_in(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Dotted names of classes, functions and assigned names, members of classes included."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from names_in(node.body, f"{prefix}{node.name}.")
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


@cache
def names_of(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.exists():
        return frozenset()
    return frozenset(names_in(ast.parse(path.read_text(encoding="utf-8"), file).body))


def missing(text: str) -> list[str]:
    """References of the text to code or tests that are not there."""
    references = [*CODE.findall(text), *TEST.findall(text)]
    return [f"{file}:{name}" for file, name in references if name not in names_of(file)]


def test_the_check_can_fail() -> None:
    assert not missing("`methods/decode.py:generate` `methods/recall/bank.py:MemoryBank.write`")
    wrong = "`methods/decode.py:no_such` `methods/none.py:f` `methods/recall/bank.py:write`"
    assert len(missing(f"{wrong} `tests/test_spec_map.py::test_no_such`")) == 4


def test_every_row_of_the_table_is_read() -> None:
    lines = [line for line in MAP.read_text(encoding="utf-8").splitlines() if re.match(r"\| [2-5]\.", line)]
    assert len(lines) == len(ROWS) > 80


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['section']} {row['asked'][:40]}")
def test_a_row_names_code_and_tests_that_exist(row: dict[str, str]) -> None:
    assert not missing(row["code"] + row["tests"])
    assert CODE.search(row["code"]) or row["code"].startswith("not built")
    assert TEST.search(row["tests"]) or row["tests"].startswith("no test")


def test_every_section_from_2_to_5_has_rows() -> None:
    sections = re.findall(r"^### ([2-5]\.\d) ", SPEC, flags=re.MULTILINE)
    assert len(sections) > 10
    assert set(sections) == {row["section"].split()[0] for row in ROWS}


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_that_the_specification_refers_to_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert CODE.search(text)
    assert not missing(text)
    assert 40 <= len(text.splitlines()) <= 120
