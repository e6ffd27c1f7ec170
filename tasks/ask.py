"""Questions on a person's own documents, drafted by a model: `python -m tasks.ask path=<folder> model=<model>`.

Writes `questions.csv` into the folder, for the person to read and to strike from. After every clause the file is
whole; a run that was ended, whyever, goes on with the same command. How far it is stands in `.questions.asked`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.base import TaskError
from tasks.documents.cutting import Clause, Cut, cut
from tasks.documents.folder import read_folder
from tasks.drafts import Drafting, Kept, Work, can_answer, tokens_expected
from tasks.files import write_whole
from tasks.writers import Away, Writer, writer_for

QUESTIONS, PROGRESS = "questions.csv", ".questions.asked"
COLUMNS = ("question", "answer", "quote", "split")
NOTHING_AFTER = 5  # clauses in a row without a question that can be used: the model is not up to it
USAGE = """usage: python -m tasks.ask path=<folder> model=<model> [name=...] [questions=4] [clauses=0]

  path=...       the folder with your documents; questions.csv is written there
  model=...      the packaged smollm2-135m-instruct, a model folder or a Hub id, run here; or the address of a
                 server that speaks OpenAI's protocol, e.g. http://localhost:8000/v1 (its key, if it wants one,
                 is taken from OPENAI_API_KEY and written nowhere)
  name=...       which model of the server, where it has several
  questions=4    asked for on each clause
  clauses=0      stop after so many; 0: all. The same command without it goes on
"""


@dataclass(frozen=True)
class Options:
    path: str = ""
    model: str = ""
    name: str = ""
    questions: int = 4
    clauses: int = 0


def options_of(given: Sequence[str]) -> Options:
    """Raises TaskError for a word that is none."""
    found: dict[str, Any] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if name not in Options.__dataclass_fields__ or not equals:
            raise TaskError(f"{name}: no such setting; choose from: {', '.join(Options.__dataclass_fields__)}")
        if isinstance(getattr(Options, name), int):
            if not value.isdecimal() or len(value) > 6 or (name == "questions" and not 0 < int(value) < 21):
                raise TaskError(
                    f"{name}={value} is no number that fits; write e.g. {name}={getattr(Options, name)}"
                )
            found[name] = int(value)
        else:
            found[name] = value
    options = Options(**found)
    if not options.path or not options.model:
        raise TaskError("path=<folder with your documents> and model=<model or address> are needed")
    return options


def _digest(clause: Clause) -> str:
    return hashlib.sha256(f"{clause.title}\n{clause.text}".encode()).hexdigest()[:16]


@dataclass
class Progress:
    """What was done, in a file beside the questions: a line for the model, then one a clause."""

    file: Path
    model: str = ""
    asks_back: bool = False
    done: dict[str, Work] = field(default_factory=dict)  # digest of a clause -> its work

    @classmethod
    def read(cls, file: Path) -> Progress:
        """A last line that was cut off is left out. Raises TaskError for a file of another kind."""
        progress = cls(file)
        if file.is_symlink():
            raise TaskError(f"{file}: is a link, and would be written through; remove it")
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.exists() else []
        try:
            for line in lines[:-1]:
                body = json.loads(line)
                if "model" in body:
                    progress.model, progress.asks_back = str(body["model"]), bool(body["asks_back"])
                else:
                    kept = [Kept(**row) for row in body["work"].pop("kept")]
                    progress.done[body["clause"]] = Work(kept=kept, **body["work"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TaskError(f"{file}: is damaged; remove it and {QUESTIONS} to begin again") from error
        if lines and lines[-1]:  # cut off: what follows begins on a line of its own
            write_whole(file, "".join(f"{line}\n" for line in lines[:-1]))
        return progress

    def begin(self, model: str, asks_back: bool) -> None:
        self.model, self.asks_back = model, asks_back
        self._append({"model": model, "asks_back": asks_back})

    def add(self, clause: Clause, work: Work) -> None:
        self.done[_digest(clause)] = work
        self._append({"clause": _digest(clause), "work": asdict(work)})

    def _append(self, body: dict[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(body, ensure_ascii=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())


def table(works: Sequence[Work]) -> str:
    """questions.csv as text, with the mark by which spreadsheets know UTF-8."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    writer.writerows((k.question, k.answer, k.quote, k.split) for work in works for k in work.kept)
    return f"\ufeff{out.getvalue()}"


def _begun(folder: Path, clauses: Sequence[Clause]) -> Progress:
    """What an earlier run left. Raises TaskError where questions lie there that are not its own."""
    progress = Progress.read(folder / PROGRESS)
    for other in folder.iterdir():
        if other.name.lower() in ("questions.csv", "questions.jsonl") and not progress.model:
            raise TaskError(f"{other}: is there already; rename it to have others written")
    all_works = list(progress.done.values())
    known = {_digest(clause) for clause in clauses}
    progress.done = {digest: work for digest, work in progress.done.items() if digest in known}
    works = list(progress.done.values())
    questions = folder / QUESTIONS
    if questions.exists():
        found = questions.read_bytes().decode(errors="replace")
        if found not in {table(w) for w in (all_works, all_works[:-1], works, works[:-1])}:
            raise TaskError(f"{questions}: was changed since; rename it, and remove {PROGRESS} to begin again")
    return progress


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _spent(works: Sequence[Work]) -> str:
    read, written = sum(w.prompt_tokens for w in works), sum(w.new_tokens for w in works)
    return f"{_count(read, 'token')} read, {written:,} written"


def ask(options: Options, say: Callable[[str], object]) -> str:
    """Works through the clauses that are left; returns what was done. say: takes a line of progress.

    Raises TaskError, with everything kept that was done before.
    """
    folder = Path(options.path).expanduser()
    if not folder.is_dir():
        raise TaskError(f"path={options.path}: no such folder; check the spelling")
    pieces = cut(read_folder(folder).sections)
    if not pieces.clauses:
        raise TaskError(
            f"path={options.path}: no clause was found; python -m tasks.check path={options.path} says why"
        )
    progress = _begun(folder, pieces.clauses)
    left = [clause for clause in pieces.clauses if _digest(clause) not in progress.done]
    if options.clauses:
        left = left[: options.clauses]
    total = len(pieces.clauses)
    try:
        writer = writer_for(options.model, options.name)
        try:
            _go_on(options, pieces, left, progress, writer, say)
        finally:
            writer.close()
    except Away as error:
        done = f"{len(progress.done)} of {total} clauses are done and kept; the same command goes on from there"
        raise TaskError(f"{error}; {done}") from error
    works = list(progress.done.values())
    if len(works) < total:
        return f"{len(works)} of {total} clauses are done ({_spent(works)}); the same command goes on."
    progress.file.unlink()
    if not any(work.kept for work in works):
        (folder / QUESTIONS).unlink()
        raise TaskError(f"{progress.model} wrote no question that can be used; take a larger model")
    return _summary(works, progress, folder / QUESTIONS)


def _go_on(
    options: Options,
    pieces: Cut,
    left: Sequence[Clause],
    progress: Progress,
    writer: Writer,
    say: Callable[[str], object],
) -> None:
    if progress.model and progress.model != writer.name:
        raise TaskError(
            f"{progress.file}: was begun with {progress.model}; go on with it, or remove the file and {QUESTIONS}"
        )
    read, written = tokens_expected(left, options.questions)
    say(f"{_count(len(left), 'clause')} to ask about: some {read:,} tokens to read and {written:,} to write")
    if not progress.model:
        trial = Work()
        progress.begin(writer.name, can_answer(writer, trial))
    if not progress.asks_back:
        say("the model does not find what short texts say: its questions are not checked by asking it back")
    drafting = Drafting(pieces, options.questions)
    for work in progress.done.values():
        for kept in work.kept:
            drafting.remember(kept)
    in_vain = 0
    for number, clause in enumerate(left, start=1):
        work = drafting.work_on(clause, writer, progress.asks_back)
        progress.add(clause, work)
        works = list(progress.done.values())
        write_whole(progress.file.with_name(QUESTIONS), table(works))
        say(f"clause {number} of {len(left)}: {sum(len(w.kept) for w in works)} questions, {_spent(works)}")
        in_vain = 0 if work.kept else in_vain + 1
        if in_vain == NOTHING_AFTER:
            raise Away(
                f"{writer.name} wrote nothing that can be used on {in_vain} clauses in a row; take a larger model"
            )


def _summary(works: Sequence[Work], progress: Progress, file: Path) -> str:
    kept = [k for work in works for k in work.kept]
    drafts, refused, otherwise = (
        sum(getattr(work, name) for work in works) for name in ("num_drafts", "num_refused", "num_otherwise")
    )
    back = f"{otherwise} answered otherwise when asked back" if progress.asks_back else "none asked back"
    splits = ", ".join(f"{sum(k.split == split for k in kept)} {split}" for split in ("train", "dev", "test"))
    asked = len({k.clause for k in kept if k.clause})
    return (
        f"{drafts} drafts = {len(kept)} kept + {refused} refused by the program + {back}\n"
        f"{file}: {splits}; {asked} of {len(works)} clauses asked about, "
        f"{sum(not k.answer for k in kept)} questions that nothing answers\n"
        f"{_spent(works)}\n"
        f"Now read the file and strike what nobody would ask; then python -m tasks.check path={file.parent}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if not given or any(word in ("-h", "--help") for word in given):
        sys.stdout.write(USAGE)
        return 0
    try:
        done = ask(options_of(given), lambda line: sys.stderr.write(f"{line}\n"))
    except TaskError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted: what was done is kept; the same command goes on from there\n")
        return 130
    except OSError as error:
        sys.stderr.write(f"error: {error.filename}: {error.strerror}; check its permissions and the disk\n")
        return 2
    sys.stdout.write(f"{done}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
