"""Normalisation and the rules of *correct*, against cases worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_cases import assert_one_value, assert_scored_as_meant, qa

from eval.scoring import (
    ScoringError,
    abstains,
    exact_match,
    held_values,
    is_abstention,
    is_correct,
    normalise,
    recites,
    spans,
    token_f1,
    verbatim,
)
from tasks.base import NO_CLAUSE_ANSWER, QA
from tasks.registry import load_task

SAME = [
    ("EUR 1,500", "1500 euros", "€1,500.00", "one thousand five hundred euros", "€1.5k", "1\u202f500 euro"),
    ("$40 a day", "40 dollars per day", "40 USD/day", "US$40 each day", "forty dollars daily"),
    ("£2.5 million", "2,500,000 pounds", "GBP 2.5m"),
    ("25%", "25 %", "twenty-five percent", "25 per cent"),
    ("5:30 p.m.", "17:30", "5.30pm"),
    ("9 am", "09:00", "9:00", "9am"),
    ("12 noon", "noon", "12:00"),
    ("1 March", "March 1st", "the first of March", "Mar 1"),
    ("2024-05-01", "1 May 2024", "May 1st, 2024"),
    ("two and a half days", "2.5 days", "2½ days"),
    ("half an hour", "half-hour", "0.5 hours"),
    ("a week", "one week", "1 week", "1 wk"),
    ("twice a year", "two times per year", "2 times each year", "twice yearly"),
    ("30-day", "30 days", "thirty days", "the 30 days"),
    ("10-15 days", "10 to 15 days", "ten to fifteen days", "10–15 days"),
    ("-5°C", "minus 5 degrees Celsius", "−5 °C"),
    ("10km", "ten kilometres", "10 kilometers"),
    ("a hundred and five guests", "105 guests", "105 guest"),
    ("the manager's approval", "Manager approval"),
    ("two dozen", "24"),
    ("seventh", "7th"),
    ("100,000", "one hundred thousand", "100k"),
    ("six weeks' notice", "6 weeks notice"),
    ("1'500", "1500"),
    ("1 hr 30 mins", "1 hour and 30 minutes".replace(" and", "")),
]


@pytest.mark.parametrize("forms", SAME, ids=lambda forms: forms[0])
def test_forms_of_one_value_are_one_value(forms: tuple[str, ...]) -> None:
    assert_one_value(forms)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The limit is $1,200.50.", "limit is 1200.5 dollar"),
        ("Form HR-204", "form hr204"),  # "hr" is an hour only behind a number
        ("ten, twenty", "10 20"),  # two numbers, not thirty
        ("five hundred two", "502"),
        ("section 4.2.1", "section 4.2.1"),
        ("07700 900123", "07700 900123"),
        ("within 30 seconds", "within 30 second"),
        ("at least five", "≥5"),
        ("", ""),
    ],
)
def test_normalised_by_hand(text: str, tokens: str) -> None:
    assert normalise(text) == tokens


@given(st.text(max_size=60))
def test_any_text_can_be_normalised_and_abstention_decided(text: str) -> None:
    assert isinstance(normalise(text), str)
    assert isinstance(is_abstention(text), bool)


@given(st.integers(0, 10**9))
def test_thousands_separators_never_matter(number: int) -> None:
    assert normalise(f"{number:,}") == normalise(str(number)) == str(number)


def test_key_is_bounded_by_tokens() -> None:
    key = qa("40 euros")
    assert is_correct("You may spend EUR 40 a day.", key)
    assert is_correct("40€", key)
    for final in ("140 euros", "40.5 euros", "400 euros", "40", "40 dollars", ""):
        assert not is_correct(final, key), final
    assert is_correct("forty of them", qa("x", aliases=("40",)))


def test_a_figure_that_is_part_of_a_larger_value_does_not_count() -> None:
    assert spans("30 days", "20 to 30 days") == []
    assert spans("30 days", "20-30 days") == []
    assert spans("30 days", "between 20 and 30 days") == []
    assert spans("20 minutes", "1 hour and 20 minutes") == []
    assert spans("1 hour", "1 hour 20 minutes") == []
    assert spans("5 euros", "minus 5 euros") == []
    assert spans("20 to 30 days", "from 20 to 30 days") == [(0, 1)]
    assert spans("30 days", "up to 30 days") == [(0, 1)]
    assert spans("30 days", "20 days and 30 days") == [(2, 3)]
    assert spans("2 days", "2 days at 40 euros") == [(0, 1)]


def test_a_rival_makes_the_answer_wrong() -> None:
    key = qa("10 working days", rivals=("15 working days", "10"))
    assert is_correct("It takes 10 working days.", key)  # "10" lies inside the key
    assert not is_correct("10 working days, or 15 working days by post.", key)
    assert not is_correct("10 working days for 10 people", key)  # the second 10 stands alone
    assert held_values("15 working days", key) == (False, ("15 working days",))
    # A rival that holds the key is one, since it is not inside the key's span.
    assert not is_correct("2 days plus travel", qa("2 days", rivals=("2 days plus travel",)))
    # Inside an alias it does not count either.
    assert is_correct("the Heron form", qa("Heron", aliases=("Heron form",), rivals=("form",)))


def test_unanswerable_means_to_abstain() -> None:
    unanswerable = qa("", rivals=("40 euros",), ids=())
    assert is_correct("The handbook does not say.", unanswerable)
    assert not is_correct("It is 30 euros.", unanswerable)
    assert not is_correct("The handbook does not say, but Porto has 40 euros.", unanswerable)
    assert not is_correct("", unanswerable)
    assert not is_correct("The handbook does not say. Perhaps 40 euros.", qa("40 euros"))
    assert exact_match("I don't know.", unanswerable) == token_f1("I don't know.", unanswerable) == 1.0


def test_a_key_that_reads_like_an_abstention_is_an_answer() -> None:
    assert is_correct("Taxis are not covered by the policy.", qa("not covered"))


def test_an_answer_with_the_key_abstains_only_in_plain_words() -> None:
    key = qa("no")
    assert is_correct("No, the policy does not cover contractors.", key)
    assert not abstains("No, the policy does not cover contractors.", key)
    assert is_abstention("The policy does not cover contractors.")
    assert not is_correct("No idea, I do not know.", key)
    assert not is_correct("No, the handbook does not say.", key)


def test_a_denied_value_is_not_held() -> None:
    key = qa("40 euros", rivals=("50 euros",))
    assert is_correct("It is 40 euros, not 50 euros.", key)
    assert is_correct("40 euros rather than 50 euros", key)
    assert is_correct("It isn't 50 euros but 40 euros.", key)
    assert not is_correct("It is not 40 euros.", key)
    assert not is_correct("50 euros instead of 40 euros", key)
    assert not is_correct("40 euros, not only 50 euros", key)
    assert is_correct("You must not exceed 40 euros.", key)
    assert not is_correct("That is not required.", qa("required"))
    assert is_correct("That is not required.", qa("not required"))


@pytest.mark.parametrize(
    "text",
    [
        "The handbook does not say.",
        "The handbook doesn't say anything about parking.",
        "This is not covered.",
        "That isn't specified in the handbook.",
        "There is no clause about that.",
        "No clause covers this question.",
        "I don't know.",
        "I do not know the answer to that.",
        "I cannot find that in the rules.",
        "I’m not sure.",
        "Not mentioned in the manual.",
        "The policy is silent on this.",
        "It cannot be determined from the handbook.",
        "I have no information about that.",
        "Parking is not covered.",
        "The rules do not specify a limit for 2024.",
        "Unknown.",
        "The clauses give no such rule.",
        "No parking fee is mentioned in the handbook.",
        "Nothing about parking is said.",
        "There is nothing in the handbook about parking.",
        "The handbook has nothing on that.",
        "The handbook leaves this open.",
        "We are not told.",
    ],
)
def test_abstentions(text: str) -> None:
    assert is_abstention(text)


@pytest.mark.parametrize(
    "text",
    [
        "40 euros.",
        "40 euros a day; alcohol is not covered.",
        "Receipts are not required.",
        "No, employees do not need approval.",
        "You must not travel first class.",
        "Ask the line manager.",
        "It is known as the Heron form.",
        "",
        "40 euros. The handbook does not say more.",
        "It is stored for 40 days and no information is passed on.",
        "No person is mentioned by name on the badge: 3 days.",
        "Nothing on the table may be touched for 5 days.",
    ],
)
def test_answers_that_only_sound_like_abstentions(text: str) -> None:
    assert not is_abstention(text)


def test_exact_match_and_f1_by_hand() -> None:
    key = qa("40 euros", aliases=("forty",))
    assert exact_match("The 40 euros.", key) == exact_match("forty", key) == 1.0
    assert exact_match("It is 40 euros", key) == 0.0
    # {it, is, 40, euro} against {40, euro}: precision 2/4, recall 2/2, F1 = 2 * 2 / (4 + 2)
    assert token_f1("It is 40 euros", key) == pytest.approx(2 / 3)
    assert token_f1("forty", key) == 1.0
    assert token_f1("nothing", key) == 0.0


def test_broken_keys_are_named() -> None:
    with pytest.raises(ScoringError, match=r"'q1'.*exactly the unanswerable"):
        is_correct("x", QA("q1", "?", "40", (), kind="single"))
    with pytest.raises(ScoringError, match=r"'q1'.*nothing is left"):
        is_correct("x", qa("!?"))


def test_verbatim_is_character_by_character_but_for_whitespace() -> None:
    assert verbatim("  Staff may\nspend 40. ", "Staff may spend  40.")
    assert not verbatim("Staff may spend 40", "Staff may spend 40.")
    assert not verbatim("staff may spend 40.", "Staff may spend 40.")
    assert not verbatim("", "Staff may spend 40.")
    assert recites("So: Staff may spend\n40. Thus 40.", "Staff may spend 40.")
    for empty in ("", " \n"):
        for score in (verbatim, recites):
            with pytest.raises(ScoringError, match="memory has no text"):
                score("anything", empty)


@pytest.mark.parametrize("name", ["regs", "manual"])
def test_a_packaged_task_is_scored_as_its_authors_mean_it(name: str) -> None:
    assert_scored_as_meant(load_task(name), "It is {}.")
    assert is_abstention(NO_CLAUSE_ANSWER)
