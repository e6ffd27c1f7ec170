"""README and its pages against the tree: commands are understood, pictures and files are there, examples hold."""

from __future__ import annotations

import importlib.util
import re
import shlex
import textwrap
from pathlib import Path

import pytest

from pipelines import bundle, chat, export, report, warm_up
from pipelines.cli import compose_config, launches, one_run, options_of
from pipelines.config import resolve
from tasks import ask
from tasks.local import read

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
BLOCKS = {page: re.findall(r"^ *```\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE) for page, text in TEXT.items()}
COMMANDS = sorted(
    {
        line
        for page in (README, *(ROOT / "docs" / name for name in ("TUTORIAL.md", "MEASURES.md", "GPU.md")))
        for block in BLOCKS[page]
        for line in (line.partition(" #")[0].strip() for line in block.splitlines())
        if line.startswith("python -m ")
    }
)
TREE = next(block for block in BLOCKS[README] if block.startswith("tasks/"))
PACKAGES = ("tasks", "methods", "methods/recall", "eval", "reports", "pipelines")


def words_of(command: str) -> tuple[str, list[str]]:
    """(module, its words); a placeholder in <> stands for a word of the reader's."""
    _, _, module, *words = shlex.split(re.sub(r"<[^>]*>", "x", command))
    return module, words


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) > 20 and len(BLOCKS[README]) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str) -> None:
    module, words = words_of(command)
    assert importlib.util.find_spec(module) is not None
    if "--help" in words:
        return
    if module in ("pipelines.compare", "pipelines.ablate"):
        words = [word for word in words if not (module.endswith("ablate") and word.startswith("rows="))]
        resolve(compose_config("compare", one_run([word for word in words if not launches([word])])))
    elif module == "pipelines.report":
        options_of(report.Options, words)
    elif module == "pipelines.chat":
        options_of(chat.Options, words)
    elif module == "pipelines.bundle":
        assert options_of(bundle.Options, words).to
    elif module == "pipelines.export":
        assert options_of(export.Options, words).to
    elif module == "pipelines.warm_up":
        assert options_of(warm_up.Options, words).to
    elif module == "tasks.ask":
        assert ask.options_of(words).model
    else:
        assert (module, [word.partition("=")[0] for word in words]) == ("tasks.check", ["path"])


def test_make_targets_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [t for text in TEXT.values() for t in re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE)]
    assert {"compare", "test", "setup"} <= set(targets)
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT[page])
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_picture_is_shown() -> None:
    pictures = {file.relative_to(ROOT).as_posix() for file in (ROOT / "docs" / "img").iterdir()}
    assert pictures == set(re.findall(r"\]\((docs/img/[^)]+)\)", TEXT[README]))


def test_paths_in_the_text_are_there() -> None:
    named = re.findall(r"`((?:tasks|methods|eval|reports|pipelines|docs|tests)/[\w./-]*)`", TEXT[README])
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_tree_names_every_module() -> None:
    found: dict[str, str] = {}
    folder = ""
    for line in TREE.splitlines():
        begins = re.match(r"(\s{0,2})(\w+)/ ", line)
        if begins:
            folder = f"{folder.partition('/')[0]}/{begins[2]}" if begins[1] else begins[2]
        found[folder] = found.get(folder, "") + line + "\n"
    for package in PACKAGES:
        there = {file.name for file in (ROOT / package).glob("*.py") if file.name != "__init__.py"}
        assert set(re.findall(r"\w+\.py", found[package])) == there, package
    assert [name for name in found if not (ROOT / name).is_dir()] == []
    docs = re.findall(r"[\w.]+\.md", found["docs"])
    assert docs and [name for name in docs if not (ROOT / "docs" / name).exists()] == []


def test_its_questions_fit_documents_that_say_so(tmp_path: Path) -> None:
    blocks = [textwrap.dedent(block) for block in BLOCKS[ROOT / "docs" / "TUTORIAL.md"]]
    (table,) = [block for block in blocks if block.startswith("question,")]
    (tmp_path / "questions.csv").write_text(table, encoding="utf-8")
    text = "# Meals\n\nStaff in Lisbon receive 31 euros a day for meals, against receipts.\n\n"
    text += "# Gates\n\nThe key holders lock the gates: South gate at 18:40, north gate at 21:15.\n"
    (tmp_path / "a.md").write_text(text, encoding="utf-8")
    questions = read(str(tmp_path)).questions
    assert (questions.num_found, questions.refused, questions.notes) == (3, [], [])
