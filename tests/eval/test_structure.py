"""Form of an answer, judged on raw tokens, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import (
    ABSTAINS,
    USAGE,
    always_right,
    answer,
    clause,
    dialogues,
    never_closes,
    parts_of,
    raw_of,
    recall_raw,
    right,
    turn,
    wrong,
)

from eval.records import RecordError
from eval.structure import (
    NO_PAD,
    TRUNCATED,
    chain_kept,
    correct_and_well_formed,
    leaked,
    parse,
    recited,
    sentences,
    steps_kept,
    steps_kept_of,
    stopped_after_recall,
    structure_of,
    think_closed,
    truncated,
    well_formed,
)
from methods.base import Answer, Lookup
from methods.parts import Part, recalled_texts

GOOD = (
    "<think>\n<recall><|memory_pad|>Staff may spend 40 euros.</recall>\nThe limit is 40.\n</think>\n"
    "40 euros<|im_end|>"
)


def test_a_whole_answer_is_taken_apart() -> None:
    found = parse(parts_of(GOOD))
    assert found.well_formed and found.faults == () and found.leaks == ()
    assert found.think_closed and found.num_recalls == 1 and not found.stopped_after_recall
    assert found.steps == found.steps_after_recall == ("The limit is 40.",)
    whole = answer(GOOD)
    assert recalled_texts(whole.pieces) == ["Staff may spend 40 euros."]
    assert whole.think == "Staff may spend 40 euros.\nThe limit is 40."
    assert whole.final == "40 euros"


def test_a_recall_whose_text_was_looked_up_needs_no_pad() -> None:
    """There the text itself is put behind <recall>, and no vector; RAG's lookups are no such text."""
    raw = GOOD.replace("<|memory_pad|>", "")
    found, other = (Lookup("c1", 0.9, text) for text in ("Staff may spend 40 euros.", "Staff may spend 35 euros."))
    assert structure_of(turn(1, "first_ask", answer(raw, (found,)))).well_formed
    for lookups in ((), (other,), (found, other)):
        assert structure_of(turn(1, "first_ask", answer(raw, lookups))).faults == (NO_PAD,)
    unclosed = structure_of(turn(1, "first_ask", answer(raw.replace("</recall>", ""), (found,))))
    assert not unclosed.well_formed


@pytest.mark.parametrize(
    "raw",
    [
        "<think>Three and four make seven.</think>7",
        "  <think>\nYes.\n</think>\n\n7\n<|im_end|>",
        "<think>Yes.</think>7<|endoftext|>",
        "<think>a<recall><|memory_pad|>b</recall>c<recall><|memory_pad|>d</recall>e</think>f",
        "<think>a<recall><|memory_pad|><|memory_pad|><|memory_pad|>b</recall>c</think>d",  # a pad for each vector
        "<think><recall><|memory_pad|></recall>No clause covers this.</think>It does not say.",
        "<think>2 < 3 and x <y> z</think>yes",  # angle brackets that are no control token
    ],
)
def test_well_formed(raw: str) -> None:
    assert parse(parts_of(raw)).faults == ()


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        ("", "opened 0"),
        ("7", "opened 0"),
        ("<think>Let me see", "closed 0"),
        ("<think></think>7", "nothing is thought"),
        ("<think> \n </think>7", "nothing is thought"),
        ("<think>a</think>", "no answer"),
        ("<think>a</think> <|im_end|>", "no answer"),
        ("Well. <think>a</think>7", "text before"),
        ("</think>a<think>7", "none belongs"),
        ("<think>a</think>7</think>", "closed 2"),
        ("<think>a<think>b</think>7", "opened 2"),
        ("<think>a<recall>text</recall>b</think>7", "without its"),
        ("<think>a<recall> <|memory_pad|>text</recall>b</think>7", "without its"),
        ("<think>a<recall><|memory_pad|>text<|memory_pad|></recall>b</think>7", "none belongs"),
        ("<think>a<recall></recall>b</think>7", "without its"),
        ("<think>a<recall><|memory_pad|>text</think>7", "not closed before"),
        ("<think>a<recall><|memory_pad|>text", "never closed"),
        ("<think>a<recall>", "never closed"),
        ("<think>a<recall><|memory_pad|>b<recall><|memory_pad|>c</recall>d</think>7", "inside a recall"),
        ("<recall><|memory_pad|>b</recall><think>a</think>7", "outside the think"),
        ("<think>a</think><recall><|memory_pad|>b</recall>7", "none belongs"),
        ("<think>a<|memory_pad|>b</think>7", "none belongs"),
        ("<think>a</recall>b</think>7", "none belongs"),
        ("<think>a</think>7<|im_start|>user", "none belongs"),
        ("<think>a<|im_end|>b</think>7", "none belongs"),
        ("<think>a</think>7<|im_end|><|im_end|>", "none belongs"),
    ],
)
def test_not_well_formed(raw: str, fault: str) -> None:
    found = parse(parts_of(raw))
    assert not found.well_formed
    assert any(fault in text for text in found.faults), found.faults


@pytest.mark.parametrize(
    ("raw", "stopped"),
    [
        ("<think>a</think>7", False),  # no recall at all
        (GOOD, False),
        ("<think><recall><|memory_pad|>t</recall>so", False),  # resumed, though never closed
        ("<think><recall><|memory_pad|>t</recall>\n</think>7", True),
        ("<think><recall><|memory_pad|>t</recall><|im_end|>", True),
        ("<think><recall><|memory_pad|>t<|im_end|>", True),
        ("<think><recall><|memory_pad|>t</think>7", True),
        ("<think>a<recall>", True),
        ("<think><recall><|memory_pad|>t</recall>so<recall><|memory_pad|>u</recall></think>7", True),
        ("<think><recall><|memory_pad|>t</recall> ... </think>7", True),  # punctuation is no reasoning
    ],
)
def test_stopping_after_a_recall(raw: str, stopped: bool) -> None:
    assert parse(parts_of(raw)).stopped_after_recall is stopped


def test_a_cut_answer_has_a_fault_of_its_own() -> None:
    assert parse(parts_of(GOOD), finished=False).faults == (TRUNCATED,)
    records = [turn(1, "first_ask", right(1)), turn(2, "first_ask", replace(right(2), finished=False))]
    assert truncated(records).values.tolist() == [0, 1]
    assert well_formed(records).values.tolist() == [1, 0]
    assert correct_and_well_formed(records).values.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("final", "memory_id", "closes", "stopped"),
    [
        (ABSTAINS, "", True, False),  # as it is trained to
        (ABSTAINS, "c3", True, True),
        ("103 euros", "", True, True),  # an answer that nothing leads to
        ("", "", False, True),
    ],
)
def test_an_abstention_after_the_null_memory_is_no_stopping(
    final: str, memory_id: str, closes: bool, stopped: bool
) -> None:
    lookup = Lookup(memory_id, 0.5, "No clause covers this.")
    raw = recall_raw(lookup.text, final, reasoning="")
    given = answer(raw if closes else raw.replace("</think>", ""), (lookup,))
    record = turn(3, "first_ask", given)
    assert structure_of(record).stopped_after_recall is stopped
    assert stopped_after_recall([record]).values.tolist() == [stopped]


def test_only_the_last_recall_tells() -> None:
    """The null memory first and a clause then, without a word on it: it stopped."""
    both = (Lookup("", 0.5, "None."), Lookup("c3", 0.5, "Rule."))
    recalls = "".join(f"<recall><|memory_pad|>{lookup.text}</recall>" for lookup in both)
    assert structure_of(turn(3, "first_ask", answer(raw_of(recalls, ABSTAINS), both))).stopped_after_recall
    assert not structure_of(
        turn(3, "first_ask", answer(raw_of(recalls.replace("Rule.", "None."), ABSTAINS), (both[1], both[0])))
    ).stopped_after_recall


MARKS = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<|start_header_id|>", "<|eot_id|>"]


@pytest.mark.parametrize("mark", [*MARKS, "[INST]", "<|user|>", "</s>"])
def test_turn_marks_of_other_families_leak(mark: str) -> None:
    """As tokens or spelt out, unless they are quoted, or stand in what the model had at hand."""
    spelt = [Part("control", "<think>"), Part("text", "a"), Part("control", "</think>")]
    for found in (Part("text", f"7 {mark} user"), Part("control", mark)):
        assert parse((*spelt, Part("text", "7"), found)).leaks == (mark,)
    assert parse((*spelt, Part("text", f"Write `{mark}`."))).well_formed
    asked = turn(1, "first_ask", replace(right(1), parts=(*spelt, Part("text", f"Write {mark} there."))))
    assert structure_of(asked).leaks == (mark,)
    assert structure_of(replace(asked, memory_text=f"Write {mark} there.")).well_formed


@pytest.mark.parametrize(
    "spelt", ["</think>", "<recall>", "</recall>", "<think>", "<user>", "[INST]", "<|memory_pad|>"]
)
def test_a_clause_that_spells_tokens_is_text(spelt: str) -> None:
    """Its recall closes where its token stands, and the answer begins behind the think's."""
    text = f"Staff write {spelt} on the form. It costs 103 euros."
    tokens = ["<think>", "<recall>", "<|memory_pad|>", text, "</recall>", "So 103.", "</think>", "103 euros"]
    parts = tuple(Part("text" if n in (3, 5, 7) else "control", token) for n, token in enumerate(tokens))
    given = Answer((*parts, Part("stop", "<eos>")), (Lookup("c3", 0.9, text),), USAGE)
    record = replace(turn(3, "first_ask", given), memory_text=text)
    assert structure_of(record).faults == ()
    assert recited(record) and given.final == "103 euros"
    assert steps_kept_of(record) == 1.0


@given(
    st.lists(
        st.sampled_from(
            ["<think>", "</think>", "<recall>", "<|memory_pad|>", "</recall>", "<|im_end|>", "a b.", " ", "\n"]
        ),
        max_size=12,
    )
)
def test_any_sequence_of_tokens_is_read(parts: list[str]) -> None:
    whole = answer("".join(parts))
    found = parse(whole.parts)
    assert whole.raw == "".join(parts)
    assert found.well_formed == (not found.faults)
    assert found.num_recalls <= len(recalled_texts(whole.pieces)) == parts.count("<recall>")
    if found.well_formed:
        assert found.think_closed and whole.final and whole.think
    if found.stopped_after_recall:
        assert found.num_recalls and not found.steps_after_recall


def test_sentences() -> None:
    assert sentences("One is 1.5. Two?\nThree!  \n\n ... ") == ("One is 1.5.", "Two?", "Three!")
    assert sentences("") == ()


def test_chain_kept_by_hand() -> None:
    chain = ("Three and four make seven.", "Seven is odd.", "So the answer is odd.")
    assert chain_kept(chain, chain) == 1.0
    assert chain_kept(chain[:2], chain) == pytest.approx(2 / 3)
    assert chain_kept(chain[::-1], chain) == pytest.approx(1 / 3)  # order counts
    assert chain_kept((*chain, "Padding here.", "More padding there."), chain) == pytest.approx(3 / 5)
    assert chain_kept((), chain) == 0.0
    assert chain_kept(("3 and 4 make 7",), chain[:1]) == 1.0  # numbers in words are the same step


def test_steps_kept_of_an_ask() -> None:
    def kept(raw: str) -> float | None:
        return steps_kept_of(turn(3, "first_ask", answer(raw)))

    quoted = f"{clause(3)}\nThe office is number 3."
    assert kept(recall_raw(clause(3), "103 euros")) == 1.0
    assert kept(recall_raw(clause(4), "104 euros")) == 1.0  # the wrong clause, but the right form
    assert kept(recall_raw(clause(3), "103 euros", reasoning="")) == pytest.approx(2 / 3)
    assert kept(raw_of(quoted, "103 euros")) == 1.0  # SFT and RAG quote instead of recalling
    assert kept(raw_of(clause(3), "103 euros")) == pytest.approx(2 / 3)
    assert kept(raw_of("Let me think about it. Hm.", "103 euros")) == pytest.approx(1 / 3)
    assert kept(f"<think>\n{quoted}") == pytest.approx(2 / 3)  # never closed: no answer
    assert kept("") == 0.0


def test_ordinary_turns_are_compared_with_the_corpus() -> None:
    record = turn(1, "ordinary", answer(raw_of("Three and four make seven.", "7")))
    assert steps_kept_of(record) == 0.5
    whole_reply = "<think>\nThree and four make seven. Seven is odd.\n</think>\nIt is 7."
    assert steps_kept_of(replace(record, reference_think=whole_reply)) == 0.5
    assert steps_kept_of(replace(record, reference_think="")) is None
    with pytest.raises(RecordError, match=r"recall/0/d1/0"):
        steps_kept_of(replace(record, reference_think="..."))


def test_metrics_over_records_by_hand() -> None:
    stopped = answer(recall_raw(clause(3), "103 euros", reasoning=""), right(3).lookups)
    leaky = answer(raw_of("Hm.", "103 euros <recall>"))
    records = [
        turn(1, "first_ask", right(1)),
        turn(2, "first_ask", wrong(2)),
        turn(3, "first_ask", stopped),
        turn(4, "first_ask", answer("<think>\nnever closed 104 euros")),
        turn(5, "ordinary", leaky),
    ]
    assert well_formed(records).values.tolist() == [1, 1, 1, 0, 0]
    assert think_closed(records).values.tolist() == [1, 1, 1, 0, 1]
    assert leaked(records).values.tolist() == [0, 0, 0, 0, 1]
    assert stopped_after_recall(records).values.tolist() == [0, 0, 1]
    assert correct_and_well_formed(records).values.tolist() == [1, 0, 1, 0]


def test_planted_forms() -> None:
    never = dialogues(never_closes)
    assert well_formed(never).mean == correct_and_well_formed(never).mean == 0.0
    assert stopped_after_recall(never).reason == "no answer holds a <recall>"
    always = dialogues(always_right)
    assert well_formed(always).mean == steps_kept(always).mean == 1.0
    assert stopped_after_recall(always).mean == 0.0
