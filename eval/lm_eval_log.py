"""lm-eval's sample logs (`lm_eval --log_samples`, files `samples_<task>_<date>.jsonl`) as samples of this package.

A line is a document under one filter: `doc_id`, `doc_hash`, the names in `metrics`, and a value for each of them.
Each document is a cluster of its own: the logs do not say which belong together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from eval.records import RecordError
from eval.stats import Sample

T = TypeVar("T")
_DATE = re.compile(r"_\d{4}-\d{2}-\d{2}T[\d.-]+$")
_NOT_METRICS = ("doc_id",)  # numbers in a line of older versions, which do not name their metrics


@dataclass
class SampleLog:
    """One task's log, by document."""

    task: str
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # "metric, filter" -> document -> value
    hashes: dict[str, str] = field(default_factory=dict)  # document -> its hash; "" in older logs
    targets: dict[str, str] = field(default_factory=dict)  # document -> hash of its target
    decoding: dict[str, str] = field(default_factory=dict)  # document -> settings of its generation, as JSON

    def sample(self, metric: str) -> Sample:
        """One value a document."""
        values = self.metrics[metric]
        items = tuple(values)
        return Sample(np.array(list(values.values()), dtype=np.float64), items, (0,) * len(items), items)


def is_log(path: Path) -> bool:
    """Whether it is a sample log, or a folder that holds some."""
    return bool(log_files(path))


def log_files(path: Path) -> list[Path]:
    """The sample logs of a file or folder; of a task's several the newest."""
    if path.is_file() and path.suffix == ".jsonl" and path.name.startswith("samples_"):
        return [path]
    newest = {task_of(file): file for file in sorted(path.glob("samples_*.jsonl"))}  # dates sort as text
    return list(newest.values())


def task_of(file: Path) -> str:
    """`samples_gsm8k_2026-01-31T12-00-00.123456.jsonl` -> `gsm8k`."""
    return _DATE.sub("", file.stem.removeprefix("samples_"))


def read_log(file: Path) -> SampleLog:
    """Raises RecordError naming file and line of what is no sample, or comes twice."""
    log = SampleLog(task_of(file))
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        where = f"{file}:{number}"
        try:
            body = json.loads(line)
        except ValueError as error:
            raise RecordError(f"{where}: not a whole JSON line; the log was cut, run lm_eval again") from error
        if not isinstance(body, dict) or "doc_id" not in body:
            raise RecordError(
                f"{where}: no lm-eval sample (doc_id is missing); name a file of lm_eval --log_samples"
            )
        _add(log, body, where)
    if not log.metrics:
        raise RecordError(
            f"{file}: no sample has a metric that is one number; run lm_eval with --log_samples again"
        )
    return _by_hash(log)


def _by_hash(log: SampleLog) -> SampleLog:
    """The log with documents named by what they hold, where it tells: numbers change with the data's order."""
    names = log.hashes
    if "" in names.values() or len(set(names.values())) < len(names):
        return log

    def renamed(values: dict[str, T]) -> dict[str, T]:
        return {names[document]: value for document, value in values.items()}

    metrics = {metric: renamed(values) for metric, values in log.metrics.items()}
    return SampleLog(log.task, metrics, renamed(names), renamed(log.targets), renamed(log.decoding))


def _add(log: SampleLog, body: Mapping[str, Any], where: str) -> None:
    document = str(body["doc_id"])
    log.hashes[document] = str(body.get("doc_hash", ""))
    log.targets[document] = str(body.get("target_hash", ""))
    log.decoding[document] = _decoding(body.get("arguments"))
    named = body.get("metrics") or [key for key in body if key not in _NOT_METRICS]
    for metric in named:
        value = body.get(metric)
        if not isinstance(value, int | float):  # parts of a corpus figure, such as perplexity's
            continue
        filtered = body.get("filter", "none")
        name = metric if filtered == "none" else f"{metric}, {filtered}"
        found = log.metrics.setdefault(name, {})
        if document in found:
            raise RecordError(f"{where}: document {document} comes twice for {name}; keep one run's lines")
        found[document] = float(value)


def _decoding(arguments: Any) -> str:
    """The generation settings among a request's arguments, `{"gen_args_0": {"arg_0": prompt, "arg_1": {...}}}`."""
    requests = arguments.values() if isinstance(arguments, dict) else arguments or ()
    settings = [
        part
        for request in requests
        for part in (request.values() if isinstance(request, dict) else request)
        if isinstance(part, dict)
    ]
    return json.dumps(settings[0], sort_keys=True) if settings else ""
