"""A dry run over a task's data: `python -m tasks.check path=<folder>` or `python -m tasks.check task=regs`.

Prints what was found, cut and asked, and every problem with its file and line. The exit status is 0 for a
task that can be compared and 2, with one sentence, for one that cannot. `show=clauses` lists every clause
with its id, `show=questions` every question with its answer, `show=all` both and every remark.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tasks import local
from tasks.base import TaskData, TaskError
from tasks.documents import accounting
from tasks.documents.cutting import CLAUSE_WORDS, num_words
from tasks.documents.form import Problem
from tasks.forecast import forecast
from tasks.registry import TASKS, load_task
from tasks.similarity import candidate_pairs
from tasks.validate import NEAR_JACCARD, first_of_all, problems, remarks, words

NO_DRAFT = (
    "the rule asks for numbers, dates, codes and names in English or Chinese text; write a questions.csv instead"
)
TURNS = frozenset(
    map(chr, [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
)  # of direction
SHOWN = 12  # items of a list, unless show=all
MOST_ALIKE = 3  # lines that say the same of one file before they become one
USAGE = """usage: python -m tasks.check path=<folder> | task=<name> [option=value ...] [show=clauses|questions|all]

  path=...   a folder with your documents: Markdown, text, HTML, DOCX, PDF, XLSX, JSONL, CSV, and if you
             have them questions.jsonl, questions.csv or questions.xlsx
  task=...   one of: {tasks}
"""


def length_table(lengths: Sequence[int]) -> str:
    """`34 words in the middle (8 to 92); 3 below 25, 40 within 25-80, 2 above 80`"""
    least, most = CLAUSE_WORDS
    middle = sorted(lengths)[len(lengths) // 2]
    below, above = sum(n < least for n in lengths), sum(n > most for n in lengths)
    within = len(lengths) - below - above
    return (
        f"{middle} words in the middle ({min(lengths)} to {max(lengths)}); "
        f"{below} below {least}, {within} within {least}-{most}, {above} above {most}"
    )


def _some(items: Iterable[str], everything: bool, indent: str = "  ") -> Iterator[str]:
    listed = list(items)
    shown = listed if everything else listed[:SHOWN]
    yield from (f"{indent}{item}" for item in shown)
    if len(listed) > len(shown):
        yield f"{indent}... and {len(listed) - len(shown)} more (show=all)"


def grouped(listed: Iterable[Problem]) -> Iterator[str]:
    """A line a problem; what says the same of more than three places of a file is one line with their count."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in listed:
        groups.setdefault((problem.file, re.sub(r"('[^']*')|\d+", r"\1", problem.said)), []).append(problem)
    for members in groups.values():
        if len(members) <= MOST_ALIKE:
            yield from map(str, members)
            continue
        places = [str(problem.place) for problem in members[1:]]
        more = f"{', '.join(places[:6])}, ..." if len(places) > 6 else ", ".join(places)
        yield f"{members[0]} (and {len(places)} more like it: {members[0].unit}s {more})"


def account_lines(listed: Sequence[accounting.Account], everything: bool) -> Iterator[str]:
    """Where the characters of each file went; files of which all stands in clauses come last and may be summed."""
    whole = [one for one in listed if len(one.parts) == 1 and not one.lost and not one.num_pictures]
    others = [one for one in listed if one not in whole]
    shown_whole = whole if everything or len(listed) <= SHOWN else []
    if listed:
        yield ""
        yield f"Characters of each file, letters and digits ({len(listed)}):"
        yield from (f"  {one}" for one in (*others, *shown_whole))
        if len(shown_whole) < len(whole):
            total = sum(one.visible for one in whole)
            yield f"  {len(whole)} more files: {total:,} characters, all in clauses (show=all names them)"


def _kinds(files: Iterable[str]) -> str:
    counts = Counter(file.rpartition(".")[2].lower() for file in files)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def folder_lines(found: local.Local) -> Iterator[str]:
    """What happened to every file: files found = read + skipped + the questions file."""
    folder, pieces = found.folder, found.cut
    num_questions_files = int(folder.questions is not None)
    pages = sum(document.num_pages for document in folder.documents)
    yield (
        f"Files      {len(folder.files)} found = {len(folder.documents)} read + {len(folder.skipped)} skipped"
        + (" + 1 with questions" if num_questions_files else "")
    )
    if folder.documents:
        in_pdf = f", {pages} PDF page{'s' * (pages > 1)}" if pages else ""
        yield f"           {_kinds(document.file for document in folder.documents)}{in_pdf}"
    yield f"Sections   {len(folder.sections)} under headings"
    total = len(pieces.clauses) + len(pieces.duplicates) + len(pieces.too_short) + len(pieces.too_long)
    yield (
        f"Clauses    {total} cut = {len(pieces.clauses)} used + {len(pieces.duplicates)} exact duplicates "
        f"+ {len(pieces.too_short)} too short + {len(pieces.too_long)} too long"
    )


def clause_lines(task: TaskData) -> Iterator[str]:
    """Lengths and near duplicates of the clauses that are used."""
    lengths = [num_words(memory.text) for memory in task.memories]
    if lengths:
        yield f"           {length_table(lengths)}"
    families = Counter(memory.family for memory in task.memories if memory.family)
    near = [memory for memory in task.memories if families[memory.family] > 1]
    sets = [frozenset(words(memory.text)) for memory in task.memories]
    pairs = sum(1 for _ in candidate_pairs(sets, NEAR_JACCARD))
    yield (
        f"Near       {len(near)} clauses in {sum(n > 1 for n in families.values())} families of near misses; "
        f"{pairs} pairs share {NEAR_JACCARD:.0%} of their words"
    )


def question_lines(task: TaskData, found: local.Local | None) -> Iterator[str]:
    """Where the questions are from, their splits, and how many clauses they cover."""
    if found is not None:
        drawn = found.questions
        own = len(drawn.used) - drawn.num_stock
        what = f"rows of {drawn.file}" if drawn.file else "made by rule (MACHINE-MADE: no person has seen them)"
        yield f"Questions  {drawn.num_found} {what} = {own} used + {drawn.num_refused} refused"
        if not drawn.file and not own and task.memories:
            yield f"           {NO_DRAFT}"
        if drawn.num_stock:
            yield f"           {drawn.num_stock} more from the packaged stock that the documents do not answer"
    else:
        yield f"Questions  {len(task.questions)} held out"
    counts = local.split_counts(task.questions)
    cues = [cue for memory in task.memories for cue in memory.cues]
    abstentions = sum(conversation.kind == "unanswerable" for conversation in task.sft)
    yield f"           train: {len(cues)} on clauses, {abstentions} unanswerable"
    for split in ("dev", "test"):
        kinds = [f"{n} {kind}" for (s, kind), n in sorted(counts.items()) if s == split]
        yield f"           {split}: {', '.join(kinds) or 'none'}"
    tested = {memory_id for qa in task.held_out("test") for memory_id in qa.memory_ids}
    cued = sum(memory.cued for memory in task.memories)
    total = len(task.memories)
    share = f" ({len(tested) / total:.0%})" if total else ""
    yield f"Coverage   {len(tested)} of {total} clauses have a test question{share}, {cued} have training ones"


def problem_lines(found: local.Local, accounts: Sequence[accounting.Account], everything: bool) -> Iterator[str]:
    """Everything that was skipped, left out or refused, then notes; each with its file and line."""
    folder, pieces, drawn = found.folder, found.cut, found.questions
    reports: list[tuple[str, list[Problem]]] = [
        ("Skipped files", list(folder.skipped)),
        ("Folders not entered", list(folder.not_entered)),
        (
            "Inside files that were read",
            [*(p for document in folder.documents for p in document.problems), *pieces.notes],
        ),
        ("Text that was lost", accounting.problems(accounts)),
        (
            "Exact duplicates, left out",
            [
                Problem(c.file, c.place, c.unit, f"says the same as {other.id} ({other.where})")
                for c, other in pieces.duplicates
            ],
        ),
        (
            "Too short, left out",
            [
                Problem(c.file, c.place, c.unit, f"{c.text!r} under the heading {c.title!r}")
                for c in pieces.too_short
            ],
        ),
        (
            "Too long, left out",
            [
                Problem(c.file, c.place, c.unit, f"one sentence of {num_words(c.text)} words; break it up")
                for c in pieces.too_long
            ],
        ),
        ("Questions refused", [*drawn.refused]),
        ("About the questions file", list(drawn.notes)),
    ]
    for heading, listed in reports:
        if listed:
            yield ""
            yield f"{heading} ({len(listed)}):"
            # A person's own files are listed in full: nothing is skipped silently.
            yield from _some(
                map(str, listed) if everything else grouped(listed),
                everything or not (heading == "Questions refused" and not drawn.file),
            )


def report(task: TaskData, found: local.Local | None, show: str) -> tuple[list[str], str]:
    """(the lines to print, the sentence why the task cannot be used or "")."""
    everything = show == "all"
    lines = [f"{task.name}: {task.description}", ""]
    if found is not None:
        lines += folder_lines(found)
    else:
        lines.append(f"Clauses    {len(task.memories)}")
    lines += clause_lines(task)
    lines += question_lines(task, found)
    lines += forecast(task) if task.memories and any(task.held_out("test")) else ()
    lines.append(f"Licence    {task.licence}")
    lines.append(f"Source     {task.source} (version {task.version})")
    if found is not None:
        accounts = list(accounting.accounts(found.folder.documents, found.cut))
        lines += account_lines(accounts, everything)
        lines += problem_lines(found, accounts, everything)
    unsound, remarked = problems(task), remarks(task)
    if found is not None:  # documents say much that nobody asks for
        untested = [remark for remark in remarked if remark.endswith("it has no test question; write one")]
        remarked = [remark for remark in remarked if remark not in untested]
        if untested:
            number = "1 clause has" if len(untested) == 1 else f"{len(untested)} clauses have"
            remarked.append(f"{number} no test question: only there to be told apart from the others")
    for heading, listed in (("Problems", unsound), ("Remarks", remarked)):
        if listed:
            lines += ["", f"{heading} ({len(listed)}):", *_some(listed, everything or heading == "Problems")]
    families: dict[str, list[str]] = {}
    for memory in task.memories:
        if memory.family:
            families.setdefault(memory.family, []).append(memory.id)
    near = [" ~ ".join(ids) for ids in families.values() if len(ids) > 1]
    if near and found is not None:
        lines += ["", f"Near duplicates, asked for as near misses ({len(near)}):", *_some(near, everything)]
    if show in ("clauses", "all"):
        lines += ["", "Clauses:"]
        lines += [f"  {memory.id}  {memory.title}\n    {memory.text}" for memory in task.memories]
    if show in ("questions", "all"):
        lines += ["", "Questions:"]
        lines += [
            f"  {qa.split} {qa.id}\n    {qa.question}\n    {qa.answer or '(unanswerable)'}"
            for qa in task.questions
        ]
    return lines, first_of_all(unsound) if unsound else ""


def check(arguments: Sequence[str]) -> tuple[list[str], str]:
    """The report and the verdict for command-line words. Raises TaskError for what cannot be looked at."""
    options: dict[str, Any] = {}
    for word in arguments:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise TaskError(f"{word!r} is not understood; write option=value, e.g. path=my_documents")
        options[name] = int(value) if value.isdigit() else value
    show = str(options.pop("show", ""))
    if show not in ("", "clauses", "questions", "all"):
        raise TaskError(f"show={show} is not known; choose clauses, questions or all")
    name = str(options.pop("task", "local" if "path" in options else ""))
    if not name:
        raise TaskError("say what to check: path=<folder with your documents> or task=<name>")
    if name == "local":
        unknown = sorted(set(options) - {"path"})
        if unknown:
            raise TaskError(
                f"{unknown[0]}: no such option here; task=local is checked as a whole, with path=<folder>"
            )
        found = local.read(str(options.get("path", "")))
        return report(found.task, found, show)
    return report(load_task(name, **options), None, show)


def shown(line: str) -> str:
    """The line with nothing in it that a terminal would act on: names of files can hold anything."""
    if line.isprintable():
        return line
    return "".join(
        f"<U+{ord(c):04X}>" if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in TURNS else c
        for c in line
    )


def main(arguments: Sequence[str] | None = None) -> int:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # LANG=C: better a question mark than a traceback
    words_given = list(sys.argv[1:] if arguments is None else arguments)
    if not words_given or any(word in ("-h", "--help") for word in words_given):
        sys.stdout.write(USAGE.format(tasks=", ".join(sorted(TASKS))))
        return 0
    try:
        lines, unusable = check(words_given)
    except TaskError as error:
        sys.stderr.write(f"error: {shown(' '.join(str(error).split()))}\n")
        return 2
    sys.stdout.write("".join(f"{shown(line)}\n" for text in lines for line in text.split("\n")))
    if unusable:
        sys.stderr.write(f"error: this task cannot be compared yet: {shown(unusable)}\n")
        return 2
    sys.stdout.write("\nUsable: it can be compared.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
