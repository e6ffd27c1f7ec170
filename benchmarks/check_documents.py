"""How long `python -m tasks.check` takes on 50 pages: `python benchmarks/check_documents.py [folder]`.

Writes 30 Markdown pages and a PDF of 20 pages, some 10,000 words of invented rules, into the folder (or a
temporary one), and times the command as a process of its own, three times.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import matplotlib

matplotlib.use("pdf")

from matplotlib import pyplot
from matplotlib.backends.backend_pdf import PdfPages

from tasks.base import Memory
from tasks.registry import load_task

NUM_MARKDOWN, NUM_PDF, CLAUSES_A_PAGE = 30, 20, 9


def write_pages(folder: Path) -> int:
    """Writes the pages; returns how many words they hold."""
    memories = load_task("synthetic", num_clauses=(NUM_MARKDOWN + NUM_PDF) * CLAUSES_A_PAGE, seed=0).memories
    pages = [memories[n : n + CLAUSES_A_PAGE] for n in range(0, len(memories), CLAUSES_A_PAGE)]
    for number, page in enumerate(pages[:NUM_MARKDOWN], start=1):
        text = "".join(f"\n## {memory.title}\n\n{textwrap.fill(memory.text, 80)}\n" for memory in page)
        (folder / f"page-{number:02d}.md").write_text(f"# Page {number}\n{text}", encoding="utf-8")
    with matplotlib.rc_context({"pdf.fonttype": 42}), PdfPages(folder / "rules.pdf") as pdf:
        for page in pages[NUM_MARKDOWN : NUM_MARKDOWN + NUM_PDF]:
            _write_pdf_page(pdf, page)
    return sum(len(memory.text.split()) for page in pages[: NUM_MARKDOWN + NUM_PDF] for memory in page)


def _write_pdf_page(pdf: PdfPages, page: tuple[Memory, ...]) -> None:
    figure = pyplot.figure(figsize=(8.27, 11.69))
    y = 0.96
    for memory in page:
        figure.text(0.1, y, memory.title, fontsize=14)
        y -= 0.02
        for line in textwrap.wrap(memory.text, 85):
            figure.text(0.1, y, line, fontsize=9)
            y -= 0.014
        y -= 0.02
    pdf.savefig(figure)
    pyplot.close(figure)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        num_words = write_pages(folder)
        words = [sys.executable, "-m", "tasks.check", f"path={folder}"]
        for _ in range(3):
            started = time.perf_counter()
            result = subprocess.run(words, capture_output=True, text=True, check=True)
            taken_s = time.perf_counter() - started
            sys.stdout.write(f"{taken_s:.2f} s for {NUM_MARKDOWN + NUM_PDF} pages of {num_words} words\n")
        sys.stdout.write("\n".join(result.stdout.splitlines()[:12]) + "\n")


if __name__ == "__main__":
    main()
