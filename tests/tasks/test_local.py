"""A person's folder becomes a sound task, with or without questions of their own."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from document_files import MARKDOWN, write_all
from hypothesis import given
from hypothesis import strategies as st

from tasks.base import QA, TaskError
from tasks.documents.cutting import Clause, cut, ends_sentence, num_words, pieces
from tasks.documents.form import Passage, Section
from tasks.local import Local, load, read
from tasks.rule_questions import facts
from tasks.self_cues import self_made_questions
from tasks.validate import nearly_equal, problems, remarks

LISBON, CORK, GATES = (
    "handbook.md#meal-allowance-lisbon",
    "handbook.md#meal-allowance-cork",
    "handbook.md#gates",
)


def section(*texts: str, title: str = "Rules", file: str = "a.md", row_id: str = "") -> Section:
    return Section(file, title, tuple(Passage(text, n) for n, text in enumerate(texts, start=1)), row_id=row_id)


def with_questions(path: Path, rows: Sequence[dict[str, Any]]) -> Local:
    """The sample handbook with a questions.jsonl."""
    path.mkdir(exist_ok=True)
    (path / "handbook.md").write_text(MARKDOWN, encoding="utf-8")
    (path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = read(str(path), num_train=9, num_heldout=9)
    drawn = found.questions
    own = len(drawn.used) - drawn.num_stock
    assert drawn.num_found == len(rows) == own + drawn.num_refused
    assert problems(found.task) == [] or not own
    return found


def own(found: Local) -> list[QA]:
    return [qa for qa in found.questions.used if not qa.id.startswith("uncovered")]


# ---------------------------------------------------------------------------------------- cutting

SENTENCES = st.lists(
    st.integers(1, 60).map(lambda n: " ".join(["word"] * n).capitalize() + "."), min_size=1, max_size=20
)


@given(paragraphs=st.lists(SENTENCES.map(" ".join), min_size=1, max_size=4))
def test_pieces_lose_nothing_and_end_with_a_sentence(paragraphs: list[str]) -> None:
    text = "\n\n".join(paragraphs)
    found = pieces(text)
    assert " ".join(piece for _, piece in found).split() == text.split()
    for offset, piece in found:
        assert text[offset:].startswith(piece)
        assert ends_sentence(piece)
    longest = max(num_words(sentence) for sentence in re.split(r"(?<=\.)\s+", text))
    assert all(num_words(piece) <= 80 + 12 + longest for _, piece in found)


def test_a_sentence_is_never_parted_however_long() -> None:
    long = "One " + "very " * 150 + "long sentence by Dr. Smith, e.g. this one."
    (clause,) = cut([section(long)]).clauses
    assert clause.text == long


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("It ends.", True),
        ('He said "go."', True),
        ("Ask Dr.", False),
        ("Use tools, e.g.", False),
        ("It goes on,", False),
        ("It goes on", False),
        ("它结束了。", True),
        ("Vitamin C.", False),  # one letter: an initial as well
    ],
)
def test_ends_of_sentences(text: str, whole: bool) -> None:
    assert ends_sentence(text) is whole


def test_chinese_is_counted_and_cut() -> None:
    assert num_words("员工每年有二十七天假") == 5
    text = "员工每年有二十七天带薪假期，申请须提前七周提交。" * 12
    assert all(num_words(piece) <= 100 and ends_sentence(piece) for _, piece in pieces(text))
    assert len(pieces(text)) > 1


def test_ids_do_not_depend_on_other_files() -> None:
    one = section("Text number one stands here.", title="Fees & dues")
    other = section("Some other text stands there.", title="Fees & dues", file="b.md")
    (alone,) = cut([one]).clauses
    assert alone.id == "a.md#fees-dues"
    assert cut([other, one]).clauses[1] == alone


def test_same_headings_and_row_ids_get_ids_of_their_own() -> None:
    parts = [
        section(f"Text number {n} stands here.", row_id=row_id) for n, row_id in enumerate(["", "", "R", "R"])
    ]
    found = cut(parts)
    ids = [clause.id for clause in found.clauses]
    assert ids == ["a.md#rules", "a.md#rules.2", "R", "a.md#rules.3"]
    assert [str(note) for note in found.notes] == [
        "a.md:1: its id 'R' is used in a.md too, so it is called 'a.md#rules'"
    ]


def test_what_is_cut_adds_up() -> None:
    found = cut(
        [section("Doors close at nine."), section("Doors close, at NINE!", title="Again"), section("Yes.")]
    )
    assert [clause.text for clause in found.clauses] == ["Doors close at nine."]
    ((left_out, kept),) = found.duplicates
    assert (left_out.title, kept.id) == ("Again", "a.md#rules")
    assert [clause.text for clause in found.too_short] == ["Yes."]


def test_a_sentence_without_end_is_named_and_left_out() -> None:
    found = cut([section("word " * 241), section("word " * 240, title="Just so")])
    assert [num_words(clause.text) for clause in found.too_long] == [241]
    assert [num_words(clause.text) for clause in found.clauses] == [240]


def test_near_duplicates_are_families_with_variants(tmp_path: Path) -> None:
    task = with_questions(tmp_path, []).task
    lisbon, cork, gates = (task.memory(i) for i in (LISBON, CORK, GATES))
    assert lisbon.family == cork.family != ""
    assert (lisbon.variant, cork.variant) == ("Lisbon", "Cork")
    assert gates.family == ""


# ------------------------------------------------------------------------------ questions by rule

CLAUSE = Clause(
    "x",
    "Permanent staff receive 27 days of paid holiday per year. Pay EUR 31.50 to Rui Matos by 15:35 on 4 May with "
    "code KH-204, or 5% more within seven days.",
    "Annual holiday",
    "f",
    1,
)


def test_facts_of_every_kind_are_found() -> None:
    assert [(fact.slot, fact.answer) for fact in facts(CLAUSE)] == [
        ("days", "27 days"),
        ("amount", "EUR 31.50"),
        ("name", "Rui Matos"),
        ("time", "15:35"),
        ("date", "4 May"),
        ("code", "KH-204"),
        ("percentage", "5%"),
        ("days2", "seven days"),
    ]


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("The share is 0.94 of all.", []),
        ("They asked 600 generated turns.", []),
        ("It takes 12 Nm and 3 km/h at 20 °C.", ["12 Nm", "3 km/h", "20 °C"]),
        ("Doors open at 9.30 am, ratio 16:9.", ["9.30 am"]),
    ],
)
def test_what_is_no_fact_is_not_asked_for(text: str, answers: list[str]) -> None:
    clause = Clause("x", text, "", "f", 1)
    assert [fact.answer for fact in facts(clause)] == answers


def test_a_folder_without_questions_gives_machine_made_ones(tmp_path: Path) -> None:
    found = read(str(write_all(tmp_path / "documents")))
    task = found.task
    assert task.machine_made
    assert "made by rule" in task.notes[0] and "made by rule" in task.description
    assert {memory_id for qa in task.held_out("test") for memory_id in qa.memory_ids} == {
        memory.id for memory in task.memories
    }
    assert not any(memory.cued for memory in task.memories)
    assert problems(task) == []
    assert [remark for remark in remarks(task) if "cued split stays empty" in remark]


def test_training_never_asks_a_machine_made_question(tmp_path: Path) -> None:
    """The methods' self-made training questions are worded otherwise."""
    task = load(str(write_all(tmp_path / "documents")))
    for memory in task.memories:
        trained = self_made_questions(memory, limit=99)
        for qa in task.questions:
            if qa.memory_ids == (memory.id,):
                assert not any(nearly_equal(qa.question, question) for question in trained), qa.id


def test_siblings_give_rivals_and_follow_ups(tmp_path: Path) -> None:
    task = load(str(write_all(tmp_path / "documents")))
    (amount,) = [qa for qa in task.questions if qa.memory_ids == (LISBON,) and qa.slot == "amount"]
    assert amount.rivals == ("27 euros",)
    assert task.follow_ups[f"{CORK}/amount"] == "And what about this: Cork?"


# --------------------------------------------------------------------------- questions by a person


def ask(question: str, answer: str = "", **more: Any) -> dict[str, Any]:
    return {"question": question, "answer": answer, **more}


def test_the_clause_is_found_by_id_quote_or_answer(tmp_path: Path) -> None:
    rows = [
        ask("What is paid for food in Lisbon?", "31 euros", clause=LISBON, aliases=["EUR 31"]),
        ask("Who takes receipts in Cork?", "Nora Daly", quote="claims go to NORA Daly, by the fifth"),
        ask("How long until the bell of the south rings?", "90 seconds"),
    ]
    found = with_questions(tmp_path, rows)
    assert [qa.memory_ids for qa in own(found)] == [(LISBON,), (CORK,), (GATES,)]
    assert own(found)[0].aliases == ("EUR 31",)
    assert own(found)[0].rivals == ("27 euros",)
    assert not found.task.machine_made and not found.task.notes
    assert found.questions.refused == []


def test_yes_or_no_need_not_stand_in_the_clause(tmp_path: Path) -> None:
    rows = [
        ask("Is anything filmed at the gate in the north, yes or no?", "yes", quote="north gate has a camera"),
        ask("May papers be thrown away after a year?", "no", clause=LISBON),
        ask("How much for food in Lisbon?", "31 euros", clause=LISBON),
    ]
    found = with_questions(tmp_path, rows)
    assert [(qa.answer, *qa.memory_ids) for qa in own(found)][:2] == [("yes", GATES), ("no", LISBON)]
    assert not any("no" in forms for forms in found.task.facts.values())  # "no more than" would deny another key


def test_training_rows_become_cues(tmp_path: Path) -> None:
    rows = [
        ask("Who closes the north gate?", "Ida Lund", split="train"),
        ask("In whose hands is the key of the southern entrance?", "Per Holm"),
        ask("May dogs come along?", split="train"),
    ]
    found = with_questions(tmp_path, rows)
    assert [cue.answer for cue in found.task.memory(GATES).cues] == ["Ida Lund"]
    assert "May dogs come along?" in [c.messages[0].content for c in found.task.sft if c.kind == "unanswerable"]
    assert [qa.answer for qa in found.task.held_out("test")] == ["Per Holm"]


def test_unanswerable_and_two_clause_rows(tmp_path: Path) -> None:
    rows = [
        ask("Which city pays more for meals?", "Lisbon", clause=f"{LISBON}|{CORK}"),
        ask("Is there a choir?"),
        ask("How long until the bell rings?", "90 seconds"),
    ]
    found = with_questions(tmp_path, rows)
    assert [qa.kind for qa in own(found)] == ["two_clause", "unanswerable", "single"]
    assert own(found)[0].memory_ids == (LISBON, CORK)
    assert own(found)[1].split == "test"
    assert any(c.kind == "unanswerable" for c in found.task.sft)


def test_enough_unanswerable_questions_of_a_person_replace_the_stock(tmp_path: Path) -> None:
    topics = (
        "a choir",
        "free parking",
        "any canteen",
        "some gym",
        "one sauna",
        "the pension",
        "our creche",
        "sick pay",
    )
    rows = [ask("How long until the bell rings?", "90 seconds")]
    rows += [ask(f"What about {topic} here?", split="test") for topic in topics]
    assert with_questions(tmp_path / "few", rows[:-1]).questions.num_stock > 20
    assert with_questions(tmp_path / "enough", rows).questions.num_stock == 0


def test_near_equal_questions_get_one_split(tmp_path: Path) -> None:
    rows = [ask(f"What is paid a day for meals in {site}?", a, clause=i) for site, a, i in (
        ("Lisbon", "31 euros", LISBON), ("Cork", "27 euros", CORK))]  # fmt: skip
    rows += [
        ask("When does the northern door shut?", "21:15"),
        ask("After what time is the southern way closed?", "18:40"),
        ask("How soon does it start to ring there?", "90 seconds"),
        ask("Whose pocket holds the first key?", "Ida Lund"),
    ]
    found = with_questions(tmp_path, rows)
    assert len({qa.split for qa in own(found)[:2]}) == 1
    assert {qa.split for qa in own(found)} == {"dev", "test"}


REFUSED = [
    (
        ask("Who?", "Rui Matos", clause="nowhere"),
        "names the clause 'nowhere', which is not there; the nearest one is",
    ),
    (ask("Who holds it?", "Ida Lund", clause=LISBON), "has the answer 'Ida Lund', which does not stand in"),
    (ask("Who holds it?", "Ida Lund", quote="no such words"), "quotes words that stand in no one clause"),
    (ask("Who holds it?", "Ida Lund", quote="of the office"), "quotes words that 2 clauses hold"),
    (ask("What is the value?", "Zanzibar"), "has no clause and no quote, and no clause holds its answer"),
    (ask("Does anything ring?", "yes"), "has the answer 'yes', no clause and no quote"),
    (ask("How long?", "day"), "has no clause and no quote, and 2 clauses hold its answer"),
    (ask("Is it 21:15 or later?", "21:15"), "holds its answer '21:15' in its own words"),
    (
        ask("How much a day for meals do Lisbon staff receive?"),
        "has no answer, and handbook.md#meal-allowance-lisbon",
    ),
    (ask("How much?", quote="31 euros"), "names a clause or a quote and no answer"),
    (ask("How much?", "31 euros", split="exam"), "names the split 'exam'; use train, dev or test"),
    (ask("How much?", "31 euros", clause=[LISBON, CORK, GATES]), "names 3 clauses; name one or two"),
    (ask("How much?", "31", clause=[LISBON, CORK], split="train"), "is a training question on two clauses"),
    ({"answer": "31 euros"}, "has no 'question'"),
]


@pytest.mark.parametrize(("row", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_row_that_cannot_be_used_is_refused_with_its_line(
    tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    good = ask("Who takes the receipts?", "Nora Daly")
    found = with_questions(tmp_path, [good, row])
    assert [qa.answer for qa in own(found)] == ["Nora Daly"]
    (problem,) = (*found.questions.refused, *found.questions.notes)
    assert str(problem).startswith(f"questions.jsonl:2: {said}")


def test_leaks_and_repeats_are_refused(tmp_path: Path) -> None:
    rows = [
        ask("Who takes the receipts in the Cork office?", "Nora Daly", split="train"),
        ask("Who takes the receipts in the Cork office", "Nora Daly", split="test"),
        ask("Until when is the north gate open?", "21:15", id="q"),
        ask("Until when is the north gate open today?", "21:15"),
        ask("Whom do I give my Lisbon papers?", "Rui Matos", id="q"),
    ]
    found = with_questions(tmp_path, rows)
    assert [str(p) for p in found.questions.refused] == [
        "questions.jsonl:2: is nearly the train question of line 1; word it differently",
        "questions.jsonl:4: is nearly the test question of line 3; word it differently",
        "questions.jsonl:5: repeats the id 'q' of line 3; give each row its own",
    ]


def test_a_csv_of_questions(tmp_path: Path) -> None:
    (tmp_path / "handbook.md").write_text(MARKDOWN, encoding="utf-8")
    with (tmp_path / "questions.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerows([
            ["Question", "Answer", "Aliases", "Quote"],
            ["How much for food in Lisbon, then?", "31 euros", "EUR 31|thirty-one euros", "31 euros a day"],
        ])  # fmt: skip
    (qa,) = own(read(str(tmp_path)))
    assert qa.aliases == ("EUR 31", "thirty-one euros")
    assert qa.memory_ids == (LISBON,)


def test_a_csv_with_wrong_columns_is_named(tmp_path: Path) -> None:
    (tmp_path / "handbook.md").write_text(MARKDOWN, encoding="utf-8")
    (tmp_path / "questions.csv").write_text("frage,antwort\na,b\n", encoding="utf-8")
    found = read(str(tmp_path))
    assert str(found.questions.refused[0]).startswith(
        "questions.csv:1: has the columns 'frage', 'antwort' and none called 'question'"
    )
    with pytest.raises(TaskError, match="no test question is left"):
        load(str(tmp_path))


def test_two_question_files_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "questions.csv").write_text("question\n", encoding="utf-8")
    found = with_questions(tmp_path, [])
    assert [str(p) for p in found.folder.skipped] == [
        "questions.csv: is not read, since questions.jsonl is there; keep one of the two"
    ]
    assert len(found.folder.files) == len(found.folder.documents) + len(found.folder.skipped) + 1


# ----------------------------------------------------------------------------------------- loading


def test_a_slice_takes_clauses_with_questions_first(tmp_path: Path) -> None:
    with_questions(tmp_path, [ask("How long until the bell rings?", "90 seconds")])
    for seed in range(4):
        assert [m.id for m in load(str(tmp_path), num_clauses=1, seed=seed).memories] == [GATES]


def test_a_small_folder_gives_all_it_has(tmp_path: Path) -> None:
    path = str(write_all(tmp_path / "documents"))
    assert load(path, num_clauses=500) == load(path)


def test_the_stock_is_left_out_where_the_documents_speak_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Boats\n\nThe lighthouse keeper's rowing boat is painted in 3 colours.\n")
    asked = [qa.question for qa in load(str(tmp_path)).questions if qa.kind == "unanswerable"]
    assert asked
    assert not any("lighthouse" in question for question in asked)


def test_the_version_follows_the_content(tmp_path: Path) -> None:
    path = write_all(tmp_path / "documents")
    before = read(str(path)).task.version
    (path / "notes.xyz").write_text("not read")
    assert read(str(path)).task.version == before
    (path / "rules.jsonl").write_text('{"text": "Glass is collected every 4 weeks by Rolf Stein."}')
    assert read(str(path)).task.version != before


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no clause was found"),
        ({"a.xyz": "x"}, "no clause was found"),
        ({"a.md": "Be kind to all."}, "no test"),
    ],
)
def test_a_folder_that_gives_nothing_is_one_sentence(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(TaskError, match=f"path={tmp_path}: {said}.*tasks.check path="):
        load(str(tmp_path))


def test_no_path_is_one_sentence() -> None:
    with pytest.raises(TaskError, match="task=local needs path="):
        load()
