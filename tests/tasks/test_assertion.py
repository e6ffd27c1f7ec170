"""Whether an answer says yes or no: by what it asserts, not by words that say how, when or which."""

from __future__ import annotations

from itertools import product

import pytest

from tasks.assertion import answer_says
from tasks.base import QA
from tasks.keys import is_correct

LINKS = ("as", "if", "when", "whenever", "where", "wherever", "unless", "once", "until")
FITS = ("needed", "required", "necessary", "possible", "allowed", "permitted", "appropriate", "otherwise required")
PETS = "Are pets allowed?"


@pytest.mark.parametrize(("link", "fit"), product(LINKS, FITS))
def test_as_needed_is_no_answer_and_changes_none(link: str, fit: str) -> None:
    aside = f"{link} {fit}"
    for said in (f"Restart {aside}.", f"{aside.capitalize()}.", f"Restart it {link} it is {fit}"):
        assert answer_says(said) is None, said
    for said in (f"Yes, {aside}.", f"It may be restarted {aside}.", f"Restarting is allowed {aside}."):
        assert answer_says(said) is True, said
    for said in (f"No, not {aside}.", f"It must not be restarted {aside}.", f"Never {aside}"):
        assert answer_says(said) is False, said


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("Restart as soon as possible.", None),
        ("Use as much as needed.", None),
        ("Take whatever is needed.", None),
        ("Repair as may be necessary.", None),
        ("Ask as many as you can.", None),
        ("Follow the required steps.", None),
        ("According to your needs.", None),
        ("Ask the manager if you are unsure.", None),
        ("Call us when there are problems.", None),
        ("It depends on whether it is needed.", None),
        ("Do it where possible.", None),
        ("根据需要重启。", None),
        ("需要时重启。", None),
        ("如有需要，请重启。", None),
        ("Needed.", True),
        ("Required.", True),
        ("Form K32 needed.", True),
        ("Needed only if it is lost.", True),
        ("You need the required form.", True),
        ("The required form is needed.", True),
        ("You may park if there is space.", True),
        ("You may park unless it is forbidden.", True),
        ("You may enter unless you are told not to.", True),
        ("It is permitted where not prohibited.", True),
        ("Entries when the boiler is on must be logged.", True),
        ("Only if it is approved.", True),
        ("Staff as well as guests may park.", True),
        ("They do.", True),
        ("需要。", True),
        ("需要时间审批。", True),
        ("可以，必要时重启。", True),
        ("Not needed.", False),
        ("It is not needed.", False),
        ("The required form is not needed.", False),
        ("Not longer than allowed.", False),
        ("You may not park if it is full.", False),
        ("Working when ill is not allowed.", False),
        ("不需要。", False),
    ],
)
def test_the_main_clause_decides(answer: str, says: bool | None) -> None:
    assert answer_says(answer) is says


@pytest.mark.parametrize(
    ("answer", "question", "says"),
    [
        ("Unfortunately, no.", PETS, False),
        ("In principle, yes.", PETS, True),
        ("By default, no.", PETS, False),
        ("The default is no.", PETS, False),
        ("Allowed: no", PETS, False),
        ("Pets: yes", PETS, True),
        ("Pets allowed: no.", PETS, False),
        ("Cats are allowed, yes.", PETS, True),
        ("Smoking allowed: no", PETS, None),  # of something else
        ("Smoking: no", PETS, None),
        ("For guests, no.", "May staff bring pets?", None),
        ("Pets: yes, smoking: no", PETS, None),
        ("Forbidden: yes", PETS, None),
        ("Italy: yes", "Is it open in Spain?", None),
        ("Pets: yes or no", PETS, None),
    ],
)
def test_a_yes_or_no_that_stands_alone(answer: str, question: str, says: bool | None) -> None:
    assert answer_says(answer, question) is says


def test_as_needed_is_right_to_no_question_but_its_own() -> None:
    for key in ("yes", "no"):
        assert not is_correct("Restart as needed.", QA("q", "May I restart it?", key, ("c",)))
    assert is_correct("They come as needed.", QA("q", "On what schedule do they come?", "as needed", ("c",)))


@pytest.mark.parametrize(
    ("question", "answer", "says"),
    [
        ("Are dogs allowed in the office?", "Dogs are animals.", None),
        ("May I bring dogs?", "There are many rules about dogs.", None),
        ("Is there a canteen?", "There is a canteen on the second floor.", True),
        ("Is the office open on Sundays?", "The office is open on Sunday.", True),
        ("Is a receipt needed?", "A receipt is mandatory.", True),
        ("Are dogs allowed in the office?", "Dogs may come in.", True),
        ("Are dogs allowed in the office?", "They are, provided that they are on a lead.", True),
        ("Are dogs allowed in the office?", "Dogs are not forbidden.", True),
        ("Are dogs allowed in the office?", "There is nothing against it.", True),
        ("Are dogs allowed in the office?", "Y", True),
        ("Are dogs allowed in the office?", "Dogs are allowed nowhere.", False),
        ("Are dogs allowed in the office?", "It is illegal.", False),
        ("Are dogs allowed in the office?", "That is against the rules.", False),
        ("Are dogs allowed in the office?", "Without exception, no.", False),
        ("Is the pool open on Sundays?", "The pool is closed on Sundays.", None),
    ],
)
def test_a_statement_says_yes_where_it_says_what_was_asked(question: str, answer: str, says: bool | None) -> None:
    assert answer_says(answer, question) is says
