"""What the machine refuses, as one sentence: room on a disk, a folder that may be written, memory."""

from __future__ import annotations

import errno

from eval.records import RecordError
from methods.base import MethodError
from reports.base import ReportError
from tasks.base import TaskError

OURS = (TaskError, MethodError, RecordError, ReportError)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# What libraries say in place of an OSError: safetensors and Chroma; torch on a CPU.
FULL_WORDS = ("No space left on device", "File too large", "Disk quota exceeded", "database or disk is full")
MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")
GO_ON = "nothing that was finished is lost: the same command goes on from there"


def sentence_of(error: BaseException) -> str | None:
    """The thing, the place and the fix; None for an error that only its traceback explains."""
    if isinstance(error, OURS):
        return str(error)
    told = f"{type(error).__name__}: {error}".partition("\n")[0]
    code = error.errno if isinstance(error, OSError) else None
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    if code in FULL or any(word in told for word in FULL_WORDS):
        return f"{where}the disk is full, or a limit on it is reached ({told}); make room; {GO_ON}"
    if code in FORBIDDEN or "readonly database" in told:
        return f"{where}may not be written ({told}); give the right, or set runs_dir=... elsewhere; {GO_ON}"
    if isinstance(error, MemoryError) or code == errno.ENOMEM or any(word in told for word in MEMORY_WORDS):
        return (
            f"memory ran out ({told}); free some, set fit_processes=1, lower evaluation.batch_size or "
            f"train.batch_tokens, or take a smaller model; {GO_ON}"
        )
    return None
