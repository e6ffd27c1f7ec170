"""What a command and the processes that it starts say to each other: lines of JSON behind a mark.

Anything else on a child's output is a library's and never read as the child's own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from pipelines.faults import sentence_of

MARK = "recallbench: "
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)  # exit status of what the system ends where memory runs out


def say(**said: Any) -> None:
    """A line for the process that started this one; where that has gone, this one ends too."""
    try:
        sys.stdout.write(f"{MARK}{json.dumps(said)}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python says so again at its end
        raise SystemExit(1) from None


def as_child(work: Callable[[], None]) -> None:
    """Runs what a child is for; a fault that a user can put right is said to its parent, with exit status 2."""
    try:
        work()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        say(error=sentence)
        raise SystemExit(2) from None


def heard(line: str) -> tuple[str, dict[str, Any] | None]:
    """(what a library printed, what the child said) of a line of its output; None where it said nothing."""
    printed, mark, rest = line.partition(MARK)
    try:
        said = json.loads(rest) if mark else None
    except ValueError:
        said = None
    return (printed, said) if isinstance(said, dict) else (line, None)


def died_of(status: int) -> str:
    """What ended a child, as a user can put it right; "" where its own last words tell more."""
    if status in KILLED:
        return "it was killed from outside, most likely because memory ran out; free some, or set fit_processes=1"
    return ""
