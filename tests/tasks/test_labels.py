"""A key with a label is its value; the label counts where it tells one value from another."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.scoring import exact_match, is_correct, token_f1
from tasks import local
from tasks.base import QA
from tasks.conflicts import Conflicts
from tasks.documents.cutting import cut
from tasks.documents.folder import read_folder
from tasks.keys import key_problems, with_own_clause
from tasks.labels import gives_away, labelled_in, parted, stated

CLIENTS = "How many clients may connect?"
LABELS = ("Default", "Deadline", "Notice period", "Price", "Time limit")


def key(answer: str, question: str, clause: str = "", rivals: tuple[str, ...] = ()) -> QA:
    qa = QA("q1", question, answer, ("c1",), rivals=rivals)
    return with_own_clause(qa, clause, []) if clause else qa


@pytest.mark.parametrize(
    ("qa", "right", "wrong"),
    [
        (
            key("Default: 100.", CLIENTS),
            (
                "100",
                "The default is 100.",
                "It defaults to 100",
                "100 by default",
                "By default, 100 clients may connect.",
                "max_client_conn defaults to 100.",
                "Default: 100",
                "**Default:** 100",
                "Default = 100",
                "Final answer: 100",
                "The default is not 200 but 100.",
            ),
            (
                "200",
                "The default is 200",
                "Default: 1000",
                "The default is not 100",
                "Was the default 100?",
                "Maximum: 100",
                "The maximum is 100.",
                "100 is the maximum",
                "Default: 200. Maximum: 100",
                "The default is 200 and 100 the maximum",
                "The default was raised from 100 to 200.",
                "Porto: 100",
                "100 or 200",
                "",
            ),
        ),
        (
            key("Default: `secure`", "What is the default of client_tls_protocols?"),
            ("secure", "It defaults to secure.", "secure by default", "Default: secure"),
            ("legacy", "Default: legacy", "Default: legacy. Shortcut: secure", "The default is not secure"),
        ),
        (  # the question does not name the label, and a word alone may be another thing
            key("Default: secure", "Which TLS versions are on if I set nothing?"),
            ("The default is secure.", "It defaults to secure", "Default: secure"),
            ("legacy", "It should be secure.", "Defaults are not secure"),
        ),
        (
            key("Mission: Impossible", "Which film is shown on Friday?"),
            ("Mission: Impossible", "They show Mission: Impossible."),
            ("Impossible", "It is impossible.", "Mission: Possible"),
        ),
        (  # the name is what is asked for
            key("pool_size: 20", "What do I write into the file for a bigger pool?"),
            ("pool_size: 20", "pool_size = 20", "Set pool_size to 20."),
            ("20", "timeout: 20", "Set timeout to 20"),
        ),
        (
            key("pool_mode = session", "What is pool_mode by default?"),
            ("session", "pool_mode = session"),
            ("transaction", "pool_mode = transaction"),
        ),
        (
            key("Minimum: 5", "How many tickets do I have to buy?", "Minimum: 5. Advance: 10."),
            ("5", "Minimum: 5", "The minimum is 5", "5 tickets"),
            ("10", "The advance is 5", "Advance: 5", "at most 5", "Minimum: 5. Advance: 10."),
        ),
        (
            key("Porto: 40 euros", "How much is a meal in Porto?", "Porto: 40 euros. Lisbon: 31 euros."),
            ("40 euros", "€40", "In Porto it is 40 euros.", "Porto: EUR 40"),
            ("31 euros", "Lisbon: 40 euros", "In Lisbon it is 40 euros", "Porto: 31 euros. Lisbon: 40 euros"),
        ),
        (
            key("Default: 100", CLIENTS, rivals=("Maximum: 100", "Default: 500")),
            ("100", "The default is 100."),
            ("500", "Maximum: 100", "100, and 500 with a patch", "Default: 500"),
        ),
        (
            key("Wi-Fi included: yes", "Do I get internet in the room?"),
            ("Yes.", "Wi-Fi included: yes", "Yes, it is included."),
            ("No.", "Wi-Fi included: no", "It is not included."),
        ),
        (
            key("Default: no", "Is round robin on by default?"),
            ("No.", "Default: no", "By default, no.", "It is not on by default."),
            ("Yes", "Default: yes", "It is on."),
        ),
        (
            key("Allowed values: red, green and blue", "Which values are allowed?"),
            ("red, blue and green", "Allowed values: blue, green, red"),
            ("red", "red and green"),
        ),
        (
            key("默认值：100。", "默认值是多少？"),
            ("100", "默认值是100", "默认为100。", "默认值：100"),
            ("200", "默认值：200", "最大值：100", "最大值是100", "不是100"),
        ),
    ],
    ids=lambda value: value.answer if isinstance(value, QA) else "",
)
def test_a_labelled_key_is_its_value(qa: QA, right: tuple[str, ...], wrong: tuple[str, ...]) -> None:
    assert key_problems(qa) == []
    assert [answer for answer in right if not is_correct(answer, qa)] == []
    assert [answer for answer in wrong if is_correct(answer, qa)] == []


@given(
    st.sampled_from(LABELS), st.integers(2, 5000), st.integers(2, 5000), st.sampled_from(["", " days", " euros"])
)
def test_whatever_the_label_and_the_value(label: str, number: int, other: int, unit: str) -> None:
    qa, low = key(f"{label}: {number}{unit}.", "How much is it?"), label.lower()
    for answer in (
        "{}{}",
        "It is {}{}.",
        f"The {low} is {{}}{{}}.",
        f"{label}: {{}}{{}}",
        f"{{}}{{}} is the {low}",
    ):
        assert is_correct(answer.format(number, unit), qa), answer
        assert is_correct(answer.format(other, unit), qa) is (other == number), answer
    for denied in (f"The {low} is not {number}{unit}.", f"Weight: {number}{unit}", f"at most {number}{unit}"):
        assert not is_correct(denied, qa), denied


@given(
    st.integers(2, 5000), st.sampled_from(["100", "It is 100.", "The limit is 100", "Answer: 100", "100 people"])
)
def test_a_key_without_a_label_is_met_by_what_meets_the_labelled_one(number: int, answer: str) -> None:
    answer = answer.replace("100", str(number))
    asked = "What is the default?"
    assert is_correct(answer, key(str(number), asked))
    assert "limit" in answer or is_correct(answer, key(f"Default: {number}", asked))


@pytest.mark.parametrize(
    ("form", "parts"),
    [
        ("Default: 100.", ("Default", ":", "100.")),
        ("**Default:** 100", ("Default", ":", "100")),
        ("[seconds] Default: 60.0", ("Default", ":", "60.0")),
        ("pool_mode=session", ("pool_mode", "=", "session")),
        ("默认值：100", ("默认值", "：", "100")),
        ("9:30", None),
        ("https://example.org: the page", None),
        ("image:tag", None),
        ("Yes: with a permit", None),
        ("K32: the form", None),
        ("Monday: closed", None),
        ("Minimum: 1, maximum: 5", None),
        ("Default:", None),
        ("100", None),
    ],
)
def test_what_is_a_label(form: str, parts: tuple[str, str, str] | None) -> None:
    assert parted(form) == parts


def test_a_value_is_stated_without_its_label_where_the_question_names_it() -> None:
    assert stated("Default: secure", "What is the default?") == "secure"
    assert stated("Default: secure", "What is set?") == "Default: secure"
    assert stated("Default: 100", "What is set?") == "100"
    assert stated("secure", "What is the default?") == "secure"


def test_exact_match_and_f1_take_the_value() -> None:
    qa = key("Default: 100.", CLIENTS)
    assert exact_match("100", qa) == exact_match("Default: 100", qa) == token_f1("100", qa) == 1.0
    assert exact_match("It is 100", qa) == exact_match("200", qa) == 0.0


def test_the_labelled_sentences_of_a_clause() -> None:
    text = (
        "Number of clients. [seconds] Default: 60.0. Allowed values: `a` (b), c. See http://x: it. Default: `/tmp`"
    )
    assert list(labelled_in(text)) == ["Default: 60.0", "Allowed values: `a` (b), c", "Default: `/tmp`"]


@pytest.mark.parametrize(
    ("value", "question", "given"),
    [
        ("Default: 100", "Is the default 100?", True),
        ("Default: 100", "Is 100 the default?", True),
        ("Default: 100", "What is the default?", False),
        ("[databases]", "Which section caps a single database?", False),
        ("[databases]", "What does the [databases] section hold?", True),
        ("[databases]", "What does the databases section hold?", True),
        ("the [users] section", "In which section goes one user?", False),
        ("`sockets`", "Which word stands for a socket?", False),
        ("`sockets`", "What are `sockets`?", True),
        ("--users", "Which option adds a user?", False),
        ("--users", "What does --users do?", True),
        ("--user", "What does --user-list do?", False),
        ("--user-list", "What does --user-list do?", True),
        ("`pool-size`", "What does `pool-size-max` cap?", False),
        ("/tmp", "Is it in /var/tmp?", False),
        ("/tmp", "What lies in /tmp?", True),
        ("pool_size", "Is default_pool_size another one?", False),
        ("pool_size", "What does pool_size do?", True),
        ("auth_user", "Is there one for auth_users?", False),
        ("KILL", "Which command kills every connection?", False),
        ("KILL", "When do I use KILL?", True),
        ("PDF", "Are PDFs taken?", True),
        ("database", "How many databases are there?", True),  # a plain word is inflected
        ("databases", "Is it the database?", True),
        ("7 days", "Is it a week?", True),
        ("K32", "Is it form K-32?", True),
    ],
)
def test_a_question_gives_its_answer_away_as_it_is_written(value: str, question: str, given: bool) -> None:
    assert gives_away(question, value) is given


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        ("[databases]", ("[databases]", "In the databases section", "`databases`"), ("You set it per database.",)),
        ("KILL", ("KILL", "Use KILL.", "kill"), ("RECONNECT kills the connections.",)),
        ("auth_user", ("auth_user", "The `auth_user` option", "auth user"), ("auth_users", "auth_user_file")),
        ("/tmp", ("/tmp", "In /tmp."), ("/tmp/files", "/var/tmp")),
        ("PDF", ("PDF", "PDFs", "pdf"), ("TXT",)),
        ("sockets", ("sockets", "a socket"), ("files",)),
    ],
)
def test_code_is_the_same_word_to_the_scorer_too(
    answer: str, right: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    qa = key(answer, "Which one?")
    assert [said for said in right if not is_correct(said, qa)] == []
    assert [said for said in wrong if is_correct(said, qa)] == []


def test_a_row_is_refused_for_the_code_itself_alone(tmp_path: Path) -> None:
    text = (
        "# Caps\n\nA cap on connections can be set for each database in the `[databases]` section. Default: 40.\n"
    )
    (tmp_path / "caps.md").write_text(text, encoding="utf-8")
    rows = (
        "In which section is a cap set for one database?,[databases]",
        "What can I set in the [databases] section?,[databases]",
        "How many connections are there if I set nothing?,Default: 40.",
        "Is 40 what I get if nobody has set any cap?,Default: 40.",
    )
    (tmp_path / "questions.csv").write_text("\n".join(("question,answer", *rows)), encoding="utf-8")
    drawn = local.read(str(tmp_path), num_train=9, num_heldout=9).questions
    assert [qa.answer for qa in drawn.used if qa.memory_ids] == ["[databases]", "Default: 40."]
    assert [problem.place for problem in drawn.refused] == [3, 5]
    assert all("in its own words" in str(problem) for problem in drawn.refused)


def test_two_clauses_with_another_value_under_one_label_conflict(tmp_path: Path) -> None:
    for name, number in (("a", 20), ("b", 40)):
        text = f"# Pool\n\nHow many connections are allowed to a user and database. Default: {number}\n"
        (tmp_path / f"{name}.md").write_text(text, encoding="utf-8")
    clauses = cut(read_folder(tmp_path).sections).clauses
    found = [
        Conflicts(clauses).against(clauses[0], "What is the default?", (form,)) for form in ("20", "Default: 20")
    ]
    assert found[0] is not None and found[0] == found[1]
