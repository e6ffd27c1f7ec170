"""A run's fitted methods, loaded again to be talked to. The run's own files are never changed."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from eval.arms import NAMES, borrows_from
from methods.answering import stream_answer
from methods.backbone import Backbone, resolve_device
from methods.base import Answer, Context, Method, MethodError, RefitNeeded, WriteReport
from methods.chat import encode_text
from methods.parts import Part
from methods.template import whole_characters
from pipelines.config import Resolved, saved_config
from pipelines.making import load_of_run, make_method
from pipelines.progress import Display
from pipelines.run import read_json
from pipelines.saved_fits import restore, saved_fits
from tasks.base import Memory, Message, TaskError

ROOM_TOKENS = 64  # kept for the chat template beside a question


class FittedRun:
    """The methods of one run and one seed, or an ablation's rows, each under its own settings.

    Each is loaded at its first use, onto weights of its own.
    """

    def __init__(self, folder: Path, seed: int | None = None, device: str = "") -> None:
        """seed: None for the run's first; device: "" for the run's own. Raises MethodError without a saved fit."""
        self.folder = folder
        if device:
            resolve_device(device)
        raw = read_json(folder / "config.json")
        version = raw.get("data_version", "")
        self._rows: dict[str, dict[str, Any]] = {row["name"]: row for row in raw.get("ablation", ())}
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in self._rows):
            raise MethodError(
                f"{folder / 'config.json'}: the name of a row leads out of the folder; it was edited"
            )
        self._words = [f"device={device}"] if device else []
        self.config = self._configured()
        saved = saved_fits(folder)
        if not saved:
            raise MethodError(
                f"{folder}: no fitted method is saved there (fits/<seed>/<method>/fit.json); make a run with "
                "python -m pipelines.compare and name that one"
            )
        seeds = sorted({seed for seed, _name in saved})
        self.seed = seeds[0] if seed is None else seed
        if self.seed not in seeds:
            raise MethodError(f"seed={seed}: {folder} has fits of seed {', '.join(map(str, seeds))} only")
        known = self._rows or dict.fromkeys([*self.config.run_methods, *NAMES])
        self.names = tuple(name for name in known if (self.seed, self._fit_of(name)) in saved)
        self.task = self.config.task.load(self.seed)
        self.changed = self.seed == self.config.seed and version not in ("", self.task.version)
        self._backbone: Backbone | None = None
        self._methods: dict[str, Method] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="recallbench-", ignore_cleanup_errors=True)

    def _configured(self, overrides: Sequence[str] = ()) -> Resolved:
        try:
            return saved_config(self.folder, [*overrides, *self._words])
        except (TaskError, OmegaConfBaseException) as error:
            raise MethodError(
                f"{self.folder / 'config.json'}: was written by another version ({error}); make the run again"
            ) from error

    def _fit_of(self, name: str) -> str:
        """Whose fit it answers with, where several rows of an ablation share one."""
        return str(self._rows[name]["fit_of"] or name) if name in self._rows else name

    def check(self, name: str) -> None:
        """Raises MethodError naming the choices."""
        if name not in self.names:
            raise MethodError(
                f"method={name}: {self.folder} holds no saved fit of that name for seed {self.seed}; choose "
                f"from: {', '.join(self.names)}"
            )

    def method(self, name: str) -> Method:
        """The method as it was saved; what is written to it later stays in memory and in a scratch folder."""
        self.check(name)
        if name not in self._methods:
            if self._backbone is None:
                self._backbone = load_of_run(self.config, self.folder, self.config.device)
            scratch = Path(self._scratch.name) / name
            scratch.mkdir(parents=True, exist_ok=True)
            row = self._rows.get(name, {})
            config = self._configured(row["overrides"]) if row else self.config
            kind = row.get("method", name)
            method = make_method(config, kind, self.task, self.seed, self._backbone.clone(), Display(), scratch)
            method.name = name
            saved = self.folder / "fits" / str(self.seed) / borrows_from(self._fit_of(name), self.names)
            restore(method, saved)
            self._methods[name] = method
        return self._methods[name]

    @property
    def backbone(self) -> Backbone:
        """As it is without a fit, once a method was loaded."""
        assert self._backbone is not None
        return self._backbone

    def context(self, messages: Sequence[Message]) -> Context:
        """For a method that was loaded. Raises MethodError for a question that the model's window cannot hold."""
        max_new_tokens = self.config.evaluation.max_new_tokens
        room = self.backbone.facts.context_length - max_new_tokens - ROOM_TOKENS
        tokens = len(encode_text(self.backbone.tokenizer, messages[-1].content))
        if tokens > room:
            raise MethodError(f"the question has {tokens} tokens, and {room} fit the model's window; ask in fewer")
        return Context(tuple(messages), max_new_tokens)


class Conversation:
    """Questions and answers with one method at a time; clauses written or forgotten go with it to the next one."""

    def __init__(self, fitted: FittedRun, name: str) -> None:
        self.fitted = fitted
        self.clauses = {memory.id: memory for memory in (*fitted.task.memories, *fitted.task.rest)}
        self.history: list[Message] = []
        self.last: Answer | None = None
        self._edits: list[Memory | str] = []  # a clause to write, or an id to forget
        self._known: dict[str, int] = {}  # method -> edits it has seen
        self.name = name
        self.switch(name)

    @property
    def method(self) -> Method:
        return self.fitted.method(self.name)

    def switch(self, name: str) -> str:
        """Goes on with another method. Returns a sentence where that one cannot learn this chat's changes."""
        method = self.fitted.method(name)
        self.name = name
        missed = self._edits[self._known.get(name, 0) :]
        try:
            for edit in missed:
                _apply(method, edit)
        except RefitNeeded:
            return f"{name} keeps its knowledge in weights: it does not know this chat's changes ({len(missed)})"
        self._known[name] = len(self._edits)
        return ""

    def ask(self, question: str, on_parts: Callable[[Sequence[Part]], None]) -> Answer:
        """Adds the question and its final answer to the history; an answer that was cut short leaves neither."""
        asked = [*self.history, Message("user", question)]
        ctx = self.fitted.context(asked)
        self.last = stream_answer(self.method, ctx, self.fitted.backbone, on_parts)
        self.history = [*asked, Message("assistant", self.last.final)]
        return self.last

    def clear(self) -> None:
        """Forgets what was said; changed clauses stay changed."""
        self.history, self.last = [], None

    def write(self, title: str, text: str) -> str:
        """Adds a clause, or replaces the one that has this id or title. Returns what was done, as a sentence."""
        title, text = whole_characters(title), whole_characters(text)
        found = [m for m in self.clauses.values() if title == m.id] or [
            m for m in self.clauses.values() if title.casefold() == m.title.casefold()
        ]
        if len(found) > 1:
            ids = ", ".join(memory.id for memory in found)
            raise MethodError(f"{len(found)} clauses have the title {title!r}: write to one of the ids: {ids}")
        new = Memory(_slug(title, self.clauses), text, title)
        memory = replace(found[0], text=text, cues=()) if found else new
        report = self._change(memory)
        assert report is not None
        self.clauses[memory.id] = memory
        trained = f", {report.trained_tokens} tokens of training" if report.trained_tokens else ""
        told = f"{'replaced' if found else 'wrote'} {memory.id} in {report.seconds:.2f} s{trained}"
        if memory.id in report.exact:
            return f"{told}; its text comes back word for word"
        if memory.id in report.inexact:
            return f"{told}; its text does not come back word for word: write it in shorter clauses"
        return told

    def forget(self, memory_id: str) -> str:
        """Removes a clause. Raises MethodError with the nearest ids for one that is not there."""
        if memory_id not in self.clauses:
            nearest = ", ".join(get_close_matches(memory_id, self.clauses, n=3, cutoff=0.0))
            raise MethodError(f"no clause has the id {memory_id!r}; the nearest are: {nearest or 'none'}")
        self._change(memory_id)
        del self.clauses[memory_id]
        return f"forgot {memory_id}"

    def _change(self, edit: Memory | str) -> WriteReport | None:
        report = _apply(self.method, edit)
        self._edits.append(edit)
        self._known[self.name] = len(self._edits)
        return report


def _apply(method: Method, edit: Memory | str) -> WriteReport | None:
    if isinstance(edit, Memory):
        return method.write([edit])
    method.forget([edit])
    return None


def _slug(title: str, taken: dict[str, Memory]) -> str:
    """An id made from the title that no clause has yet."""
    slug = re.sub(r"[\W_]+", "-", title.casefold()).strip("-") or "clause"
    number = 2
    found = slug
    while found in taken:
        found, number = f"{slug}-{number}", number + 1
    return found
