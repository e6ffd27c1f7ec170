"""Reads a folder of a person's own documents: Markdown, text, HTML, DOCX, PDF, XLSX, JSONL and CSV.

Whatever cannot be read is named with its file and line (or page) and the fix, and the rest is read all the
same: files found = files read + files skipped. Markdown is parsed by markdown-it-py, HTML by lxml, DOCX is opened
by python-docx, PDF by pypdfium2 and XLSX by openpyxl.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.base import TaskError
from tasks.documents.docx_files import read_docx
from tasks.documents.form import Document, Problem, Section, Unit, Unreadable, reason_of
from tasks.documents.html_files import read_html
from tasks.documents.markdown_files import read_markdown
from tasks.documents.pdf_files import read_pdf
from tasks.documents.row_files import read_table
from tasks.documents.text_files import read_text

QUESTION_FILES = ("questions.jsonl", "questions.csv", "questions.xlsx")  # in any case
_DAMAGED = (ValueError, KeyError, IndexError, TypeError, AttributeError)  # a part that is not as its kind has it
# What programs leave beside documents while they are open, and what file managers write.
_NO_DOCUMENTS = re.compile(r"~\$.*|\.~lock\..*#|\.DS_Store|Thumbs\.db|desktop\.ini", re.IGNORECASE)


@dataclass(frozen=True)
class Folder:
    """Everything found in a folder; len(files) = len(documents) + len(skipped) + (questions is there)."""

    path: Path
    files: tuple[str, ...]
    documents: tuple[Document, ...]
    skipped: tuple[Problem, ...]  # one a file that was not read
    not_entered: tuple[Problem, ...] = ()  # folders that were left alone, and why
    questions: Path | None = None

    @property
    def sections(self) -> tuple[Section, ...]:
        return tuple(section for document in self.documents for section in document.sections)


READERS: dict[str, Callable[[Path, str], Document]] = {
    **dict.fromkeys((".md", ".markdown"), read_markdown),
    **dict.fromkeys((".txt", ".text"), read_text),
    **dict.fromkeys((".html", ".htm", ".xhtml"), read_html),
    ".docx": read_docx,
    ".pdf": read_pdf,
    ".xlsx": read_table,
    **dict.fromkeys((".jsonl", ".csv"), read_table),
}
_ADVICE = {
    ".doc": "save it as .docx",
    ".odt": "save it as .docx",
    ".rtf": "save it as .docx",
    ".pages": "save it as .docx",
    ".xls": "save it as .xlsx",
    ".xlsm": "save it as .xlsx",
    ".ods": "save it as .xlsx",
    ".json": "write one object a line and name it .jsonl",
    ".pptx": "save it as .pdf",
    ".zip": "unpack it",
}


def read_folder(path: Path) -> Folder:
    """All documents under a folder, or one single file. Raises TaskError where there is no such folder."""
    path = path.expanduser()
    if _no_text(str(path)):
        raise TaskError(f"path={str(path)!a}: its name holds bytes that are no text in UTF-8; rename it")
    if not path.exists():
        raise TaskError(f"path={path}: no such file or folder; check the spelling")
    not_entered: list[Problem] = []
    if path.is_file():
        root, found = path.parent, [path.name]
    else:
        root, found = path, sorted(_walk(path, not_entered))
    home = path.resolve() if path.is_dir() else path.resolve().parent
    wanted = {name: n for n, name in enumerate(QUESTION_FILES)}
    named = (file for file in found if file.lower() in wanted and not _leaves(home, root / file))
    questions = sorted(named, key=lambda f: (wanted[f.lower()], f))
    questions = questions if path.is_dir() else []
    documents: list[Document] = []
    skipped: list[Problem] = []
    for file in found:
        if file in questions[:1]:
            continue
        if file in questions[1:]:
            said = f"is not read, since {questions[0]} is there; keep one of the two"
            skipped.append(Problem(file, 0, "line", said))
            continue
        try:
            documents.append(_read_file(root / file, file, home))
        except Unreadable as error:
            unit: Unit = "page" if file.lower().endswith(".pdf") else "line"
            skipped.append(Problem(file, error.place, unit, f"{error} (skipped)"))
    return Folder(
        path=path,
        files=tuple(found),
        documents=tuple(documents),
        skipped=tuple(skipped),
        not_entered=tuple(not_entered),
        questions=root / questions[0] if questions else None,
    )


def _walk(folder: Path, not_entered: list[Problem]) -> Iterator[str]:
    """Files below a folder, relative to it. Links to folders are not followed, so that no loop is walked."""
    pending = [folder]
    while pending:
        current = pending.pop()
        name = "" if current == folder else current.relative_to(folder).as_posix()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            not_entered.append(Problem(name or str(folder), 0, "line", f"cannot be opened ({error.strerror})"))
            continue
        for entry in entries:
            file = f"{name}/{entry.name}" if name else entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name.startswith("."):
                    not_entered.append(Problem(file, 0, "line", "is a hidden folder and is not entered"))
                else:
                    pending.append(Path(entry.path))
            elif entry.is_symlink() and Path(entry.path).is_dir():
                said = "is a link to a folder and is not followed; copy the folder here if it belongs"
                not_entered.append(Problem(file, 0, "line", said))
            elif not _NO_DOCUMENTS.fullmatch(entry.name):
                yield file


def _no_text(name: str) -> bool:
    """A name that cannot be written down: control characters, or bytes of another encoding."""
    return any(unicodedata.category(c) in ("Cc", "Cs") for c in name)


def _leaves(home: Path, path: Path) -> bool:
    """Whether a link leads out of its folder, to what nobody may have meant to hand over."""
    try:
        return not path.resolve(strict=True).is_relative_to(home)
    except (OSError, RuntimeError):
        return False  # it leads nowhere


def _read_file(path: Path, file: str, home: Path) -> Document:
    """One file by its kind. Raises Unreadable with the reason why it is skipped."""
    suffix = path.suffix.lower()
    if _no_text(file):
        raise Unreadable("has a name that holds control characters or is not UTF-8; rename it")
    if path.name.startswith("."):
        raise Unreadable("is a hidden file")
    try:
        state = path.stat()
    except OSError as error:
        raise Unreadable(f"cannot be opened ({error.strerror}); mend the link or remove it") from error
    if not stat.S_ISREG(state.st_mode):
        raise Unreadable("is no plain file; remove it")
    if _leaves(home, path):
        raise Unreadable("is a link that leads out of the folder and is not followed; copy the file here")
    if suffix not in READERS:
        kind = f"is of the kind {suffix!r}" if suffix else "has no ending that names its kind"
        fix = _ADVICE.get(suffix, f"known are: {', '.join(sorted(READERS))}")
        raise Unreadable(f"{kind}, which is not read; {fix}")
    if state.st_size == 0:
        raise Unreadable("is empty; write its text or remove it")
    try:
        return READERS[suffix](path, file)
    except OSError as error:
        raise Unreadable(
            f"cannot be read ({error.strerror or reason_of(error)}); check its permissions"
        ) from error
    except _DAMAGED as error:
        raise Unreadable(f"is damaged inside ({reason_of(error)}); save it again in its own program") from error
    except RecursionError as error:
        raise Unreadable("is nested too deeply to be read; simplify it") from error
