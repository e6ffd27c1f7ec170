"""What a registered task needs to be loaded in a test, offline and in seconds.

A task that needs options has an entry here: its name, and a function that writes what it reads into an empty
folder and returns the options. A name that ends in a slash stands for all tasks that begin so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from document_files import write_all

Options = dict[str, Any]


def _documents(folder: Path, _name: str) -> Options:
    return {"path": str(write_all(folder / "documents"))}


def _hub_files(_folder: Path, name: str) -> Options:
    return {"path": str(Path(__file__).parent / "hub_files" / name.removeprefix("hub/"))}


# name -> (an empty folder, the task's name) -> options
OPTIONS: dict[str, Callable[[Path, str], Options]] = {"local": _documents, "hub/": _hub_files}


def options_for(name: str, folder: Path) -> Options:
    """The options of the task `name`; {} for one that has no entry."""
    for key, make in OPTIONS.items():
        if name == key or (key.endswith("/") and name.startswith(key)):
            return make(folder, name)
    return {}
