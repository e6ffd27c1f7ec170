"""The rows of the ablation: what is changed, and against which row it is read.

Section 4.4 of the specification claims that Step 1 is needed, that memory_front alone makes the model stop
after recalling, and that sft_only keeps ordinary ability; the rows of `recall_spec` test that, and `no_step1` and
`memory_front` of `recall`, which are changed in more than one setting so that the claim can be tested at all.
`rivals`: the choices of SFT and RAG. What rows of the past have shown stands in docs/EXPERIMENTS.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.base import TaskError


@dataclass(frozen=True)
class AblationRow:
    """One row: a method with some settings changed.

    fit_of: the row whose fit is used, where only decoding differs. alone: it says something without the row that
    it is read against; others bring that row along.
    """

    name: str
    method: str
    what: str
    overrides: tuple[str, ...] = ()
    against: str = ""
    fit_of: str = ""
    alone: bool = False


SECTION_4_4 = (
    AblationRow("recall_spec", "recall_spec", "the specification to the letter"),
    AblationRow(
        "recall_spec/no_step1",
        "recall_spec",
        "Step 1 left out, its tokens given to Step 2",
        ("methods.recall_spec.step1_share=0.0",),
        "recall_spec",
    ),
    AblationRow(
        "recall_spec/memory_front",
        "recall_spec",
        "memory_front only",
        ("methods.recall_spec.sample_types=[memory_front]",),
        "recall_spec",
    ),
    AblationRow(
        "recall_spec/no_sft_only",
        "recall_spec",
        "no sft_only",
        ("methods.recall_spec.sample_types=[memory_front,memory_full]",),
        "recall_spec",
    ),
    AblationRow("recall", "recall", "calibrated", (), "recall_spec", alone=True),
    AblationRow(
        "recall/sampled",
        "recall",
        "tokens and memories sampled, not greedy",
        ("methods.recall.recall.autorecall_use_sampling=true", "sampling.do_sample=true"),
        "recall",
        "recall",
    ),
)

CALIBRATED = (
    AblationRow(
        "recall/no_step1",
        "recall",
        "no retrieval trained in any step: no Step 1, no contrastive loss in Step 2, so keys stay as they are",
        ("methods.recall.step1_share=0.0", "methods.recall.step2_retrieval_weight=0.0"),
        "recall",
    ),
    AblationRow(
        "recall/memory_front",
        "recall",
        "memory_front only, with labels on <think> and <recall>, or it would never recall",
        (
            *(f"methods.recall.mixture.{n}=0.0" for n in ("memory_full", "openings", "queries")),
            *(f"examples.{n}=0.0" for n in ("sft_only", "reading", "unanswerable")),
        ),
        "recall",
    ),
)

QUOTED = AblationRow(
    "recall_quoted", "recall_quoted", "the clause's text behind <recall>, no vector", (), "recall"
)

_FIRST_TURNS = ("no later turns in training", ("examples.later_turns=0.0",))
RIVALS = (
    AblationRow("sft", "sft", "SFT as it is"),
    AblationRow("sft/first_turns", "sft", *_FIRST_TURNS, "sft"),
    AblationRow("rag", "rag", "RAG as it is"),
    AblationRow("rag/first_turns", "rag", *_FIRST_TURNS, "rag"),
    AblationRow(
        "rag/top_1", "rag", "one passage in the prompt, was three", ("methods.rag.top_k=1",), "rag", "rag"
    ),
    AblationRow("rag/top_5", "rag", "five passages in the prompt", ("methods.rag.top_k=5",), "rag", "rag"),
    AblationRow("rag_direct", "rag_direct", "the answer without quoting the passage first", (), "rag"),
)

ALL = (*SECTION_4_4, *CALIBRATED, QUOTED, *RIVALS)
SETS = {
    "section_4_4": SECTION_4_4,
    "calibrated": (*SECTION_4_4[4:], *CALIBRATED, QUOTED),
    "rivals": RIVALS,
    "all": ALL,
}


def chosen_rows(words: list[str]) -> list[AblationRow]:
    """Rows by set or by name, in the order of the table. Raises TaskError for an unknown word."""
    by_name = {row.name: row for row in ALL}
    wanted: set[str] = set()
    for word in words:
        if word in SETS:
            wanted |= {row.name for row in SETS[word]}
        elif word in by_name:
            row = by_name[word]
            wanted |= {word, row.fit_of, "" if row.alone else row.against} - {""}
        else:
            raise TaskError(
                f"rows: no row is called {word!r}; choose from the sets {', '.join(SETS)} or the rows "
                f"{', '.join(by_name)}"
            )
    if not wanted:
        raise TaskError(f"rows is empty; choose from the sets {', '.join(SETS)} or name rows")
    return [row for row in ALL if row.name in wanted]
