"""Talk to a run's methods: `python -m pipelines.chat method=recall run=latest`, or `--web` for a local page.

The terminal streams tokens, shows the think dimmed and what was recalled or retrieved below the answer. Where
nobody watches (a pipe), questions are read line by line and everything is plain text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text

from methods.base import Answer, Lookup, MethodError
from pipelines.answer_pieces import AnswerPieces, verb
from pipelines.cli import CONF, main_with
from reports.text import one_line, visible

if TYPE_CHECKING:
    from pipelines.fitted_run import Conversation

HELP = """usage: python -m pipelines.chat [method=recall] [run=latest] [seed=...] [--web]

  method=...    one that the run has a saved fit of, of: {methods}, or a row of an ablation;
                with --web the columns, e.g. method=recall,rag (default: the first three of the run)
  run=...       a run's folder, its id, or latest
  runs_dir=...  where runs lie (default: runs)
  seed=...      which of the run's seeds (default: its first)
  device=...    auto, cpu, cuda (default: the run's own)
  --web         a page for this machine alone, methods side by side
  port=...      of that page (default: 8377; 0: any that is free)

In the chat: /help lists the commands.

{runs}
A run is made with python -m pipelines.compare:
  task=...      {tasks}
  preset=...    {presets}
  model=...     {packaged} (packaged), a folder, or a Hub id
"""

COMMANDS = """/write <title>: <text>   adds a clause, or replaces the one with that title or id
/forget <id>             removes a clause
/why                     the last answer's lookups: candidates, scores, texts
/method <name>           goes on with another method: {methods}
/clear                   forgets the conversation
/help                    this list
/quit                    leaves, as Ctrl-D does; Ctrl-C stops a running answer"""

NUM_NEXT = 3  # alternatives named below an answer
STYLES = {"think": "dim", "recalled": "dim cyan", "answer": "", "control": "dim"}


@dataclass(frozen=True)
class Options:
    """The words of the command."""

    method: str = ""
    run: str = "latest"
    runs_dir: str = "runs"
    seed: int = -1  # the run's first
    device: str = ""
    web: bool = False
    port: int = 8377


class Terminal:
    """Reads lines, answers questions, does commands."""

    def __init__(self, conversation: Conversation, output: TextIO, read: Callable[[str], str]) -> None:
        """read: prompt -> the next line; raises EOFError at the end."""
        self.conversation = conversation
        self.console = Console(file=output, highlight=False, markup=False, emoji=False)
        self._read = read
        self._commands: dict[str, Callable[[str], None]] = {
            "/write": self.write,
            "/forget": self.forget,
            "/why": self.why,
            "/method": self.switch,
            "/clear": self.clear,
            "/help": self.help,
        }

    def say(self, text: str, style: str = "", end: str = "\n") -> None:
        self.console.print(Text(text, style), end=end, soft_wrap=True)

    def loop(self) -> None:
        """Until /quit or the end of the input."""
        fitted = self.conversation.fitted
        others = ", ".join(name for name in fitted.names if name != self.conversation.name)
        self.say(f"{self.conversation.name} of {fitted.folder} ({fitted.config.model}, seed {fitted.seed})")
        if fitted.changed:
            self.say(f"task {fitted.task.name} has changed since that run: texts shown may be newer", "yellow")
        self.say(f"ask, or /help; other methods: {others or 'none'}")
        while True:
            try:
                line = self._read(f"{self.conversation.name}> ").strip()
                if not self.console.is_terminal:
                    self.say(f"\n{self.conversation.name}> {one_line(line)}")
                if line == "/quit":
                    return
                self.do(line)
            except EOFError:
                self.say("")
                return
            except KeyboardInterrupt:
                self.say("\n(stopped; Ctrl-D leaves)", "yellow")
            except MethodError as error:
                self.say(one_line(str(error)), "red")

    def do(self, line: str) -> None:
        """One line: a command, or a question."""
        if not line:
            return
        word, _, rest = line.partition(" ")
        if not word.startswith("/"):
            self.ask(line)
        elif word in self._commands:
            self._commands[word](rest.strip())
        else:
            raise MethodError(f"{word}: no such command; choose from: {', '.join([*self._commands, '/quit'])}")

    # questions

    def ask(self, question: str) -> None:
        pieces = AnswerPieces(lambda kind, text: self.say(_printable(text), STYLES[kind], end=""))
        answer = self.conversation.ask(question, pieces.add)
        self.say("")
        if not answer.final:
            self.say("(the think was not closed, so there is no answer)", "yellow")
        if not answer.finished:
            self.say(f"(cut after {answer.usage.new_tokens} tokens)", "yellow")
        for line in self.looked_up(answer):
            self.say(f"  {line}", "dim")
        self.say(f"  {self.conversation.name}: {spent(answer)}", "dim")

    def looked_up(self, answer: Answer) -> list[str]:
        """A line for each lookup, with the best of what was not chosen."""
        lines = []
        for lookup in answer.lookups:
            others = [f"{name_of(i)} {score:.2f}" for i, score in alternatives(answer, lookup)[:NUM_NEXT]]
            rest = f"; next: {', '.join(others)}" if others else ""
            lines.append(f"{verb(answer)} {name_of(lookup.memory_id)} {lookup.score:.2f}{rest}")
        return lines

    # commands

    def write(self, rest: str) -> None:
        title, colon, text = (part.strip() for part in rest.partition(":"))
        if not (title and colon and text):
            raise MethodError("/write needs a title and a text: /write <title>: <text>")
        self.say(f"writing {one_line(title)} ...", "dim")  # recall may optimise a vector for it
        self.say(self.conversation.write(title, text), "green")

    def forget(self, rest: str) -> None:
        if not rest:
            raise MethodError("/forget needs the id of a clause: /forget <id> (/why shows ids)")
        self.say(self.conversation.forget(rest), "green")

    def switch(self, rest: str) -> None:
        missed = self.conversation.switch(rest)
        if missed:
            self.say(missed, "yellow")

    def clear(self, _rest: str) -> None:
        self.conversation.clear()

    def help(self, _rest: str) -> None:
        self.say(COMMANDS.format(methods=", ".join(self.conversation.fitted.names)))

    def why(self, _rest: str) -> None:
        answer = self.conversation.last
        if answer is None:
            self.say("no question has been answered yet")
            return
        if not answer.lookups:
            self.say(
                f"{self.conversation.name} looked nothing up: the answer comes from its weights and the prompt"
            )
        clauses = self.conversation.clauses
        shown: set[tuple[tuple[str, float], ...]] = set()
        for lookup in answer.lookups:
            self.say(f"{verb(answer)} {name_of(lookup.memory_id)}, score {lookup.score:.3f}", "bold")
            clause = clauses.get(lookup.memory_id)
            if clause is not None:
                self.say(f"  clause:  {one_line(clause.text)}")
            if clause is None or lookup.text.strip() != clause.text.strip():
                self.say(f"  it read: {one_line(lookup.text)}")
            if lookup.candidates in shown:
                continue
            shown.add(lookup.candidates)
            self.say("  candidates:")
            for rank, (memory_id, score) in enumerate(lookup.candidates, start=1):
                text = one_line(clauses[memory_id].text, 70) if memory_id in clauses else ""
                self.say(f"  {rank:>4}. {score:6.3f}  {name_of(memory_id)}  {text}".rstrip(), "dim")


def name_of(memory_id: str) -> str:
    return one_line(memory_id) or "(no clause)"


def alternatives(answer: Answer, lookup: Lookup) -> list[tuple[str, float]]:
    """Candidates of a lookup that the answer used nowhere, best first."""
    used = {other.memory_id for other in answer.lookups}
    return [(memory_id, score) for memory_id, score in lookup.candidates if memory_id not in used]


def spent(answer: Answer) -> str:
    """Token counts and times of an answer, as a phrase."""
    usage = answer.usage
    parts = [f"{usage.prompt_tokens} prompt + {usage.new_tokens} new tokens", f"first token {usage.ttft_s:.2f} s"]
    if usage.ttfa_s:
        parts.append(f"answer from {usage.ttfa_s:.2f} s")
    parts.append(f"total {usage.total_s:.2f} s")
    if usage.truncated_turns:
        parts.append(f"{usage.truncated_turns} earlier messages cut to fit the context window")
    return ", ".join(parts)


def _printable(piece: str) -> str:
    """A streamed piece with its spaces and lines kept and nothing in it that a terminal would act on."""
    return "".join(c if c in " \n" else " " if c.isspace() else visible(c) for c in piece)


def help_text() -> str:
    """What can be said, with the runs that can be talked to."""
    from eval.arms import NAMES
    from methods.backbone import PACKAGED_LM
    from pipelines.report import saved_runs
    from tasks.registry import TASKS

    lines = [f"  {name}  {', '.join(_fits(folder))}" for name, folder in saved_runs(Path("runs")).items()]
    return HELP.format(
        methods=", ".join(NAMES),
        runs="\n".join(["Runs in runs/ and their fits:", *lines, ""]) if lines else "No run lies in runs/ yet.",
        tasks=", ".join(sorted(TASKS)),
        presets=", ".join(sorted(file.stem for file in (CONF / "preset").glob("*.yaml"))),
        packaged=PACKAGED_LM,
    )


def _fits(folder: Path) -> list[str]:
    from pipelines.saved_fits import saved_fits

    return sorted({name for _seed, name in saved_fits(folder)}) or ["no fit"]


def start(options: Options) -> None:
    """Loads the run, then talks in the terminal or serves the page."""
    if not 0 <= options.port <= 65535:
        raise MethodError(
            f"port={options.port}: is not a port; choose one from 1024 to 65535, or 0 for any that is free"
        )
    from pipelines.fitted_run import Conversation, FittedRun
    from pipelines.progress import quiet_libraries
    from pipelines.report import find_run

    quiet_libraries()
    folder = find_run(options.run, Path(options.runs_dir))
    fitted = FittedRun(folder, None if options.seed < 0 else options.seed, options.device)
    if options.web:
        from pipelines.web import MOST_COLUMNS, serve

        serve(fitted, options.method.split(",") if options.method else fitted.names[:MOST_COLUMNS], options.port)
        return
    name = options.method or fitted.names[0]
    fitted.check(name)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # LANG=C: better a question mark than a traceback
    if sys.stdin.isatty():
        import readline  # noqa: F401  (line editing and history for `input`)

        read: Callable[[str], str] = input
    else:
        read = _next_line
    Terminal(Conversation(fitted, name), sys.stdout, read).loop()


def _next_line(_prompt: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def main() -> None:
    """The command."""
    main_with(Options, help_text, run_and_leave)


def run_and_leave(options: Options) -> None:
    """Ctrl-C while the run is loaded, or while the page is served, ends the program quietly."""
    try:
        start(options)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
