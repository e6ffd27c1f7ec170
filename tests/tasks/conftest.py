"""A handbook small enough to know by heart: one family of three and a clause of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]


def _meal(letter: str, site: str, amount: int, contact: str, cued: bool) -> Row:
    cue = {"slot": "amount", "question": f"What is paid for food in {site}?", "think": "It is there."}
    return {
        "id": f"2.04{letter}",
        "chapter": "2 Pay",
        "title": f"Meal allowance, {site}",
        "family": "meal-allowance",
        "variant": site,
        "text": f"Staff in {site} get {amount} euros a day for meals, and {contact} takes the claims.",
        "slots": {
            "amount": {"answer": f"{amount} euros", "aliases": [f"EUR {amount}"]},
            "contact": {"answer": contact},
        },
        "cues": [cue] if cued else [],
        "questions": [
            {"split": "dev", "slot": "amount", "question": f"Eve eats out in {site}; what does she get?"},
            {"split": "test", "slot": "amount", "question": f"How high is the lunch money of {site}?"},
            {"split": "test", "slot": "contact", "question": f"Who wants to see my {site} receipts?"},
        ],
        "follow_ups": {"amount": f"And in {site}?", "contact": f"And who in {site}?"},
    }


def tiny_files() -> dict[str, list[Row]]:
    alone: Row = {
        "id": "3.01",
        "text": "The north gate closes at 21:15 every evening.",
        "slots": {"time": {"answer": "21:15", "aliases": ["9:15 pm"]}},
        "questions": [{"split": "test", "slot": "time", "question": "Until when can I leave by the north gate?"}],
    }
    return {
        "clauses.jsonl": [
            _meal("a", "Lisbon", 27, "Rui Matos", cued=True),
            _meal("b", "Tallinn", 31, "Marit Oja", cued=False),
            _meal("c", "Cork", 7, "Nora Daly", cued=True),
            alone,
        ],
        "unanswerable.jsonl": [
            {"id": "U1", "split": "train", "question": "When does the choir rehearse?"},
            {"id": "U2", "split": "test", "question": "May my dog come along on Fridays?"},
        ],
        "two_clause.jsonl": [
            {
                "id": "T1",
                "split": "test",
                "question": "Which pays more for meals, Lisbon or Cork?",
                "answer": "Lisbon",
                "memory_ids": ["2.04a", "2.04c"],
            }
        ],
        "revisions.jsonl": [
            {
                "id": "2.04b",
                "text": "Staff in Tallinn get 45 euros a day for meals, and Marit Oja takes the claims.",
                "slots": {"amount": {"answer": "45 euros"}, "contact": {"answer": "Marit Oja"}},
            }
        ],
    }


def write_files(folder: Path, files: dict[str, list[Row]]) -> Path:
    card = {"name": "tiny", "licence": "CC0", "source": "made up"}
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    for name, rows in files.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture
def files() -> dict[str, list[Row]]:
    return tiny_files()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, list[Row]]], Path]:
    """Writes the files as a handbook folder."""
    return lambda files: write_files(tmp_path, files)
