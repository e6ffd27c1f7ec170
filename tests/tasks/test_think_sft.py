"""The general corpus: its form, that its answers are right, and that nothing held out is trained on.

Answers are worked out again here from a problem's form by other means than the corpus uses, and the
form is held against the words of the question.
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import Conversation, TaskError
from tasks.think_problems import MAKERS, UNITS, Problem, unknowns
from tasks.think_sft import (
    FILLER_TOPICS,
    TOPICS,
    draw_problems,
    filler_exchanges,
    further_conversations,
    general_conversations,
    small_talk,
)

TRAIN, HELDOUT = general_conversations()
EVERY = (*TRAIN, *HELDOUT)
CONTENT = re.compile(r"<think>\n([^\n]+)\n</think>\n([^\n]+)")


def first(conversation: Conversation) -> str:
    return conversation.messages[0].content


# --- form -----------------------------------------------------------------------------------------


def test_the_numbers_asked_for_are_drawn() -> None:
    assert (len(TRAIN), len(HELDOUT)) == (600, 120)
    assert {c.topic for c in TRAIN} == {c.topic for c in HELDOUT} == set(TOPICS)
    assert len({c.id for c in EVERY}) == len(EVERY)
    assert all(c.kind == "general" for c in EVERY)


def test_every_reply_has_a_short_chain_and_a_short_answer() -> None:
    for conversation in EVERY:
        roles = [m.role for m in conversation.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        for message in conversation.messages[1::2]:
            match = CONTENT.fullmatch(message.content)
            assert match is not None, message.content
            chain, answer = match.groups()
            assert 10 <= len(chain.split()) <= 40, chain
            sentences = re.split(r"(?<=[.?!])\s+", chain)
            assert 1 <= len(sentences) <= 3, chain
            assert 1 <= len(answer.split()) <= 15, answer


def test_conversations_are_short() -> None:
    def words(conversation: Conversation) -> int:
        return sum(len(m.content.split()) for m in conversation.messages)

    lengths = [words(c) for c in EVERY if c.topic != "reading"]
    assert sorted(lengths)[len(lengths) * 9 // 10] <= 60  # words; about 80 tokens
    assert all(words(c) <= 220 for c in EVERY if c.topic == "reading")
    assert 5 <= sum(len(c.messages) > 2 for c in EVERY) <= 40


def test_nothing_comes_twice() -> None:
    questions = [" ".join(re.findall(r"[\w%+/.-]+", first(c).lower())) for c in EVERY]
    assert len(questions) == len(set(questions))


def test_phrasing_varies() -> None:
    """No opening of three words holds more than a twentieth of the corpus."""
    openings = [" ".join(first(c).split()[:3]) for c in EVERY]
    assert max(openings.count(opening) for opening in set(openings)) <= len(EVERY) / 20


def test_small_talk_is_hand_written_and_varied() -> None:
    talk = small_talk()
    assert len(talk) >= 40
    assert len({exchanges[0][0] for exchanges in talk}) == len(talk)
    assert len({chain for exchanges in talk for _, chain, _ in exchanges}) == sum(map(len, talk))
    assert any(len(exchanges) == 2 for exchanges in talk)


# --- answers --------------------------------------------------------------------------------------

JAN_1 = datetime.date(2023, 1, 1)  # 2023 is no leap year and begins on a Sunday
PLURAL = {
    "child": "children", "mouse": "mice", "knife": "knives", "leaf": "leaves", "tooth": "teeth", "foot":
    "feet", "woman": "women", "goose": "geese", "wolf": "wolves", "shelf": "shelves",
}  # fmt: skip
PAST = {
    "go": "went", "see": "saw", "buy": "bought", "write": "wrote", "take": "took", "run": "ran", "eat": "ate",
    "bring": "brought", "sing": "sang", "teach": "taught", "drive": "drove", "find": "found", "keep": "kept",
    "swim": "swam", "begin": "began", "fly": "flew",
}  # fmt: skip
WORD_LIST = {
    "receive", "separate", "definitely", "tomorrow", "because", "which", "friend", "believe", "until",
    "address", "calendar", "beginning", "government", "library", "necessary", "occurred", "weird", "surprise",
    "business", "environment", "grammar", "knowledge", "possible",
}  # fmt: skip
IN_SMALLEST = {
    "metres": 1000, "centimetres": 10, "millimetres": 1, "kilometres": 1_000_000, "tonnes": 1_000_000,
    "kilograms": 1000, "grams": 1, "litres": 1000, "millilitres": 1, "hours": 3600, "minutes": 60, "seconds":
    1, "days": 86400, "weeks": 604800, "years": 12, "months": 1, "feet": 12, "inches": 1, "euros": 100,
    "cents": 1,
}  # fmt: skip
MORE = ("heavier", "longer", "taller", "more expensive", "larger")


def date_of(text: str) -> datetime.date:
    return datetime.datetime.strptime(f"{text} 2023", "%d %B %Y").date()


def day_month(date: datetime.date) -> str:
    return f"{date.day} {date:%B}"


def regular_plural(word: str) -> str:
    if re.search(r"(s|x|ch|sh)$", word):
        return word + "es"
    return re.sub(r"(?<![aeiou])y$", "ie", word) + "s"


def size(text: str) -> int:
    count, unit = text.split()
    return int(count) * IN_SMALLEST[unit]


def pairs(values: tuple[Any, ...]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


def words_of(sentence: str) -> list[str]:
    return re.findall(r"\w+", sentence)


def work_out(problem: Problem) -> str:
    """The answer from the form and the wording of the question."""
    operation, *rest = problem.form
    asked, args = problem.question.lower(), tuple(rest)
    match operation:
        case "add":
            return str(sum(args))
        case "sub":
            return str(args[0] - args[1])
        case "mul":
            return str(sum(args[0] for _ in range(args[1])))
        case "div":
            assert args[0] % args[1] == 0
            return str(args[0] // args[1])
        case "double":
            return str(args[0] << 1)
        case "half":
            assert args[0] % 2 == 0
            return str(args[0] >> 1)
        case "percent":
            assert args[0] * args[1] % 100 == 0
            return str(args[0] * args[1] // 100)
        case "mul_add":
            return str(args[0] * args[1] + args[2])
        case "weekday":
            assert ("before" in asked) == (args[1] < 0)
            start = next(d for n in range(7) if f"{(d := JAN_1 + datetime.timedelta(n)):%A}" == args[0])
            return f"{start + datetime.timedelta(args[1]):%A}"
        case "month":
            assert ("before" in asked) == (args[1] < 0)
            number = list(calendar.month_name).index(args[0]) - 1 + args[1]
            return calendar.month_name[number % 12 + 1]
        case "days_between":
            return f"{(date_of(f'{args[1]} {args[2]}') - date_of(f'{args[0]} {args[2]}')).days} days"
        case "date_plus":
            return day_month(date_of(f"{args[0]} {args[1]}") + datetime.timedelta(args[2]))
        case "age":
            return f"{args[1] - args[0]} years"
        case "leap":
            return "Yes" if calendar.isleap(args[0]) else "No"
        case "clock":
            end = datetime.datetime.strptime(args[0], "%H:%M") + datetime.timedelta(minutes=args[1])
            return f"{end.hour}:{end:%M}"
        case "convert":
            value, unit, target = args
            result, rest_of = divmod(value * IN_SMALLEST[unit], IN_SMALLEST[target])
            assert rest_of == 0
            return f"{result} {target}"
        case "two_things":
            _, one, a, two, b = args
            more = any(f"{word}" in asked for word in MORE)
            return str(max((a, one), (b, two))[1] if more else min((a, one), (b, two))[1])
        case "extreme":
            return str((max if "largest" in asked else min)(args[1:]))
        case "decimals":
            return str(max(args, key=float))
        case "word_length":
            return str((max if "longer" in asked else min)(args[1:], key=len))
        case "mixed_units":
            return str(max(args, key=size))
        case "sort_numbers":
            down = "largest to smallest" in asked or "descending" in asked
            assert down != ("smallest to largest" in asked or "ascending" in asked.replace("descending", ""))
            return ", ".join(map(str, sorted(args[1:], reverse=down)))
        case "sort_words":
            return ", ".join(sorted(args[1:], reverse="reverse" in asked))
        case "sort_people":
            ages = pairs(args[1:])
            return ", ".join(sorted(ages, key=ages.__getitem__, reverse="oldest to youngest" in asked))
        case "sort_calendar":
            order = [*calendar.day_name, *calendar.month_name]
            return ", ".join(sorted(args, key=order.index))
        case "cell":
            return str(pairs(args[1:])[args[0]])
        case "row_extreme":
            rows = pairs(args[1:])
            return str((max if "highest" in asked else min)(rows, key=rows.__getitem__))
        case "row_sum":
            return str(sum(pairs(args[2:])[name] for name in args[:2]))
        case "row_difference":
            rows = pairs(args[2:])
            return str(rows[args[0]] - rows[args[1]])
        case "row_of_value":
            return str({value: name for name, value in pairs(args[1:]).items()}[args[0]])
        case "upper":
            return "".join(chr(ord(c) - 32) if "a" <= c <= "z" else c for c in args[0])
        case "lower":
            return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in args[0])
        case "reverse":
            return " ".join(args[0].split()[::-1])
        case "title":
            return re.sub(r"\b[a-z]", lambda m: m[0].upper(), args[0])
        case "swap":
            assert words_of(args[2]).count(args[0]) == 1
            return re.sub(rf"\b{args[0]}\b", args[1], args[2])
        case "plural":
            return PLURAL.get(args[0]) or regular_plural(args[0])
        case "past":
            return PAST[args[0]]
    raise AssertionError(f"no way to work out {operation}")


def check_answer(problem: Problem) -> None:
    operation, *args = problem.form
    if operation == "spelling":
        assert problem.answer in WORD_LIST
        assert args[0] not in WORD_LIST
        assert abs(len(problem.answer) - len(args[0])) <= 1
        assert len(set(problem.answer) ^ set(args[0])) <= 2
    elif operation == "unknown":
        assert "do not know" in problem.answer
    else:
        assert problem.answer == work_out(problem), (problem.question, problem.answer)


FLAGS = {"two_things", "extreme", "word_length", "sort_numbers", "sort_words", "sort_people", "row_extreme"}


def check_question(problem: Problem) -> None:
    """Every operand of the form stands in the question, so that the form is what was asked."""
    operation, *operands = problem.form
    for operand in operands[1:] if operation in FLAGS else operands:
        if isinstance(operand, int):
            assert str(abs(operand)) in re.findall(r"\d+", problem.question), (problem.question, operand)
        else:
            assert operand in problem.question, (problem.question, operand)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("topic", MAKERS)
def test_answers_are_right(topic: str, seed: int) -> None:
    for problem in draw_problems(topic, 36 if seed % 2 else 80, seed, heldout=bool(seed % 2)):
        check_question(problem)
        check_answer(problem)
        if problem.after is not None:
            added = int(re.findall(r"\d+", problem.after.question)[0])
            assert int(problem.after.answer) == int(problem.answer) + added
            assert problem.answer in problem.after.chain


SAYS_HOW = {"leap", "upper", "lower", "title", "swap"}  # the chain says how; the result is the answer
NAMES_FIRST = {"sort_words", "sort_people", "sort_calendar", "reverse"}  # the chain names the first item


@pytest.mark.parametrize("topic", [topic for topic in MAKERS if topic != "unknown"])
def test_chains_lead_to_the_answer(topic: str) -> None:
    for problem in draw_problems(topic, 80, seed=5, heldout=False):
        operation = problem.form[0]
        if operation not in SAYS_HOW:
            result = words_of(problem.answer)[0] if operation in NAMES_FIRST else problem.answer
            assert result in problem.chain, problem


def test_the_answer_check_can_fail() -> None:
    wrong = Problem("arithmetic", "What is 12 plus 13?", "So it is 26.", "26", ("add", 12, 13))
    with pytest.raises(AssertionError):
        check_answer(wrong)
    elsewhere = Problem("arithmetic", "What is 12 plus 14?", "So it is 25.", "25", ("add", 12, 13))
    with pytest.raises(AssertionError):
        check_question(elsewhere)


def test_units_have_the_right_factors() -> None:
    for large, small, factor in UNITS:
        assert IN_SMALLEST[large] == factor * IN_SMALLEST[small]


def test_the_corpus_is_made_of_the_checked_problems() -> None:
    checked = {
        p.question: p
        for t in MAKERS
        for held in (0, 1)
        for p in draw_problems(t, 36 if held else 80, 0, heldout=bool(held))
    }
    for conversation in EVERY:
        if conversation.topic not in ("small_talk", "reading"):
            problem = checked[first(conversation)]
            match = CONTENT.fullmatch(conversation.messages[1].content)
            assert match is not None
            assert match.groups() == (problem.chain, problem.answer)


def test_unknown_questions_are_about_the_user() -> None:
    for row in unknowns():
        for filled in (row["question"].format(x=fill) for fill in row["fill"]):
            assert re.search(r"\b(I|my|me|here)\b", filled) or row["about"] == "future", filled


# --- splits and seeds -----------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(num_train=st.integers(0, 700), num_heldout=st.integers(0, 200), seed=st.integers(0, 100))
def test_any_size_is_exact_and_disjoint(num_train: int, num_heldout: int, seed: int) -> None:
    train, heldout = general_conversations(seed, num_train, num_heldout)
    assert (len(train), len(heldout)) == (num_train, num_heldout)
    assert not {first(c) for c in train} & {first(c) for c in heldout}
    assert heldout == general_conversations(seed, 10, num_heldout)[1]  # whatever is trained on


def test_problems_are_held_out_however_they_are_worded() -> None:
    """No form is drawn twice, and what one seed holds out no other seed trains on."""
    for topic in MAKERS:
        trained = [problem.form for seed in (0, 1) for problem in draw_problems(topic, 60, seed, heldout=False)]
        held = [problem.form for seed in (0, 1) for problem in draw_problems(topic, 24, seed, heldout=True)]
        assert not set(trained) & set(held)
        assert len(set(trained[:60])) == 60


def test_the_seed_decides() -> None:
    assert general_conversations(3) == general_conversations(3)
    assert general_conversations(3) != general_conversations(4)
    assert draw_problems("dates", 5, 0, heldout=False) == draw_problems("dates", 50, 0, heldout=False)[:5]


def test_an_exhausted_topic_is_named() -> None:
    with pytest.raises(TaskError, match=r"topic '\w+' has about \d+ different problems.*lower num_train"):
        general_conversations(0, num_train=5000)


# --- fillers --------------------------------------------------------------------------------------


def test_fillers_are_held_out_answers_of_five_kinds() -> None:
    fillers = filler_exchanges(HELDOUT, seed=0)
    assert [filler.topic for filler in fillers[:5]] == list(FILLER_TOPICS)
    assert len({filler.user for filler in fillers}) == len(fillers) >= 50
    trained = {m.content for c in TRAIN for m in c.messages}
    replies = {first(c): c.messages[1].content for c in HELDOUT}
    for filler in fillers:
        assert filler.user not in trained
        assert replies[filler.user].endswith(f"</think>\n{filler.reply}")
    assert fillers == filler_exchanges(HELDOUT, seed=0) != filler_exchanges(HELDOUT, seed=1)


def test_further_conversations_are_none_of_the_corpus() -> None:
    train, heldout = general_conversations(0, 300, 60)
    drawn = Counter(c.topic for c in heldout)
    more = further_conversations(("dates", "sorting"), 50, drawn)
    assert Counter(c.topic for c in more) == {"dates": 50, "sorting": 50}
    asked = [c.messages[0].content for c in more]
    assert len(set(asked)) == 100
    assert not set(asked) & {c.messages[0].content for c in (*train, *heldout)}
