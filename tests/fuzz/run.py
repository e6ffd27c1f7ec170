"""The long form: `make fuzz`, or `python tests/fuzz/run.py [runs=100000] [seconds=600] [TARGET ...]`.

Each target runs in a process of its own under atheris, which keeps the inputs that reach new code and goes on from
them. A fault ends with status 1 and leaves its input in `fuzz_faults/`, to become a regression test.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FAULTS = ROOT / "fuzz_faults"
PACKAGES = ["tasks", "methods.parts", "methods.template", "methods.chat", "eval", "reports", "pipelines"]


def prepare(folder: Path, name: str) -> None:
    """The target's whole inputs, and a dictionary of its words."""
    from targets import TARGETS

    (folder / "corpus").mkdir()
    for number, seed in enumerate(TARGETS[name].seeds):
        (folder / "corpus" / str(number)).write_bytes(seed)
    escaped = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in TARGETS[name].words)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in escaped), encoding="ascii")


def fuzz(name: str, runs: int, seconds: int) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=PACKAGES):
        from targets import MOST_BYTES, TARGETS

        TARGETS[name].run(b"a")  # what it imports late, and keeps
    scratch = Path(tempfile.mkdtemp(prefix="recallbench-corpus-"))
    prepare(scratch, name)
    options = {
        "runs": runs,
        "max_total_time": seconds,
        "max_len": max([MOST_BYTES, *map(len, TARGETS[name].seeds)]),
        "dict": scratch / "words",
        "artifact_prefix": f"{FAULTS}/{name}-",
        "seed": 1,
        "timeout": 60,
        "rss_limit_mb": 4096,
    }
    words = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup([sys.argv[0], *words, str(scratch / "corpus")], TARGETS[name].run)
    atheris.Fuzz()


def number(word: str, default: int) -> int:
    return next((int(said.partition("=")[2]) for said in sys.argv[1:] if said.startswith(f"{word}=")), default)


def main() -> None:
    from targets import TARGETS

    names = [word for word in sys.argv[1:] if "=" not in word] or list(TARGETS)
    FAULTS.mkdir(exist_ok=True)
    failed = []
    for name in names:
        limits = [str(number("runs", 100_000)), str(number("seconds", 0))]
        started = time.monotonic()
        command = [sys.executable, __file__, "--one", name, *limits]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        said = done.stdout + done.stderr
        count = re.search(r"Done (\d+) runs", said) or re.search(r"#(\d+)(?!.*#\d)", said, re.DOTALL)
        fault = "" if done.returncode == 0 else f", a FAULT\n{said[-3000:]}"
        inputs = f"{int(count[1]):,}" if count else "no"
        sys.stdout.write(f"{name}: {inputs} inputs, {time.monotonic() - started:.0f} s{fault}\n")
        sys.stdout.flush()
        failed += [name] if fault else []
    sys.exit(f"faults in: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(ROOT)]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
