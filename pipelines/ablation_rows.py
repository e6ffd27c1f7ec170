"""The rows of the ablation: what is changed, and against which row it is read.

Section 4.4 of the specification claims that Step 1 is needed, that memory_front alone makes the model stop
after recalling, and that sft_only keeps ordinary ability; the rows of `recall_spec` test that, and `no_step1` and
`memory_front` of `recall`, which are changed in more than one setting so that the claim can be tested at all. The
others take one choice of the calibrated recipe back at a time, or add one.
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
        ("methods.recall_spec.step1=false",),
        "recall_spec",
    ),
    AblationRow(
        "recall_spec/memory_front",
        "recall_spec",
        "memory_front only",
        ("methods.recall_spec.mixture.sample_types=[memory_front]",),
        "recall_spec",
    ),
    AblationRow(
        "recall_spec/no_sft_only",
        "recall_spec",
        "no sft_only",
        ("methods.recall_spec.mixture.sample_types=[memory_front,memory_full]",),
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

CALIBRATED = tuple(
    AblationRow(f"recall/{name}", "recall", what, overrides, "recall")
    for name, what, overrides in (
        (
            "no_step1",
            "no retrieval trained in any step: no Step 1, no contrastive loss in Step 2, fixed keys, no teacher",
            (
                "methods.recall.step1_share=0.0",
                "methods.recall.step2_retrieval_weight=0.0",
                "methods.recall.train_keys=false",
                "methods.recall.distil_weight=0.0",
            ),
        ),
        (
            "one_step",
            "Step 1 left out, its tokens given to Step 2, which still trains retrieval",
            ("methods.recall.step1_share=0.0",),
        ),
        (
            "memory_front",
            "memory_front only, with labels on <think> and <recall>, or it would never recall",
            (
                *(
                    f"methods.recall.mixture.{n}=0.0"
                    for n in ("memory_full", "sft_only", "openings", "queries", "reading", "unanswerable")
                ),
                "methods.recall.mixture.front_recall=true",
            ),
        ),
        (
            "no_sft_only",
            "no sft_only, whole or cut",
            ("methods.recall.mixture.sft_only=0.0", "methods.recall.mixture.openings=0.0"),
        ),
        (
            "no_reading",
            "no questions on reading passages",
            ("methods.recall.mixture.reading=0.0", "methods.recall.mixture.queries_reading=0.0"),
        ),
        (
            "more_reading",
            "twice as many questions on reading passages",
            ("methods.recall.mixture.reading=2.0",),
        ),
        (
            "quiet_trigger",
            "the token that decides whether to recall counts like any other",
            ("methods.recall.mixture.trigger_weight=1.0",),
        ),
        (
            "no_openings",
            "no ordinary conversations cut behind their reasoning's first words",
            ("methods.recall.mixture.openings=0.0",),
        ),
        ("no_queries", "no questions cut behind <recall>", ("methods.recall.mixture.queries=0.0",)),
        (
            "first_turns",
            "queries as first turns alone: none asked again, against a claim or following on",
            ("methods.recall.mixture.queries_later=0.0",),
        ),
        (
            "no_trigger_parts",
            "none of these four: the trigger is learnt in whole samples alone",
            (
                "methods.recall.mixture.trigger_weight=1.0",
                "methods.recall.mixture.openings=0.0",
                "methods.recall.mixture.queries=0.0",
            ),
        ),
        (
            "more_trigger",
            "twice as many openings and queries",
            ("methods.recall.mixture.openings=1.0", "methods.recall.mixture.queries=1.0"),
        ),
        (
            "talk",
            "half of the talk before a question or an opening is a question on a clause with its answer",
            ("examples.history_asked=0.5",),
        ),
        (
            "more_talk",
            "every other question comes after talk, of up to three conversations; was one in five, of one",
            ("examples.history_probability=0.5", "examples.history_conversations=3"),
        ),
        (
            "dialogues",
            "turns of dialogues of up to six, eight in ten behind a conversation of their own; was each alone",
            ("examples.dialogue_turns=6", "examples.history_probability=0.8"),
        ),
        ("not_centred", "vectors not centred", ("methods.recall.centre=false",)),
        (
            "keys_3",
            "three keys a memory: its text's and its sentences'",
            ("methods.recall.keys_per_memory=3",),
        ),
        ("vectors_1", "one injected vector a memory, was eight", ("methods.recall.vectors_per_memory=1",)),
        (
            "front_1.25",
            "more memory_front samples (1.25 a memory, was 0.75)",
            ("methods.recall.mixture.memory_front=1.25",),
        ),
        ("fixed_keys", "keys stay their texts' vectors", ("methods.recall.train_keys=false",)),
        ("fixed_values", "injected vectors stay where they start", ("methods.recall.train_values=false",)),
        (
            "averaged",
            "weights averaged over the last 0.4 of the budget, -2 on the logit of <recall>",
            ("train.average_from=0.6", "methods.recall.recall.recall_bias=-2.0"),
        ),
        ("no_contrast", "no contrastive loss in Step 2", ("methods.recall.step2_retrieval_weight=0.0",)),
        (
            "full_contrast",
            "the contrastive loss of Step 2 at its full weight, was 0.1",
            ("methods.recall.step2_retrieval_weight=1.0",),
        ),
        ("no_self_cues", "no self-made questions", ("examples.self_cues=0", "examples.self_cues_beside=0")),
        (
            "turns",
            "training questions also with wrong claims, in half sentences, and after more talk",
            (
                "examples.claim_probability=0.1",
                "examples.follow_up_probability=0.1",
                "examples.history_probability=0.3",
                "examples.history_conversations=2",
            ),
        ),
        ("no_teacher", "retrieval learns no ranking of the encoder", ("methods.recall.distil_weight=0.0",)),
        ("tau_0.1", "training temperature 0.1, was 0.05", ("train.retrieval_temperature=0.1",)),
        ("gain_4", "injected vectors four times as long", ("methods.recall.gain=4.0",)),
        ("noise_0.1", "noise on injected vectors in training", ("train.vector_noise=0.1",)),
        ("lora_qv", "LoRA on Q and V only, in both steps", ("train.target_modules=[q_proj,v_proj]",)),
    )
)

TIED = AblationRow(
    "recall/tied",
    "recall",
    "one vector a memory, key and injected vector in one, which learns for both",
    ("methods.recall.vectors_per_memory=1", "methods.recall.tie_values=true"),
    "recall/vectors_1",
)

RAW_LOGITS = AblationRow(
    "recall/raw_logits",
    "recall",
    "sampled, memory logits are raw cosines, as specified, not cosines / tau",
    (
        "methods.recall.recall.autorecall_use_sampling=true",
        "sampling.do_sample=true",
        "methods.recall.recall.logit_scale=1.0",
    ),
    "recall/sampled",
    "recall",
)

RECIPES = (
    AblationRow("recall_silent", "recall_silent", "answers from the vector, without reciting", (), "recall"),
    AblationRow("recall_written", "recall_written", "weights never see the rulebook", (), "recall"),
)

CHOICES = (RAW_LOGITS, *CALIBRATED, TIED, *RECIPES)
ALL = (*SECTION_4_4, *CHOICES)
SETS = {
    "section_4_4": SECTION_4_4,
    "calibrated": (*SECTION_4_4[4:], *CHOICES),
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
