"""Inside recall: what the memory head chose from, how the bank's vectors lie, what each recall saw.

Letters: D hidden, M memories. Everything is read from a finished run; no model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eval.ledger import memory_path
from eval.records import TurnRecord
from eval.retention import answerable_key_of, correct, key_of
from eval.scoring import verbatim
from reports.base import ReportError
from reports.figures import COLOURS, MARKERS, STYLE, axes_of, legend_below
from reports.text import one_line

Floats = NDArray[np.float64]
NO_CLAUSE = "(no clause)"
_MOST_FAMILIES = len(COLOURS) - 1  # told apart in a plot; the rest share the last colour


@dataclass(frozen=True, eq=False)
class SavedBank:
    """The bank of a fitted recall method."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    keys_MD: Floats  # what the memory head compares the query with
    fed_MF: Floats  # (M, P * D): what is fed for each memory, P vectors one after another; P = 0 where texts are
    gain: float


def read_bank(fit: Path) -> SavedBank:
    """The bank below a fit's folder (fits/<seed>/<method>). Raises ReportError where there is none to read."""
    from safetensors.numpy import load_file

    folder = fit / "bank"
    if not (folder / "bank.json").is_file():
        raise ReportError(f"{folder}: no memory bank; name the fit of a recall method, e.g. fits/0/recall")
    body = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
    if "num_vectors" not in body:
        raise ReportError(
            f"{folder}: another version of the program saved this bank; read it with that, or fit again"
        )
    tensors = load_file(folder / "bank.safetensors")
    keys_MD, fed = (np.asarray(tensors[name], dtype=np.float64) for name in ("keys", "fed"))
    counts = body["num_vectors"]
    least = min(counts, default=1)  # written ones may have more than the others
    fed_MF = np.stack([fed_PD[:least].ravel() for fed_PD in np.split(fed, np.cumsum(counts)[:-1])])
    return SavedBank(tuple(body["ids"]), tuple(body["texts"]), keys_MD, fed_MF, float(body["gain"]))


def pair_cosines(vectors_MD: Floats, family_of: Sequence[str]) -> tuple[Floats, Floats]:
    """Cosines of every pair of vectors: (within a family, between families). vectors_MD: not zero."""
    unit_MD = vectors_MD / np.linalg.norm(vectors_MD, axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit_MD), k=1)
    cosines = np.einsum("pd,pd->p", unit_MD[first], unit_MD[second])
    names = np.asarray(family_of, dtype=object)
    same = names[first] == names[second]
    return cosines[same], cosines[~same]


def principal_axes(vectors_MD: Floats, num_axes: int = 2) -> tuple[Floats, Floats]:
    """Places on the first principal axes (M, num_axes) and each axis' share of the variance (num_axes,)."""
    centred_MD = vectors_MD - vectors_MD.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred_MD, full_matrices=False)
    places, shares = np.zeros((len(vectors_MD), num_axes)), np.zeros(num_axes)
    kept = min(num_axes, len(sizes))
    places[:, :kept] = left[:, :kept] * sizes[:kept]
    total = float((sizes**2).sum())
    if total > 0:
        shares[:kept] = sizes[:kept] ** 2 / total
    return places, shares


def recall_methods(turns: Sequence[TurnRecord]) -> list[str]:
    """The methods that decide themselves, by a <recall> token, whether to look up. Raises ReportError for none."""
    names = list(dict.fromkeys(turn.method for turn in turns))
    found = [name for name in names if memory_path([t for t in turns if t.method == name]) == "recall"]
    if not found:
        raise ReportError(
            f"no recall method among {', '.join(names) or 'no records'}; name a run that has one in RUN"
        )
    return found


def recalls(turns: Sequence[TurnRecord]) -> pd.DataFrame:
    """One recall a row: what was asked, what the memory head chose and ranked next, and what came of it.

    `right clause` is empty on turns that no clause answers, `right answer` on turns that are not scored.
    """
    rows = []
    for turn in turns:
        qa = answerable_key_of(turn)
        for lookup in turn.answer.lookups:
            others = [(i, score) for i, score in lookup.candidates if i != lookup.memory_id]
            runner_up, next_score = max(others, key=lambda pair: pair[1], default=("", None))
            rows.append(
                {
                    "question": one_line(turn.question),
                    "kind": turn.kind,
                    "gold": ", ".join(qa.memory_ids) if qa else NO_CLAUSE if key_of(turn) else "",
                    "recalled": lookup.memory_id or NO_CLAUSE,
                    "score": lookup.score,
                    "next": (runner_up or NO_CLAUSE) if others else "",
                    "margin": None if next_score is None else lookup.score - next_score,
                    "right clause": lookup.memory_id in qa.memory_ids if qa else None,
                    "word for word": verbatim(lookup.text, turn.memory_text) if qa and turn.memory_text else None,
                    "right answer": correct(turn),
                    "it saw": one_line(lookup.text),
                    "answer": one_line(turn.answer.final),
                    "method": turn.method,
                    "seed": turn.seed,
                }
            )
    columns = ["question", "kind", "gold", "recalled", "score", "next", "margin", "right clause", "word for word"]
    columns += ["right answer", "it saw", "answer", "method", "seed"]
    return pd.DataFrame(rows, columns=columns)


def mistaken(frame: pd.DataFrame, family_of: Mapping[str, str]) -> pd.Series:
    """How the wrong recalls of answerable questions go wrong: counts."""

    def kind(row: pd.Series) -> str:
        if row["recalled"] == NO_CLAUSE:
            return "the null memory"
        gold = {family_of.get(i, i) for i in str(row["gold"]).split(", ")}
        family = family_of.get(row["recalled"], row["recalled"])
        return "a near-miss clause (same family)" if family in gold else "a clause of another family"

    wrong = frame[frame["right clause"].eq(False)]
    return pd.Series([kind(row) for _, row in wrong.iterrows()], dtype=object).value_counts()


# ---------------------------------------------------------------------------------------- figures


@rc_context(STYLE)
def scores_figure(frame: pd.DataFrame) -> Figure | None:
    """The chosen memory's score against its lead over the next one; None where nothing was recalled."""
    known = frame[frame["margin"].notna() & frame["right clause"].notna()]
    if known.empty:
        return None
    figure, axes = axes_of("score of the chosen memory (cosine)", "lead over the next one")
    for index, (right, label) in enumerate(((True, "right clause"), (False, "another clause"))):
        part = known[known["right clause"].eq(right)]
        if len(part):
            axes.scatter(
                part["score"].astype(float),
                part["margin"].astype(float),
                s=22,
                alpha=0.75,
                color=COLOURS[index],
                marker=MARKERS[index],
                label=f"{label} (n={len(part)})",
            )
    legend_below(figure)
    return figure


@rc_context(STYLE)
def cosines_figure(within: Floats, between: Floats, name: str = "keys") -> Figure | None:
    """How alike the bank's vectors are, within near-miss families and between them. None without a pair."""
    if not len(within) + len(between):
        return None
    figure, axes = axes_of(f"cosine of two {name}", "share of the pairs")
    bins = np.linspace(min(-0.05, *within, *between), 1.0, 41)
    for index, (values, label) in enumerate(((between, "of two families"), (within, "of one family"))):
        if len(values):
            axes.hist(
                values,
                bins=list(bins),
                weights=np.full(len(values), 1 / len(values)),
                alpha=0.6,
                color=COLOURS[index],
                hatch=("", "///")[index],
                label=f"{label} (n={len(values)} pairs)",
            )
    legend_below(figure)
    return figure


@rc_context(STYLE)
def map_figure(places: Floats, shares: Floats, family_of: Sequence[str]) -> Figure:
    """The bank's vectors on two principal axes, a look a family (the largest ones; the rest are grey)."""
    figure, axes = axes_of(
        f"principal axis 1 ({shares[0]:.0%} of the variance)", f"principal axis 2 ({shares[1]:.0%})"
    )
    names = np.asarray([one_line(name) for name in family_of], dtype=object)
    sizes = pd.Series(names).value_counts()
    large = [str(name) for name, size in sizes.items() if size > 1][:_MOST_FAMILIES]
    for index, name in enumerate(large):
        chosen = places[names == name]
        label = name.split("/")[-1].replace("$", r"\$")
        axes.scatter(
            chosen[:, 0],
            chosen[:, 1],
            s=26,
            color=COLOURS[index],
            marker=MARKERS[index],
            label=f"{label} ({len(chosen)})",
        )
    rest = places[~np.isin(names, large)]
    if len(rest):
        axes.scatter(rest[:, 0], rest[:, 1], s=12, color=COLOURS[-1], marker=".", label=f"others ({len(rest)})")
    legend_below(figure)
    return figure
