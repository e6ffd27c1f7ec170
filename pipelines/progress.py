"""The live display: stage, method, rate and time left. Plain lines where nobody watches."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from functools import partialmethod
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY_S = 15.0  # between plain lines


class Display:
    """`display(stage, done, total)` from anywhere below; a stage ends once done is total, and may begin anew."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._live = self.console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:>6.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[rate]:>9}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._begin: dict[str, tuple[float, int]] = {}
        self._last = 0.0

    def __enter__(self) -> Display:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._progress.stop()

    def say(self, text: str) -> None:
        """One line above the bars."""
        (self._progress.console if self._live else self.console).print(text, highlight=False)

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.perf_counter()
        again = stage in self._tasks and stage not in self._begin
        begin, first = self._begin.setdefault(stage, (now, done))
        rate = (done - first) / (now - begin) if now > begin else 0.0
        if self._live:
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(stage, total=total, rate="")
            elif again:
                self._progress.reset(self._tasks[stage], total=total, rate="")
            self._progress.update(self._tasks[stage], completed=done, rate=f"{rate:.1f}/s")
        elif now - self._last > EVERY_S or done >= total:
            self._last = now
            left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
            self.say(f"{stage}: {done}/{total} ({rate:.1f}/s{left})")
        if done >= total:
            self._begin.pop(stage, None)  # fits side by side report from threads of their own


def quiet_libraries() -> None:
    """Third-party chatter off; their errors stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    for name in ("transformers", "sentence_transformers", "chromadb", "accelerate", "httpx", "alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    from tqdm import tqdm

    # Other bars, such as that over a GGUF file's tensors; TQDM_DISABLE is read at tqdm's import, which is over.
    tqdm.__init__ = partialmethod(vars(tqdm)["__init__"], disable=True)
