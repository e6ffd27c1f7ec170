"""The pages of a PDF; the second half of a long one is read by a process of its own at the same time.

It is a program that is started (`python -m tasks.documents.pdf_pages FILE FIRST LAST [LAYER OFF ...]`) and no fork
of this one, which may hold threads; where it cannot be had, this process reads the whole file.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.documents.form import reason_of
from tasks.documents.pdf_lines import Line, Page, page_lines

LONG = 60  # pages from which a second process saves more than its start takes


def opened(path: Path) -> Any:
    """The file as pdfium opens it, with its forms. Raises pypdfium2.PdfiumError."""
    import pypdfium2

    pdf = pypdfium2.PdfDocument(path)
    pdf.init_forms()
    return pdf


def read_pages(pdf: Any, path: Path, off: Collection[str] = ()) -> Iterator[Page | str]:
    """Each page in order, or the reason why it cannot be read."""
    num_pages = len(pdf)
    is_long = num_pages >= LONG and (os.cpu_count() or 1) > 1 and bool(sys.executable)
    half = (num_pages + 1) // 2 if is_long else num_pages
    helper = _started(path, half + 1, num_pages, off) if half < num_pages else None
    try:
        for number in range(1, half + 1):
            yield _page(pdf, number, off)
        others = _answer(helper) if helper else None
    finally:
        if helper:
            helper.kill()
            helper.wait()
    yield from others or (_page(pdf, number, off) for number in range(half + 1, num_pages + 1))


def _page(pdf: Any, number: int, off: Collection[str]) -> Page | str:
    import pypdfium2

    try:
        return page_lines(pdf, number, off)
    except pypdfium2.PdfiumError as error:
        return reason_of(error)


def _started(path: Path, first: int, last: int, off: Collection[str]) -> subprocess.Popen[bytes] | None:
    words = [sys.executable, "-m", "tasks.documents.pdf_pages", str(path.resolve())]
    words += [str(first), str(last), json.dumps(sorted(off))]  # a name may hold what no word of a command can
    places = os.pathsep.join(place or os.getcwd() for place in sys.path)
    with contextlib.suppress(OSError):
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": places},
        )
    return None


def _answer(helper: subprocess.Popen[bytes]) -> list[Page | str] | None:
    """What the other process has read, None where it failed."""
    said, _ = helper.communicate()
    return [_as_page(page) for page in json.loads(said)] if helper.returncode == 0 else None


def _as_page(told: Any) -> Page | str:
    if isinstance(told, str):
        return told
    lines, *others = told
    whole = ({**line, "cells": tuple(line["cells"]), "edges": tuple(line["edges"])} for line in lines)
    return Page([Line(**line) for line in whole], *others)


def _main(file: str, first: str, last: str, off: str) -> None:
    pdf, names = opened(Path(file)), json.loads(off)
    found = [_page(pdf, number, names) for number in range(int(first), int(last) + 1)]
    told = [page if isinstance(page, str) else [list(map(asdict, page.lines)), *page[1:]] for page in found]
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    _main(*sys.argv[1:])
