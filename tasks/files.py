"""Files that are whole or not there at all, whenever a process ends, and locks that end with their process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there processes that start in the same moment are not told apart
    fcntl = None  # type: ignore[assignment]

PART = ".part"  # ends the name of a file that is being written


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to; behind the block that file is on the disk and takes its place.

    Where the block fails nothing has changed. Each process has a file of its own, so two never mix.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        yield part
        flush(part)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    flush(path.parent)


def write_whole(path: Path, body: str | bytes) -> None:
    """The file with this content, whole or not at all; text as UTF-8, line ends as they are."""
    with replacing(path) as part:
        part.write_bytes(body.encode("utf-8") if isinstance(body, str) else body)


def flush(path: Path) -> None:
    """A file's content, or a folder's names, down to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(folder: Path) -> None:
    """Every file below a folder, written by whomever, down to the disk."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            with contextlib.suppress(FileNotFoundError):  # a database takes its journal away
                flush(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time inside the block; others wait. `path`: a file, made if it is missing, or a folder."""
    if fcntl is None:
        yield
        return
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # gives the lock back, as the end of the process does
