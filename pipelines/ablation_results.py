"""From an ablation's run folder to its results: the table, and the verdicts that rest on it. Needs no model.

ablation.json   every figure, the verdicts on H5 and H6, the area under the trigger's ROC, what the fits cost
ablation.csv    the table
ablation.md     the table and the verdicts, to read
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eval import ledger
from eval.ability import ability_metrics
from eval.records import RecordError
from eval.stats import Estimate
from eval.summary import by_method, ledger_metrics, retention_metrics, structure_metrics
from eval.verdict import Verdict, judge_ablation
from pipelines.results import SavedRun, read_saved
from pipelines.run import GATE_FILE, read_json, write_json
from reports.base import Comparison
from tasks.files import write_whole

TRIGGERS = "triggers.json"  # measured on the model, kept beside the records
COLUMNS = {
    "hit@1": "ledger/hit_at_1",
    "verbatim": "ledger/verbatim",
    "right, cued": "retention/first_ask_cued",
    "right, uncued": "retention/first_ask_uncued",
    "right, re-asked": "retention/re_ask",
    "right, all": "retention/accuracy",
    "abstained": "abstention/recall",
    "stopped after recall": "structure/stopped_after_recall",
    "false recall": "ledger/false_recall",
    "well-formed": "structure/well_formed",
    "ordinary chain kept": "structure/chain_kept",
}

ABILITY = {"ability before": "ability/before", "ability after": "ability/after"}  # where it was measured


@dataclass(frozen=True)
class Ablation:
    """A finished ablation, computed from its records."""

    saved: SavedRun
    rows: Sequence[Mapping[str, Any]]  # name, what, against, fit_of: pipelines.ablation_rows.AblationRow
    metrics: Mapping[str, Mapping[str, Estimate]]  # row -> metric -> estimate
    triggers: Mapping[str, Mapping[str, Any] | None]  # row -> area under the trigger's ROC, first seed
    gate: Mapping[str, float] | None  # None: no row needed it
    verdicts: Mapping[str, Verdict]  # H5 and H6, by key


def is_ablation(folder: Path) -> bool:
    """Is this the folder of an ablation, not of a comparison?"""
    return "ablation" in read_json(folder / "config.json")


def read_ablation(folder: Path) -> Ablation:
    """Raises RecordError naming the file that is missing or does not fit."""
    left_out = read_json(folder / "run.json").get("left_out", {})
    rows = [row for row in read_json(folder / "config.json")["ablation"] if row["method"] not in left_out]
    saved = read_saved(folder, {row["name"]: row["fit_of"] or row["name"] for row in rows})
    groups = by_method(saved.turns)
    metrics: dict[str, dict[str, Estimate]] = {}
    for row in rows:
        records = groups.get(row["name"])
        if not records:
            raise RecordError(
                f"{folder / 'records.jsonl'}: holds no turn of the row {row['name']!r}; run it again"
            )
        found = retention_metrics(records)
        found |= ledger_metrics(records, ledger.memory_path(records))
        found |= structure_metrics(records)
        abilities = [record for record in saved.abilities if record.method == row["name"]]
        metrics[row["name"]] = found | (ability_metrics(abilities) if abilities else {})
    gate = read_json(folder / GATE_FILE) if (folder / GATE_FILE).exists() else None
    return Ablation(
        saved=saved,
        rows=rows,
        metrics=metrics,
        triggers=read_json(folder / TRIGGERS),
        gate=gate,
        verdicts=judge_ablation(groups, len(saved.task.memories), () if gate is None else ("recall_spec",)),
    )


def cell(estimate: Estimate) -> str:
    """`0.83 [0.70, 0.92]`, or a dash."""
    if estimate.value is None:
        return "—"
    interval = "" if estimate.low is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.value:.2f}{interval}"


def table(ablation: Ablation) -> pd.DataFrame:
    """A line a row, as people read it."""
    lines = []
    measured = ABILITY if ablation.saved.abilities else {}
    for row in ablation.rows:
        metrics, fits = ablation.metrics[row["name"]], ablation.saved.fits[row["name"]]
        trigger = ablation.triggers[row["name"]]
        lines.append(
            {
                "row": row["name"],
                "what": row["what"],
                **{title: cell(metrics[key]) for title, key in (COLUMNS | measured).items()},
                "trigger AUC": "—" if trigger is None else f"{trigger['area']:.2f}",
                "fit, s": f"{np.mean([fit.seconds for fit in fits]):.0f}",
            }
        )
    return pd.DataFrame(lines)


def text_of(ablation: Ablation) -> str:
    """ablation.md."""
    shown = table(ablation)
    config, counts = ablation.saved.config, next(iter(ablation.metrics.values()))
    last = config["seed"] + config["seeds"] - 1
    tokens = [fit.forward_tokens for fits in ablation.saved.fits.values() for fit in fits]
    single = " and tell of these fits alone; seeds=3 tells of others" if config["seeds"] == 1 else ""
    note = (
        f"{ablation.saved.task.name}, dev questions; first asks: {counts['retention/first_ask_cued'].n} cued and "
        f"{counts['retention/first_ask_uncued'].n} uncued a row; seeds {config['seed']} to {last}; "
        f"{min(tokens)} to {max(tokens)} forward tokens a fit; intervals are over near-miss families{single}."
    )
    header = "| " + " | ".join(shown.columns) + " |"
    rule = "|" + "---|" * len(shown.columns)
    lines = ["# Ablation", "", note]
    lines += [f"\nLeft out: {reason}." for reason in ablation.saved.left_out.values()]
    if ablation.gate is not None:
        passed = ", ".join(f"{key} {value:.2f}" for key, value in ablation.gate.items())
        lines += ["", f"Gate passed: {passed}."]
    lines += ["", header, rule]
    lines += ["| " + " | ".join(map(str, line)) + " |" for line in shown.itertuples(index=False)]
    lines += ["", "## Verdicts", ""]
    for key, verdict in ablation.verdicts.items():
        body = verdict.as_dict()
        lines.append(f"- **{key}** {body['verdict']}. *{body['claim']}* {body['reason']}.")
    return "\n".join([*lines, ""])


def comparison_of(ablation: Ablation) -> Comparison:
    """The rows as a comparison of methods, for MLflow."""
    saved = ablation.saved
    metrics = {
        name: {key: found.as_dict() for key, found in estimates.items()}
        for name, estimates in ablation.metrics.items()
    }
    summary = {
        "task": saved.task.name,
        "preset": f"ablation {saved.config['preset']}",
        "seed": saved.config["seed"],
        "wall_s": saved.wall_s,
        "methods": metrics,
        "verdicts": {key: verdict.as_dict() for key, verdict in ablation.verdicts.items()},
    }
    return Comparison(
        summary=summary,
        run_dir=saved.folder,
        config=saved.config,
        environment=saved.environment,
        turns=saved.turns,
        fits=saved.fits,
        data=saved.task,
        tags={"mlflow.source.name": "pipelines.ablate", "split": "dev"},
    )


def write_ablation(folder: Path) -> Ablation:
    """Computes everything from the records and writes it into the folder; a second time gives the same digits."""
    ablation = read_ablation(folder)
    body = {
        "rows": {row["name"]: _row_body(ablation, row) for row in ablation.rows},
        "gate": ablation.gate,
        "verdicts": {key: verdict.as_dict() for key, verdict in ablation.verdicts.items()},
        "split": "dev",
        "wall_s": ablation.saved.wall_s,
    }
    write_json(folder / "ablation.json", body)
    write_whole(folder / "ablation.csv", table(ablation).to_csv(index=False))
    write_whole(folder / "ablation.md", text_of(ablation))
    return ablation


def _row_body(ablation: Ablation, row: Mapping[str, Any]) -> dict[str, Any]:
    name = row["name"]
    fits = ablation.saved.fits[name]
    return {
        "what": row["what"],
        "against": row["against"],
        "metrics": {key: found.as_dict() for key, found in ablation.metrics[name].items()},
        "trigger": ablation.triggers[name],
        "fit": [{"seconds": fit.seconds, "tokens": fit.forward_tokens, **fit.notes} for fit in fits],
    }
