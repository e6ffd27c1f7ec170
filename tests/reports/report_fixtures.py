"""A small comparison with everything in it that a report has to survive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval.records import CostRecord, TurnRecord
from methods.base import Answer, FitReport, Lookup, Usage
from methods.parts import Part
from reports.base import Comparison, TaskFacts
from tasks.base import QA, Memory, TaskData

ODD = (
    "a|b <script>alert(1)</script> $x$ `code` *b* _u_ \u202eabc\u202c \u200fשלום 🦊👩‍💻\nnext [l](u) # ~~ &amp; \\"
)
METHODS = ("recall", "sft", "rag")
KEYS = (
    "retention/accuracy",
    "retention/first_ask_cued",
    "retention/first_ask_uncued",
    "retention/d0",
    "retention/d1",
    "retention/d2",
    "retention/d4",
    "retention/d8",
    "retention/re_ask_d1",
    "retention/ratio_d4",
    "ledger/gold",
    "ledger/used",
    "ledger/unaided",
    "retention/consistency",
    "abstention/precision",
    "abstention/recall",
    "ledger/trigger",
    "ledger/hit_at_1",
    "ledger/verbatim",
    "ledger/false_recall",
    "structure/well_formed",
    "structure/stopped_after_recall",
    "structure/correct_and_well_formed",
)
COSTS = {
    "cost/ttft_p50_s": 0.1234,
    "cost/ttfa_p50_s": 2.5,
    "cost/tpot_p50_s": 0.0834,
    "cost/latency_p50_s": 4.321,
    "cost/latency_mean_s": 4.5,
    "cost/accuracy": 0.5,
    "cost/stage_prefill_s": 0.1,
    "cost/stage_rest_s": 4.4,
    "cost/per_correct_s_k1": 700.0,
    "cost/per_correct_s_k100": 11.0,
    "cost/per_correct_s_k10000": 4.8,
    "cost/prompt_tokens": 61.25,
    "cost/new_tokens": 48.0,
    "cost/peak_rss_bytes": 1.9e9,
    "cost/fit_s": 617.0,
    "cost/fit_tokens": 37_120.0,
}


def make_summary(methods: tuple[str, ...] = METHODS) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for i, name in enumerate(methods):
        cells: dict[str, Any] = {}
        for j, key in enumerate(KEYS):
            value = round(0.94 - 0.05 * i - 0.01 * j, 4)
            cells[key] = {"value": value, "low": value - 0.06, "high": min(value + 0.04, 1.0), "n": 64}
        for key, value in COSTS.items():
            cells[key] = {"value": value * (1 + i), "low": value * 0.9, "high": value * (1.1 + i), "n": 24}
        cells["cost/peak_vram_bytes"] = {"value": None, "reason": "measured as rss"}
        cells["ability/after"] = {"value": None, "reason": "the ability pass was not run"}
        cells["cost/latency_p95_s"] = {"value": None, "reason": "24 timings; a p95 needs 60"}
        table[name] = cells
    if "sft" in table:
        table["sft"]["ledger/hit_at_1"] = {"value": None, "reason": "it never looks anything up"}
        del table["sft"]["ledger/false_recall"]
    return {
        "task": "regs",
        "preset": "laptop",
        "seed": 0,
        "wall_s": 1234.5,
        "methods": table,
        "verdicts": {
            "H1": verdict(
                "supported", "Recall keeps as much as RAG.", "against rag: difference +0.020 [-0.010, +0.050]"
            ),
            "H2": verdict(
                "refuted", "Recall costs what SFT costs.", "latency: difference +0.400 [+0.300, +0.500]"
            ),
            "H3": verdict("not decided by this data", "Recall is right and well formed most often.", ""),
            "H5/recall_spec": verdict("not decided by this data", ODD, ODD),
        },
    }


def verdict(outcome: str, claim: str, reason: str) -> dict[str, Any]:
    return {"id": "H1", "verdict": outcome, "claim": claim, "reason": reason, "margin": 0.05, "evidence": {}}


def make_turn(
    method: str,
    dialogue: str,
    turn: int,
    final: str,
    *,
    key: str = "40 euros",
    rivals: tuple[str, ...] = ("35 euros",),
    looked_up: tuple[str, ...] = ("per-diem-lisbon",),
    kind: Any = "first_ask",
    text: str = "The allowance in Lisbon is 40 euros a day.",
) -> TurnRecord:
    unanswerable = kind == "unanswerable"
    qa = QA(
        id=f"q-{dialogue}-{turn}",
        question="What is the daily allowance in Lisbon?",
        answer="" if unanswerable else key,
        memory_ids=() if unanswerable else ("per-diem-lisbon",),
        rivals=() if unanswerable else rivals,
        kind="unanswerable" if unanswerable else "single",
        split="test",
    )
    parts = ("<think>", f"\n{text}\n", "</think>" if final else "", final)
    answer = Answer(
        parts=tuple(Part("control" if "think>" in part else "text", part) for part in parts if part),
        lookups=tuple(Lookup(memory_id, 0.91, text, ((memory_id, 0.91), ("odd", 0.4))) for memory_id in looked_up),
        usage=Usage(prompt_tokens=61, new_tokens=48),
        finished=bool(final),
        memory_path={"recall": "recall", "rag": "retrieve"}.get(method, "weights"),  # type: ignore[arg-type],
    )
    return TurnRecord(method, 0, dialogue, turn, kind, qa.question, answer, qa, 0, "per-diem-lisbon", True, text)


def make_turns(methods: tuple[str, ...] = METHODS, dialogues: int = 3) -> list[TurnRecord]:
    turns = []
    for method in methods:
        for number in range(dialogues):
            name = f"d{number}"
            turns += [
                make_turn(method, name, 0, "40 euros a day."),
                make_turn(method, name, 1, "It is 35 euros.", looked_up=("per-diem-porto",)),
                make_turn(method, name, 2, ODD, text=ODD),
                make_turn(method, name, 3, "", looked_up=()),
                make_turn(method, name, 4, "99 euros.", kind="unanswerable"),
            ]
    return turns


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return make_comparison(tmp_path)


def make_comparison(folder: Path) -> Comparison:
    """A finished run below `folder`: the folder is there, the reports are not."""
    run_dir = folder / "runs" / "regs" / "20260101-000000-ab12"
    run_dir.mkdir(parents=True)
    usage = Usage(61, 48, 0.12, 2.5, 4.3, {"prefill": 0.1, "decode": 4.0}, 1 << 20)
    return Comparison(
        summary=make_summary(),
        run_dir=run_dir,
        config={
            "task": {"name": "regs"},
            "methods": {m: {"lora_rank": 16} for m in METHODS},
            "odd": {ODD: ODD},
            "long": "x" * 9000,
            "a=b": 1,
            "a(b": 2,
        },
        environment={"git_sha": "0123abc", "device": "cpu, 2 cores", "versions": {"torch": "2.13.0"}},
        turns=make_turns(),
        costs=[CostRecord(m, 0, f"q{i}", 0, usage, 1_900_000_000, "rss") for m in METHODS for i in range(4)],
        fits={
            m: FitReport(
                617.0,
                37_120,
                96,
                1 << 20,
                {"step2": (3.0, 1.0, 0.2)},
                {"hit@1": 1.0},
                samples={"clauses recited": 40, ODD: 1},
            )
            for m in METHODS
        },
        data=TaskFacts.of(
            TaskData(
                "regs",
                (
                    Memory("per-diem-lisbon", "The allowance is 40 euros.", cues=(QA("c", "?", "40", ("x",)),)),
                    Memory("odd", ODD),
                ),
                (),
                (),
                (),
                licence="CC0",
                source="packaged",
                version="v" * 64,
            )
        ),
        tags={"note": ODD},
    )
