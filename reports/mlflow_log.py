"""A finished comparison in MLflow: the only file that imports it (import this one lazily, it takes 2 s).

One parent run a comparison, one child run a method. The results lie in the run folder before any of
this starts, so a tracking server that is down costs a sentence, never a run.
"""

from __future__ import annotations

import contextlib
import getpass
import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

# Set before the import, which reads them. What the user has set wins.
for _name, _value in {
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # no lines about database migrations
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing leaves the machine
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ASYNC_TRACE_LOGGING_MAX_WORKERS": "1",  # ten of them wait for each other before an SQLite file
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # reports/terminal.py gives the address
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a dead server is reported in seconds, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",  # no complaint where git is not installed
}.items():
    os.environ.setdefault(_name, _value)

import mlflow  # noqa: E402
import pandas as pd  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.data.code_dataset_source import CodeDatasetSource  # noqa: E402
from mlflow.data.pandas_dataset import PandasDataset  # noqa: E402
from mlflow.entities import Dataset, DatasetInput, InputTag, LiveSpan, Metric, Param, RunTag  # noqa: E402

from eval import retention  # noqa: E402
from eval.records import TurnRecord  # noqa: E402
from methods.base import FitReport, Lookup  # noqa: E402
from reports import tables  # noqa: E402
from reports.base import (  # noqa: E402
    Comparison,
    LoggedRun,
    ReportError,
    default_store,
    estimate,
    flatten,
    shown_settings,
    verdicts,
)
from reports.markdown import verdicts_markdown  # noqa: E402
from reports.metric_names import ROWS  # noqa: E402
from reports.text import redact  # noqa: E402
from tasks.files import locked  # noqa: E402

HEADLINE = (
    "retention/first_ask_cued",
    "retention/first_ask_uncued",
    "structure/correct_and_well_formed",
    "cost/latency_p50_s",
)
ARTIFACTS = (  # of a comparison, or of an ablation, where they were written
    *("report.html", "report.md", "summary.json", "config.yaml", "environment.json"),
    *("ablation.md", "ablation.csv", "ablation.json"),
)
MAX_TRACES = 1000  # over all methods; the run folder holds every dialogue
MAX_CURVE_POINTS = 500  # of one loss curve; the fit's own checkpoint holds every step
_METRICS_A_CALL, _OTHERS_A_CALL = 1000, 100  # MLflow's limits for one log_batch
_PARAM_LENGTH, _TAG_LENGTH, _KEY_LENGTH, _DIGEST_LENGTH = 6000, 8000, 250, 36
_CELL_LENGTH = 4000  # characters of one text in the table of turns
_RUN = "run"  # tag: what a run is found again by
_UNTIMED_NS = 1_000  # keeps the spans in order; reads as no time at all
# MLflow opens an experiment that holds traces on their latencies, whatever its kind: this says where to go.
_ABOUT = (
    "**Model training** (top left) > Runs: a run is a comparison, its `+` opens the methods. Begin with its "
    "description and `report.html`. Traces: a dialogue each, answered in batches, so without durations."
)


def log_comparison(
    comparison: Comparison,
    *,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    max_traces: int = MAX_TRACES,
    once: bool = False,
) -> LoggedRun:
    """Logs one finished comparison; write_report first, so that report.md and the figures go along.

    tracking_uri: MLFLOW_TRACKING_URI or, without it, `mlflow.db` in the current folder. experiment:
    "recallbench-<task>" by default, so that runs that can be compared stand together. once: where an earlier
    attempt logged this run whole that is returned, and what one that was cut left behind is deleted.
    Raises ReportError where MLflow does not take the run; the run folder is then untouched.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_store(Path.cwd())
    name = experiment or f"recallbench-{comparison.summary.get('task') or 'unnamed'}"
    opened: list[str] = []
    try:
        with _tracking(uri), _alone(uri):
            client = MlflowClient(tracking_uri=uri)
            experiment_id = _experiment(client, uri, name)
            try:
                before = _logged_before(client, comparison, uri, experiment_id) if once else None
                return before or _log(client, comparison, uri, experiment_id, opened, max_traces)
            except Exception:
                for run_id in opened:
                    with contextlib.suppress(Exception):
                        client.set_terminated(run_id, "FAILED")
                raise
    except Exception as error:
        cause = str(error).strip().partition("\n")[0][:300].replace(uri, redact(uri))
        raise ReportError(
            f"MLflow at {redact(uri)} did not take the run ({type(error).__name__}: {cause}); the results "
            f"are safe in {comparison.run_dir}; start the server or set MLFLOW_TRACKING_URI, then log it "
            "with: python -m pipelines.report --log"
        ) from error


@contextlib.contextmanager
def _tracking(uri: str) -> Iterator[None]:
    """Points MLflow's traces at `uri`, then puts the environment back, which set_tracking_uri writes."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """One process at a time at an SQLite file: it locks for a moment only, and then refuses."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    with locked(Path(uri.removeprefix("sqlite:///") + ".lock")):
        yield


def _tag_of(comparison: Comparison) -> str:
    """The name of the run's folder; of a run that goes on slice by slice, how far it has come as well."""
    plan = comparison.summary.get("decided")
    return comparison.run_dir.name + (f" {plan['slices']}" if plan else "")


def _logged_before(client: MlflowClient, comparison: Comparison, uri: str, experiment_id: str) -> LoggedRun | None:
    """This run where an earlier attempt logged it whole; what one that was cut left is deleted."""
    mine = f"tags.`{_RUN}` = '{_tag_of(comparison)}'"
    found = list(client.search_runs([experiment_id], filter_string=mine))
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    whole = next((run.info.run_id for run in parents if run.info.status == "FINISHED"), None)
    if whole is not None:
        children = {
            run.data.tags["method"]: run.info.run_id
            for run in found
            if run.data.tags.get("mlflow.parentRunId") == whole
        }
        return LoggedRun(uri, experiment_id, whole, children, _num_traces(client, experiment_id, children))
    for run in found:
        traces = client.search_traces(
            locations=[experiment_id], run_id=run.info.run_id, include_spans=False, max_results=MAX_TRACES
        )
        for start in range(0, len(traces), _OTHERS_A_CALL):
            ids = [trace.info.trace_id for trace in traces[start : start + _OTHERS_A_CALL]]
            client.delete_traces(experiment_id, trace_ids=ids)
        client.delete_run(run.info.run_id)
    return None


def _experiment(client: MlflowClient, uri: str, name: str) -> str:
    """The id of the experiment, made where it is new; artifacts lie beside an SQLite file."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    location = None
    if uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).absolute().parent
        location = (folder / "mlruns" / re.sub(r"[^\w.-]", "_", name)).as_uri()
    tags = {"mlflow.note.content": _ABOUT}
    return str(client.create_experiment(name, artifact_location=location, tags=tags))


# ------------------------------------------------------------------------------------------ runs


def _log(
    client: MlflowClient,
    comparison: Comparison,
    uri: str,
    experiment_id: str,
    opened: list[str],
    max_traces: int,
) -> LoggedRun:
    """Parent, children, traces. Every run begun is noted in `opened`, so that a failure can close it."""
    common = _common_tags(comparison)
    started = _now_ms() - int(1000 * (comparison.summary.get("wall_s") or 0))
    preset = comparison.summary.get("preset") or ""

    def begin(name: str, tags: Mapping[str, str]) -> str:
        run = client.create_run(experiment_id, start_time=started, run_name=name, tags=_tags(tags))
        opened.append(run.info.run_id)
        return str(run.info.run_id)

    data = _datasets(comparison)
    parent = begin(f"{preset} {comparison.run_dir.name}".strip() or "comparison", common)
    _log_parent(client, parent, comparison)
    children = {}
    for name in comparison.methods:
        children[name] = begin(name, {**common, "method": name, "mlflow.parentRunId": parent})
        _log_method(client, children[name], comparison, name)
    for run_id in opened if data else ():
        client.log_inputs(run_id, data)
    num_traces = log_traces(comparison, experiment_id, children, max_traces)
    _check_traces(client, experiment_id, children, num_traces)
    for run_id in reversed(opened):  # the parent last: it stands for all
        client.set_terminated(run_id)
    return LoggedRun(uri, experiment_id, parent, children, num_traces)


def _log_parent(client: MlflowClient, run_id: str, comparison: Comparison) -> None:
    summary = comparison.summary
    table = tables.to_markdown(tables.comparison(summary))
    whole = "report.md" if (comparison.run_dir / "report.md").is_file() else "ablation.md"
    note = f"{verdicts_markdown(summary)}\n\n{table}\n\nThe whole report: artifact `{whole}`."
    params = {
        **shown_settings(comparison.config),
        **{k: v for k, v in flatten(comparison.environment).items() if "." in k},
    }
    metrics = _headline_metrics(comparison)
    if summary.get("wall_s") is not None:
        metrics.append(Metric("wall_s", float(summary["wall_s"]), _now_ms(), 0))
    batch(client, run_id, metrics, params, {"mlflow.note.content": note})
    frame = tables.metrics_frame(summary)
    client.log_table(run_id, frame.astype({"n": float}), "metrics.json")
    for name in ARTIFACTS:
        if (comparison.run_dir / name).is_file():
            client.log_artifact(run_id, str(comparison.run_dir / name))
    for name in ("figures", "tables"):
        if (comparison.run_dir / name).is_dir():
            client.log_artifacts(run_id, str(comparison.run_dir / name), name)


def _log_method(client: MlflowClient, run_id: str, comparison: Comparison, name: str) -> None:
    turns = [turn for turn in comparison.turns if turn.method == name]
    metrics = [
        *_summary_metrics(comparison, name),
        *_step_metrics(comparison, name, turns),
        *_fit_metrics(comparison.fits.get(name, ())),
    ]
    own = comparison.config.get("methods")
    own = own.get(name) if isinstance(own, Mapping) else None
    params = flatten(own) if isinstance(own, Mapping) else {}
    for key in ("task", "preset", "seed"):
        if comparison.summary.get(key) is not None:
            params.setdefault(key, str(comparison.summary[key]))
    batch(client, run_id, metrics, params, {})
    if turns:
        client.log_table(run_id, turns_frame(turns), "turns.json")


def _common_tags(comparison: Comparison) -> dict[str, str]:
    """What one filters runs by: the same on the parent and on every child."""
    summary, environment = comparison.summary, comparison.environment
    tags = {key: value for key, value in flatten(environment).items() if "." not in key}
    tags |= {key: str(summary[key]) for key in ("task", "preset", "seed") if summary.get(key) is not None}
    tags |= {verdict.key: verdict.outcome for verdict in verdicts(summary)}
    run_dir = f"{comparison.run_dir.parent.name}/{comparison.run_dir.name}"
    tags |= {"run_dir": run_dir, "mlflow.source.name": "pipelines.compare"}
    tags |= {"mlflow.source.type": "LOCAL", _RUN: _tag_of(comparison)}
    if comparison.data is not None:
        tags["data_version"] = comparison.data.version
    if environment.get("git_sha"):
        tags["mlflow.source.git.commit"] = str(environment["git_sha"])
    with contextlib.suppress(Exception):  # a container without a user name
        tags["mlflow.user"] = getpass.getuser()
    return {**tags, **comparison.tags}


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {metric_name(key): storable(value, _TAG_LENGTH) for key, value in tags.items()}


def _datasets(comparison: Comparison) -> list[DatasetInput]:
    """What was learnt (the clauses; their digest is the data version) and what was asked (the dialogues)."""
    data = comparison.data
    if data is None:
        return []
    clauses = _texts(
        ((m.id, m.title, m.text, m.family, m.cued) for m in data.memories),
        ["id", "title", "text", "family", "cued"],
    )
    asked = {
        (turn.seed, turn.dialogue_id, turn.turn): turn for turn in comparison.turns
    }  # of all methods the same
    questions = _texts(
        ((*place, turn.kind, turn.question, turn.qa.answer if turn.qa else "") for place, turn in asked.items()),
        ["seed", "dialogue", "turn", "kind", "question", "key"],
    )
    source = CodeDatasetSource({"mlflow.source.type": "LOCAL", "mlflow.source.name": data.source or data.name})
    inputs = []
    for frame, name, digest, context in (
        (clauses, data.name, data.version[:_DIGEST_LENGTH] or None, "training"),
        (questions, f"{data.name} dialogues", None, "evaluation"),
    ):
        if len(frame):
            entity = PandasDataset(frame, source, name=name, digest=digest)._to_mlflow_entity()
            assert isinstance(entity, Dataset)
            inputs.append(DatasetInput(entity, [InputTag("mlflow.data.context", context)]))
    return inputs


def _texts(rows: Iterable[tuple[object, ...]], columns: list[str]) -> pd.DataFrame:
    """Everything as text that MLflow can write: whole numbers would have it warn about missing ones."""
    cells = [[storable(str(value), _CELL_LENGTH) for value in row] for row in rows]
    return pd.DataFrame(cells, columns=columns, dtype=object)


# --------------------------------------------------------------------------------------- metrics


def _now_ms() -> int:
    return int(time.time() * 1000)


def _summary_metrics(comparison: Comparison, name: str) -> list[Metric]:
    """Every value under its own key; of the headline rows also n and the ends of the interval.

    Those stand last and under uncertainty/, since MLflow draws a chart for each; summary.json has all.
    """
    now, values, intervals = _now_ms(), [], []
    headline = {row.key for row in ROWS if row.level == "headline"}
    for key in comparison.summary["methods"][name]:
        cell = estimate(comparison.summary, name, key)
        if cell.value is None:
            continue
        values.append(Metric(metric_name(key), cell.value, now, 0))
        ends = {"low": cell.low, "high": cell.high, "n": cell.n or None} if key in headline else {}
        for end, value in ends.items():
            if value is not None:
                intervals.append(Metric(metric_name(f"uncertainty/{key}.{end}"), float(value), now, 0))
    return values + intervals


def _headline_metrics(comparison: Comparison) -> list[Metric]:
    """The few figures that the parent run carries, so that a list of comparisons can be read unopened."""
    now, metrics = _now_ms(), []
    for key in HEADLINE:
        for name in comparison.methods:
            value = estimate(comparison.summary, name, key).value
            if value is not None:
                metrics.append(Metric(metric_name(f"headline/{key.split('/')[-1]}.{name}"), value, now, 0))
    return metrics


def _step_metrics(comparison: Comparison, name: str, turns: Sequence[TurnRecord]) -> list[Metric]:
    """Curves: each kind's accuracy, tokens and lookups by turn, accuracy by distance, seconds of each timing."""
    now, metrics = _now_ms(), []
    for kind, curve in retention.by_turn(turns).items():
        for index, drawn in curve.items():
            if drawn.mean is not None:
                metrics.append(Metric(f"by_turn/{kind}", drawn.mean, now, index))
                metrics.append(Metric(f"by_turn/{kind}_n", float(len(drawn)), now, index))
    for index in sorted({turn.turn for turn in turns}):
        answers = [turn.answer for turn in turns if turn.turn == index]
        means = {
            "prompt_tokens": sum(answer.usage.prompt_tokens for answer in answers) / len(answers),
            "new_tokens": sum(answer.usage.new_tokens for answer in answers) / len(answers),
            "looked_up": sum(bool(answer.lookups) for answer in answers) / len(answers),
        }
        metrics += [Metric(f"by_turn/{key}", value, now, index) for key, value in means.items()]
    for asked, d, row in tables.distances(comparison.summary):
        value = estimate(comparison.summary, name, row.key).value
        if value is not None:
            key = f"by_distance/{asked or 'first_ask'}"
            metrics.append(Metric(key, value, now, d))
    timed = [cost for cost in comparison.costs if cost.method == name]
    metrics += [Metric("by_timing/total_s", cost.usage.total_s, now, i) for i, cost in enumerate(timed)]
    return metrics


def _fit_metrics(fit: FitReport | Sequence[FitReport]) -> list[Metric]:
    """Loss curves as steps, stage seconds and self-tests as single values; of several seeds each its own."""
    fits = [fit] if isinstance(fit, FitReport) else fit
    now, metrics = _now_ms(), []
    for number, report in enumerate(fits):
        end = f"/{number}" if len(fits) > 1 else ""
        metrics += [Metric(metric_name(f"fit/{k}{end}"), float(v), now, 0) for k, v in report.notes.items()]
        for stage, losses in report.curves.items():
            key = metric_name(f"fit/loss/{stage}{end}")
            metrics += [Metric(key, float(losses[i]), now, i) for i in thin(len(losses), MAX_CURVE_POINTS)]
    return [metric for metric in metrics if math.isfinite(metric.value)]


def thin(size: int, limit: int) -> list[int]:
    """At most `limit` indices spread over range(size), the first and the last among them."""
    if size <= limit:
        return list(range(size))
    return sorted({round(i * (size - 1) / max(limit - 1, 1)) for i in range(limit)})


def metric_name(key: str) -> str:
    """A key as MLflow takes it: `@` reads _at_, anything else it forbids an underscore."""
    name = re.sub(r"[^\w\-. :/]", "_", key.replace("@", "_at_"))
    name = re.sub(r"/{2,}", "/", name).strip("/. ") or "_"
    return name[:_KEY_LENGTH]


def storable(text: str, limit: int) -> str:
    """Text that any store takes: no NUL (PostgreSQL), no lone surrogates (UTF-8), not over `limit`."""
    text = str(text).replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def batch(
    client: MlflowClient,
    run_id: str,
    metrics: Sequence[Metric],
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> None:
    """log_batch in as few calls as MLflow's limits allow."""
    all_params = [Param(k, storable(v, _PARAM_LENGTH)) for k, v in _unique(params).items()]
    all_tags = [RunTag(k, v) for k, v in _tags(tags).items()]
    client.log_batch(run_id, tags=all_tags)
    for start in range(0, len(all_params), _OTHERS_A_CALL):
        client.log_batch(run_id, params=all_params[start : start + _OTHERS_A_CALL])
    for start in range(0, len(metrics), _METRICS_A_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_A_CALL])


def _unique(params: Mapping[str, str]) -> dict[str, str]:
    """Two keys that MLflow's alphabet makes one are both kept: a parameter cannot be changed."""
    named: dict[str, str] = {}
    for key, value in params.items():
        name, number = metric_name(key), 2
        while name in named:
            name, number = f"{metric_name(key)[: _KEY_LENGTH - 4]}_{number}", number + 1
        named[name] = value
    return named


# -------------------------------------------------------------------------------- turns and traces


def turns_frame(turns: Iterable[TurnRecord]) -> pd.DataFrame:
    """One generated turn a row: what was asked, what was right, what came back and what was looked up."""
    rows = [
        {
            "question": storable(turn.question, _CELL_LENGTH),
            "answer": storable(turn.answer.final, _CELL_LENGTH),
            "key": storable(turn.qa.answer, _CELL_LENGTH) if turn.qa else None,
            "correct": retention.correct(turn),
            "kind": turn.kind,
            "distance": turn.distance,
            "cued": turn.cued,
            "looked_up": ", ".join(lookup.memory_id or "(null)" for lookup in turn.answer.lookups),
            "dialogue": turn.dialogue_id,
            "turn": turn.turn,
            "seed": turn.seed,
            "raw": storable(turn.answer.raw, _CELL_LENGTH),
        }
        for turn in turns
    ]
    frame = pd.DataFrame(rows).astype(object)
    return frame.where(frame.notna(), None)


def log_traces(comparison: Comparison, experiment_id: str, run_ids: Mapping[str, str], max_traces: int) -> int:
    """One trace a dialogue and method; the number of them.

    The same dialogues for every method, spread over all; a dialogue is a session, so that the methods'
    answers to it stand together.
    """
    dialogues: dict[tuple[int, str], dict[str, list[TurnRecord]]] = defaultdict(lambda: defaultdict(list))
    for turn in comparison.turns:
        dialogues[turn.seed, turn.dialogue_id][turn.method].append(turn)
    keys = list(dialogues)
    logged = 0
    for index in thin(len(keys), max(max_traces // max(len(run_ids), 1), 1)) if max_traces else ():
        for method, turns in dialogues[keys[index]].items():
            if method in run_ids:
                session = f"{comparison.run_dir.name}: {turns[0].dialogue_id}, seed {turns[0].seed}"
                _log_trace(turns, experiment_id, run_ids[method], session)
                logged += 1
    mlflow.flush_trace_async_logging()
    return logged


def _check_traces(client: MlflowClient, experiment_id: str, run_ids: Mapping[str, str], expected: int) -> None:
    """MLflow drops a trace that it cannot store with no more than a log line; here that is an error."""
    found = _num_traces(client, experiment_id, run_ids)
    if found < min(expected, 500):
        raise RuntimeError(f"only {found} of {expected} traces were stored")


def _num_traces(client: MlflowClient, experiment_id: str, run_ids: Mapping[str, str]) -> int:
    """Traces of these runs, up to 500 each."""
    return sum(
        len(client.search_traces(locations=[experiment_id], run_id=run_id, include_spans=False, max_results=500))
        for run_id in run_ids.values()
    )


def _log_trace(turns: Sequence[TurnRecord], experiment_id: str, run_id: str, session: str) -> None:
    """A root span for the dialogue, a span a turn, a span a look-up.

    The retention pass runs in batches, where one answer has no time of its own: its spans are a
    microsecond long, and say so.
    """
    turns = sorted(turns, key=lambda turn: turn.turn)
    first = turns[0]
    marks = [mark for mark in map(retention.correct, turns) if mark is not None]
    clock = time.time_ns()
    root = mlflow.start_span_no_context(
        f"{first.method}: {first.dialogue_id}",
        span_type="AGENT",
        inputs={"questions": [storable(turn.question, _CELL_LENGTH) for turn in turns]},
        attributes={
            "seed": str(first.seed),
            "times": "measured" if any(turn.answer.usage.total_s for turn in turns) else "none: a batched pass",
        },
        tags=_tags(
            {
                "method": first.method,
                "right": f"{sum(marks)} of {len(marks)}",
                "dialogue": first.dialogue_id,
                "clause": next(
                    (turn.qa.memory_ids[0] for turn in turns if turn.qa and turn.qa.memory_ids), first.cluster
                ),
            }
        ),
        metadata={"mlflow.sourceRun": run_id, "mlflow.trace.session": session},
        experiment_id=experiment_id,
        start_time_ns=clock,
    )
    for turn in turns:
        clock = _log_turn(turn, root, clock)
    answers = [f"{_mark(turn)} {_shown(turn)}".strip() for turn in turns]
    root.end(outputs={"answers": answers}, end_time_ns=clock)


def _mark(turn: TurnRecord) -> str:
    return _sign(retention.correct(turn))


def _sign(right: bool | None) -> str:
    return {True: "✓", False: "✗", None: ""}[right]


def _shown(turn: TurnRecord) -> str:
    return storable(turn.answer.final or f"(no answer) {turn.answer.raw}", _CELL_LENGTH)


def _log_turn(turn: TurnRecord, root: LiveSpan, start_ns: int) -> int:
    """One turn's span with its look-ups; returns where it ends."""
    answer, usage = turn.answer, turn.answer.usage
    end_ns = start_ns + max(int(usage.total_s * 1e9), _UNTIMED_NS)
    span = mlflow.start_span_no_context(
        f"turn {turn.turn}: {turn.kind.replace('_', ' ')} {_mark(turn)}".rstrip(),
        span_type="LLM",
        parent_span=root,
        inputs={"question": storable(turn.question, _CELL_LENGTH)},
        start_time_ns=start_ns,
    )
    span.set_attributes(
        {
            "kind": turn.kind,
            "distance": turn.distance,
            "correct": retention.correct(turn),
            "key": storable(turn.qa.answer, _CELL_LENGTH) if turn.qa else None,
            "finished": answer.finished,
            "mlflow.chat.tokenUsage": {
                "input_tokens": usage.prompt_tokens,
                "output_tokens": usage.new_tokens,
                "total_tokens": usage.prompt_tokens + usage.new_tokens,
            },
        }
    )
    for lookup in answer.lookups:
        _log_lookup(lookup, turn, span, start_ns, answer.memory_path)
    outputs = {"answer": storable(answer.final, _CELL_LENGTH), "raw": storable(answer.raw, _CELL_LENGTH)}
    span.end(outputs=outputs, end_time_ns=end_ns)
    return end_ns


def _log_lookup(lookup: Lookup, turn: TurnRecord, parent: LiveSpan, start_ns: int, verb: str) -> None:
    """A recalled or retrieved text, in the shape in which MLflow draws retrieved documents.

    Its attributes say what else stood to choose from, with scores, and whether it is the right clause.
    """
    gold = turn.qa.memory_ids if turn.qa else ()
    right = lookup.memory_id in gold if gold else None
    span = mlflow.start_span_no_context(
        f"{verb} {_named(lookup.memory_id)} {lookup.score:.2f} {_sign(right)}".rstrip(),
        span_type="RETRIEVER",
        parent_span=parent,
        inputs={"question": storable(turn.question, _CELL_LENGTH)},
        start_time_ns=start_ns,
    )
    span.set_attributes(
        {
            "chosen": _named(lookup.memory_id),
            "score": lookup.score,
            "right_clause": right,
            "right_clauses": list(gold),
            "candidates": [
                {"rank": rank, "memory": _named(memory_id), "score": round(score, 4)}
                for rank, (memory_id, score) in enumerate(lookup.candidates, start=1)
            ],
        }
    )
    document = {
        "page_content": storable(lookup.text, _CELL_LENGTH),
        "metadata": {"doc_uri": storable(lookup.memory_id, _KEY_LENGTH), "score": lookup.score},
        "id": storable(lookup.memory_id, _KEY_LENGTH),
    }
    span.end(outputs=[document], end_time_ns=start_ns + _UNTIMED_NS)


def _named(memory_id: str) -> str:
    return storable(memory_id, _KEY_LENGTH) or "(null memory)"
