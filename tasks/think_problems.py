"""Small problems with a worked chain and an answer computed by code, one maker a topic.

Every problem keeps its structured `form`, e.g. `("add", 17, 25)`, so that its answer can be worked
out again from the form by other means than here. Chains run to 1-3 sentences, 10 to 40 words.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tasks.reading_rules import (
    ASKERS,
    Fact,
    Passage,
    Rule,
    ask,
    draw_passage,
    held_out,
    reasoning,
    rules,
)

Form = tuple[Any, ...]
DATA = Path(__file__).parent / "data" / "general"


@dataclass(frozen=True)
class Problem:
    topic: str
    question: str
    chain: str
    answer: str
    form: Form  # operation, then its operands
    after: Problem | None = None  # a second turn that builds on the answer (whole numbers only)
    passage: str = ""  # reading only: the rule, and
    asked: str = ""  # the question without it
    rule: str = ""  # which rule the passage is made from: passages of one rule differ in values only

    @property
    def held_out(self) -> bool:
        """Whether it is one of those that nothing is ever trained on, however it is worded."""
        return next(r for r in rules() if r.name == self.rule).held_out if self.rule else held_out(self.form)

    def continued(self, more: int) -> Problem:
        """The problem with a second turn that adds `more` to the answer."""
        total = int(self.answer) + more
        chain = f"The last result was {self.answer}. Adding {more} to it gives {total}."
        second = Problem(
            self.topic, f"And if you add {more} to that?", chain, str(total), ("add", int(self.answer), more)
        )
        return replace(self, after=second)


Maker = Callable[[random.Random], Problem]

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
GOODS = (
    "tea",
    "coffee",
    "bread",
    "soup",
    "cake",
    "salad",
    "juice",
    "rice",
    "cheese",
    "pasta",
    "milk",
    "honey",
)
THINGS = ("apples", "pencils", "tickets", "stamps", "marbles", "books", "cups", "plates", "coins", "shells")
WORDS = (
    "apple", "bridge", "candle", "dolphin", "engine", "forest", "garden", "harbour", "island", "jacket",
    "kitten", "lemon", "market", "needle", "orange", "pepper", "quilt", "river", "silver", "table",
    "umbrella", "violin", "window", "yellow", "zebra", "basket", "copper", "desert", "feather", "hammer",
)  # fmt: skip


def _lists(items: Sequence[object]) -> str:
    return ", ".join(str(item) for item in items)


# --- arithmetic -----------------------------------------------------------------------------------


def _add(rng: random.Random) -> Problem:
    a, b = rng.randint(12, 89), rng.randint(11, 89)
    question = rng.choice(
        (
            f"What is {a} plus {b}?",
            f"Add {a} and {b} for me.",
            f"{a} + {b} = ?",
            f"Please work out the sum of {a} and {b}.",
            f"I have {a} {rng.choice(THINGS)} and get {b} more. How many do I have now?",
            f"{rng.choice(ASKERS)} walked {a} steps and then {b} more. How many steps is that?",
        )
    )
    tens, units = b // 10 * 10, b % 10
    chain = f"First {a} plus {tens} is {a + tens}. Then adding the remaining {units} gives {a + b}."
    if not units:
        chain = f"{b} is a round number, so only the tens change: {a} plus {b} gives {a + b}."
    return Problem("arithmetic", question, chain, str(a + b), ("add", a, b))


def _subtract(rng: random.Random) -> Problem:
    b = rng.randint(11, 59)
    a = b + rng.randint(5, 70)
    question = rng.choice(
        (
            f"What is {a} minus {b}?",
            f"Subtract: {a} - {b}.",
            f"How much is left if I start with {a} and take away {b}?",
            f"A shop had {a} {rng.choice(THINGS)} and sold {b}. How many are left?",
            f"There were {a} people on the train and {b} got off. How many stayed?",
        )
    )
    tens, units = b // 10 * 10, b % 10
    chain = f"Taking {tens} from {a} leaves {a - tens}. Taking the other {units} away leaves {a - b}."
    if not units:
        chain = f"{b} is a round number, so only the tens change: {a} minus {b} leaves {a - b}."
    return Problem("arithmetic", question, chain, str(a - b), ("sub", a, b))


def _multiply(rng: random.Random) -> Problem:
    a, b = rng.randint(11, 29), rng.randint(3, 9)
    question = rng.choice(
        (
            f"What is {a} times {b}?",
            f"Multiply {a} by {b}.",
            f"{a} x {b} = ?",
            f"There are {a} boxes with {b} {rng.choice(THINGS)} each. How many in total?",
            f"A ticket costs {a} euros. What do {b} tickets cost, in euros?",
        )
    )
    tens, units = a // 10 * 10, a % 10
    chain = f"{tens} times {b} is {tens * b} and {units} times {b} is {units * b}. Together that makes {a * b}."
    return Problem("arithmetic", question, chain, str(a * b), ("mul", a, b))


def _divide(rng: random.Random) -> Problem:
    b, quotient = rng.randint(3, 9), rng.randint(6, 25)
    a = b * quotient
    question = rng.choice(
        (
            f"What is {a} divided by {b}?",
            f"Divide {a} by {b}.",
            f"{a} / {b} = ?",
            f"{b} friends share {a} {rng.choice(THINGS)} equally. How many does each get?",
            f"We pack {a} {rng.choice(THINGS)} into bags of {b}. How many bags do we fill?",
        )
    )
    chain = f"Which number times {b} gives {a}? Since {b} times {quotient} is {a}, it must be {quotient}."
    return Problem("arithmetic", question, chain, str(quotient), ("div", a, b))


def _double_or_half(rng: random.Random) -> Problem:
    a = rng.randint(13, 95)
    if rng.random() < 0.5:
        question = rng.choice(
            (f"What is twice {a}?", f"Double {a}, please.", f"What do you get if you double {a}?")
        )
        chain = f"To double a number I add it to itself, and {a} plus {a} is {2 * a}."
        return Problem("arithmetic", question, chain, str(2 * a), ("double", a))
    question = rng.choice(
        (f"What is half of {2 * a}?", f"Halve {2 * a}, please.", f"How much is one half of {2 * a}?")
    )
    chain = f"Half of a number added to itself gives it back. {a} plus {a} is {2 * a}, so it is {a}."
    return Problem("arithmetic", question, chain, str(a), ("half", 2 * a))


def _percent(rng: random.Random) -> Problem:
    rate, whole = rng.choice((10, 20, 25, 50)), rng.randrange(40, 480, 20)
    question = rng.choice(
        (
            f"What is {rate} percent of {whole}?",
            f"How much is {rate}% of {whole}?",
            f"A coat costs {whole} euros and I save {rate} percent. How many euros do I save?",
        )
    )
    parts = 100 // rate
    part = whole // parts
    chain = f"{rate} percent is one part in {parts}. Dividing {whole} by {parts} gives {part}."
    return Problem("arithmetic", question, chain, str(part), ("percent", rate, whole))


def _two_steps(rng: random.Random) -> Problem:
    a, b, c = rng.randint(3, 9), rng.randint(4, 12), rng.randint(2, 20)
    question = rng.choice(
        (
            f"What is {a} times {b} plus {c}?",
            f"I buy {a} bags with {b} {rng.choice(THINGS)} each and find {c} more. How many is that?",
            f"{rng.choice(ASKERS)} fills {a} rows of {b} chairs and adds {c}. How many chairs are there?",
        )
    )
    chain = f"First {a} times {b} is {a * b}. Then I add {c} and reach {a * b + c}."
    return Problem("arithmetic", question, chain, str(a * b + c), ("mul_add", a, b, c))


# --- dates ----------------------------------------------------------------------------------------


def _weekday(rng: random.Random) -> Problem:
    start, days = rng.randrange(7), rng.randint(2, 20)
    later = rng.random() < 0.7
    shift = days if later else -days
    end = WEEKDAYS[(start + shift) % 7]
    side, day = ("after" if later else "before"), WEEKDAYS[start]
    question = rng.choice(
        (
            f"Which weekday is {days} days {side} a {day}?",
            f"What day of the week is it {days} days {side} {day}?",
            f"If one day is a {day}, what weekday is {days} days {side} that?",
        )
    )
    weeks, rest = divmod(days, 7)
    if weeks and rest:
        chain = f"{7 * weeks} of the {days} days are whole weeks. The other {rest} {side} {day} give {end}."
    elif weeks:
        chain = f"{days} days are exactly {weeks} whole weeks, and after whole weeks it is {end} again."
    else:
        chain = f"I count {days} days {'forward' if later else 'back'} from {day}, one by one, and land on {end}."
    return Problem("dates", question, chain, end, ("weekday", day, shift))


def _month(rng: random.Random) -> Problem:
    start, months = rng.randrange(12), rng.randint(2, 11)
    later = rng.random() < 0.6
    shift = months if later else -months
    end = MONTHS[(start + shift) % 12]
    side, way, month = ("after", "on", MONTHS[start]) if later else ("before", "back", MONTHS[start])
    question = rng.choice(
        (
            f"Which month comes {months} months {side} {month}?",
            f"What month is it {months} months {side} {month}?",
            f"Counting from {month}, which month is {months} months {side} it?",
        )
    )
    chain = f"{month} is month number {start + 1}. Going {way} by {months} months leads to {end}."
    return Problem("dates", question, chain, end, ("month", month, shift))


def _days_between(rng: random.Random) -> Problem:
    month = rng.randrange(12)
    first = rng.randint(1, 14)
    last = rng.randint(first + 3, MONTH_DAYS[month])
    name, days = MONTHS[month], last - first
    question = rng.choice(
        (
            f"How many days are there from {first} {name} to {last} {name}?",
            f"A trip starts on {first} {name} and ends on {last} {name}. How many days later is that?",
            f"Count the days between {first} {name} and {last} {name}.",
        )
    )
    chain = f"Both dates lie in {name}, so I take {first} from {last}, which leaves {days} days."
    return Problem("dates", question, chain, f"{days} days", ("days_between", first, last, name))


def _date_plus(rng: random.Random) -> Problem:
    month = rng.randrange(12)
    name, following = MONTHS[month], MONTHS[(month + 1) % 12]
    first, days = rng.randint(15, 28), rng.randint(5, 20)
    if month == 1:
        month, name, following = 3, MONTHS[3], MONTHS[4]  # no leap years here
    length = MONTH_DAYS[month]
    question = rng.choice(
        (
            f"What date is {days} days after {first} {name}?",
            f"A parcel sent on {first} {name} takes {days} days. On which date does it arrive?",
            f"Add {days} days to {first} {name}. Which date is that?",
        )
    )
    total = first + days
    if total <= length:
        end = f"{total} {name}"
        chain = f"{first} plus {days} is {total}, and {name} has {length} days, so we stay in {name}: {end}."
    else:
        end = f"{total - length} {following}"
        chain = (
            f"{name} has {length} days. {first} plus {days} is {total}, and {total} minus {length} gives {end}."
        )
    return Problem("dates", question, chain, end, ("date_plus", first, name, days))


def _age(rng: random.Random) -> Problem:
    born, age = rng.randint(1930, 2005), rng.randint(8, 60)
    year, who = born + age, rng.choice(ASKERS)
    question = rng.choice(
        (
            f"{who} was born in {born}. How old does {who} turn in {year}?",
            f"A house was built in {born}. How many years old is it in {year}?",
            f"How many years lie between {born} and {year}?",
        )
    )
    chain = f"I take the earlier year from the later one. {year} minus {born} leaves {age}, so it is {age} years."
    return Problem("dates", question, chain, f"{age} years", ("age", born, year))


def _leap(rng: random.Random) -> Problem:
    year = rng.randint(1904, 2099)
    if year == 2000:
        year = 2004
    question = rng.choice(
        (f"Is {year} a leap year?", f"Does February {year} have 29 days?", f"Was or is {year} a leap year?")
    )
    rest = year % 4
    if rest:
        chain = f"A leap year can be divided by 4. {year} divided by 4 leaves {rest}, so it is not one."
    else:
        chain = f"A leap year can be divided by 4. {year} is 4 times {year // 4} with nothing left, so it is one."
    return Problem("dates", question, chain, "No" if rest else "Yes", ("leap", year))


def _clock(rng: random.Random) -> Problem:
    hour, minute, length = rng.randint(7, 20), rng.randrange(0, 60, 5), rng.randrange(20, 100, 5)
    start = f"{hour}:{minute:02d}"
    end_minutes = hour * 60 + minute + length
    end = f"{end_minutes // 60}:{end_minutes % 60:02d}"
    question = rng.choice(
        (
            f"A meeting starts at {start} and lasts {length} minutes. When does it end?",
            f"What time is it {length} minutes after {start}?",
            f"The train leaves at {start} and needs {length} minutes. When does it arrive?",
        )
    )
    hours, rest = divmod(minute + length, 60)
    sum_minutes = f"{minute} plus {length} is {minute + length} minutes"
    chain = f"{sum_minutes}, which is {hours} h and {rest} min. From {hour}:00 that leads to {end}."
    return Problem("dates", question, chain, end, ("clock", start, length))


# --- units ----------------------------------------------------------------------------------------

UNITS = (  # larger unit, smaller unit, how many of the smaller make one of the larger
    ("metres", "centimetres", 100),
    ("kilometres", "metres", 1000),
    ("kilograms", "grams", 1000),
    ("litres", "millilitres", 1000),
    ("tonnes", "kilograms", 1000),
    ("centimetres", "millimetres", 10),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("years", "months", 12),
    ("feet", "inches", 12),
    ("euros", "cents", 100),
)


def _units(rng: random.Random) -> Problem:
    large, small, factor = rng.choice(UNITS)
    count = rng.randint(2, 49)
    to_small = rng.random() < 0.5
    value, unit, target = (count, large, small) if to_small else (count * factor, small, large)
    question = rng.choice(
        (
            f"How many {target} are {value} {unit}?",
            f"Convert {value} {unit} to {target}.",
            f"What is {value} {unit} in {target}?",
            f"Please give {value} {unit} in {target}.",
        )
    )
    one = large[:-1] if large != "feet" else "foot"
    if to_small:
        answer = f"{count * factor} {small}"
        chain = f"One {one} has {factor} {small}. So I multiply {count} by {factor} and get {answer}."
    else:
        answer = f"{count} {large}"
        chain = f"It takes {factor} {small} to make one {one}. So I divide {value} by {factor} and get {answer}."
    return Problem("units", question, chain, answer, ("convert", value, unit, target))


# --- comparison -----------------------------------------------------------------------------------

_SCALES = (  # what is compared, unit, adjective for more, adjective for less, low, high
    ("parcel", "kilograms", "heavier", "lighter", 2, 60),
    ("rope", "metres", "longer", "shorter", 3, 90),
    ("tower", "metres", "taller", "lower", 20, 200),
    ("ticket", "euros", "more expensive", "cheaper", 5, 95),
    ("film", "minutes", "longer", "shorter", 70, 190),
    ("tank", "litres", "larger", "smaller", 10, 400),
)


def _two_things(rng: random.Random) -> Problem:
    thing, unit, more, less, low, high = rng.choice(_SCALES)
    one, two = rng.sample(ASKERS, 2)
    a, b = rng.sample(range(low, high), 2)
    wants_more = rng.random() < 0.5
    word = more if wants_more else less
    winner = one if (a > b) == wants_more else two
    question = rng.choice(
        (
            f"{one}'s {thing} has {a} {unit}, {two}'s has {b} {unit}. Whose is {word}?",
            f"Whose {thing} is {word}: {one}'s with {a} {unit} or {two}'s with {b} {unit}?",
            f"{one} has a {thing} of {a} {unit} and {two} one of {b} {unit}. Who has the {word} one?",
        )
    )
    win, lose = (a, b) if winner == one else (b, a)
    side = "more" if wants_more else "less"
    chain = f"I compare {a} and {b} {unit}. {win} is {side} than {lose}, so {winner} has the {word} {thing}."
    return Problem("comparison", question, chain, winner, ("two_things", side, one, a, two, b))


def _extreme(rng: random.Random) -> Problem:
    count = rng.choice((2, 3, 4))
    numbers = rng.sample(range(10, 999), count)
    if rng.random() < 0.25:
        numbers = [-n for n in numbers]
    wants_more = rng.random() < 0.5
    word = "largest" if wants_more else "smallest"
    best = max(numbers) if wants_more else min(numbers)
    question = rng.choice(
        (
            f"Which number is the {word}: {_lists(numbers)}?",
            f"Pick the {word} of these numbers: {_lists(numbers)}.",
            f"Of {_lists(numbers)}, which is the {word}?",
        )
    )
    side = "above" if wants_more else "below"
    chain = f"I go through {_lists(numbers)} and keep the {word} so far. {best} lies {side} all the others."
    return Problem("comparison", question, chain, str(best), ("extreme", word, *numbers))


def _decimals(rng: random.Random) -> Problem:
    whole = rng.randint(0, 9)
    short, long = rng.sample(range(2, 10), 2)
    a, b = f"{whole}.{short}", f"{whole}.{long}{rng.randint(1, 9)}"
    if rng.random() < 0.5:
        a, b = b, a
    winner, loser = (a, b) if float(a) > float(b) else (b, a)
    question = rng.choice(
        (
            f"Which is greater, {a} or {b}?",
            f"Is {a} or {b} the bigger number?",
            f"Compare {a} and {b}: which one is more?",
        )
    )
    chain = f"Both start with {whole}, so the next digit decides. {winner[2]} beats {loser[2]}, so it is {winner}."
    return Problem("comparison", question, chain, winner, ("decimals", a, b))


def _word_length(rng: random.Random) -> Problem:
    one, two = rng.sample(WORDS, 2)
    while len(one) == len(two):
        one, two = rng.sample(WORDS, 2)
    wants_more = rng.random() < 0.5
    word = "longer" if wants_more else "shorter"
    winner = max(one, two, key=len) if wants_more else min(one, two, key=len)
    question = rng.choice(
        (
            f"Which word is {word}, {one} or {two}?",
            f"Take the words {one} and {two}. Which one is {word}?",
            f"Tell me the {word} word: {one} or {two}.",
        )
    )
    chain = f"I count the letters: {one} has {len(one)} and {two} has {len(two)}. So {winner} is {word}."
    return Problem("comparison", question, chain, winner, ("word_length", word, one, two))


def _mixed_units(rng: random.Random) -> Problem:
    large, small, factor = rng.choice(UNITS[:8])
    count = rng.randint(2, 9)
    other = count * factor + rng.choice((-1, 1)) * rng.randint(1, factor - 1)
    a, b = f"{count} {large}", f"{other} {small}"
    shown = (a, b) if rng.random() < 0.5 else (b, a)
    winner = a if count * factor > other else b
    question = rng.choice(
        (f"Which is more, {shown[0]} or {shown[1]}?", f"What is more: {shown[0]} or {shown[1]}?")
    )
    chain = f"{a} are {count * factor} {small}. Compared with {other} {small}, the greater amount is {winner}."
    return Problem("comparison", question, chain, winner, ("mixed_units", *shown))


# --- sorting --------------------------------------------------------------------------------------


def _sort_numbers(rng: random.Random) -> Problem:
    numbers = rng.sample(range(2, 200), rng.choice((3, 4, 4, 5)))
    up = rng.random() < 0.6
    answer = _lists(sorted(numbers, reverse=not up))
    order = rng.choice(
        ("from smallest to largest", "in ascending order")
        if up
        else ("from largest to smallest", "in descending order")
    )
    question = rng.choice(
        (
            f"Sort these numbers {order}: {_lists(numbers)}.",
            f"Put {_lists(numbers)} in order, {order}.",
            f"Please arrange {order}: {_lists(numbers)}",
        )
    )
    first, last = (min(numbers), max(numbers)) if up else (max(numbers), min(numbers))
    chain = f"I begin with {first} and end with {last}. With the others put in between, the order is {answer}."
    return Problem("sorting", question, chain, answer, ("sort_numbers", "up" if up else "down", *numbers))


def _sort_words(rng: random.Random) -> Problem:
    initials: dict[str, str] = {}
    for word in rng.sample(WORDS, len(WORDS)):
        initials.setdefault(word[0], word)
    words = rng.sample(sorted(initials.values()), rng.choice((3, 4)))
    up = rng.random() < 0.75
    ordered = sorted(words, reverse=not up)
    order = "alphabetical order" if up else "reverse alphabetical order"
    question = rng.choice(
        (
            f"Put these words in {order}: {_lists(words)}.",
            f"Sort in {order}: {_lists(words)}.",
            f"What is the {order} of {_lists(words)}?",
        )
    )
    letters = _lists([word[0] for word in ordered])
    chain = f"I look at the first letters. In this order they run {letters}, so {ordered[0]} comes first."
    return Problem("sorting", question, chain, _lists(ordered), ("sort_words", "up" if up else "down", *words))


def _sort_people(rng: random.Random) -> Problem:
    names = rng.sample(ASKERS, 3)
    ages = rng.sample(range(8, 80), 3)
    youngest_first = rng.random() < 0.5
    ordered = [name for _, name in sorted(zip(ages, names, strict=True), reverse=not youngest_first)]
    order = "from youngest to oldest" if youngest_first else "from oldest to youngest"
    people = [f"{name} is {age}" for name, age in zip(names, ages, strict=True)]
    question = rng.choice(
        (
            f"{_lists(people)}. List them {order}.",
            f"Order these people {order}: {_lists(people)}.",
        )
    )
    by_age = _lists(sorted(ages, reverse=not youngest_first))
    chain = f"I sort by age: {by_age}. So {ordered[0]} comes first and {ordered[-1]} comes last."
    form = (
        "sort_people",
        "up" if youngest_first else "down",
        *(v for pair in zip(names, ages, strict=True) for v in pair),
    )
    return Problem("sorting", question, chain, _lists(ordered), form)


def _sort_weekdays(rng: random.Random) -> Problem:
    calendar, kind = rng.choice(
        ((WEEKDAYS, "days, starting from Monday"), (MONTHS, "months, starting from January"))
    )
    picked = rng.sample(calendar, 3)
    ordered = sorted(picked, key=calendar.index)
    question = rng.choice(
        (f"Put these in calendar order: {_lists(picked)}.", f"Sort by the calendar: {_lists(picked)}.")
    )
    chain = f"I order them as {kind}. {ordered[0]} comes first and {ordered[-1]} comes last of the three."
    return Problem("sorting", question, chain, _lists(ordered), ("sort_calendar", *picked))


# --- table look-up --------------------------------------------------------------------------------


_TABLES = (  # heading, what a value is called, what the rows are
    ("Prices in euros", "price", GOODS),
    ("Boxes in stock", "number of boxes", GOODS),
    ("Points in the game", "score", ASKERS),
)


def _table(rng: random.Random) -> tuple[str, dict[str, int], str]:
    """Text of a small table, its rows, and what its values are called."""
    head, value_name, keys = rng.choice(_TABLES)
    size = rng.choice((3, 4))
    rows = dict(zip(rng.sample(keys, size), rng.sample(range(2, 60), size), strict=True))
    cell, joint = rng.choice((("{}: {}", "; "), ("{} = {}", "; "), ("{} {}", ", "), ("{} {}", " | ")))
    return f"{head}. {joint.join(cell.format(key, value) for key, value in rows.items())}.", rows, value_name


def _flat(rows: dict[str, int]) -> tuple[Any, ...]:
    return tuple(value for pair in rows.items() for value in pair)


def _cell(rng: random.Random) -> Problem:
    text, rows, value_name = _table(rng)
    key = rng.choice(list(rows))
    question = f"{text} " + rng.choice(
        (f"What is the {value_name} for {key}?", f"Which number stands beside {key}?", f"Look up {key}.")
    )
    chain = f"I read along the table until I find {key}. The number in that row is {rows[key]}."
    return Problem("table_lookup", question, chain, str(rows[key]), ("cell", key, *_flat(rows)))


def _row_extreme(rng: random.Random) -> Problem:
    text, rows, _ = _table(rng)
    high = rng.random() < 0.5
    key = max(rows, key=rows.__getitem__) if high else min(rows, key=rows.__getitem__)
    word = "highest" if high else "lowest"
    question = f"{text} " + rng.choice(
        (
            f"Which row has the {word} number?",
            f"Which entry is {word}?",
            f"Name the one with the {word} value.",
        )
    )
    numbers = _lists(list(rows.values()))
    chain = f"The numbers are {numbers}. The {word} of them is {rows[key]}, and it belongs to {key}."
    return Problem("table_lookup", question, chain, key, ("row_extreme", word, *_flat(rows)))


def _row_sum(rng: random.Random) -> Problem:
    text, rows, _ = _table(rng)
    one, two = rng.sample(list(rows), 2)
    total = rows[one] + rows[two]
    question = f"{text} " + rng.choice(
        (
            f"What do {one} and {two} make together?",
            f"Add the values of {one} and {two}.",
            f"What is the sum for {one} and {two}?",
        )
    )
    chain = f"The table gives {rows[one]} for {one} and {rows[two]} for {two}. Together that is {total}."
    return Problem("table_lookup", question, chain, str(total), ("row_sum", one, two, *_flat(rows)))


def _row_difference(rng: random.Random) -> Problem:
    text, rows, _ = _table(rng)
    one, two = sorted(rng.sample(list(rows), 2), key=rows.__getitem__, reverse=True)
    gap = rows[one] - rows[two]
    question = f"{text} " + rng.choice(
        (f"How much more is {one} than {two}?", f"By how much does {one} exceed {two}?")
    )
    chain = f"The table gives {rows[one]} for {one} and {rows[two]} for {two}. The difference is {gap}."
    return Problem("table_lookup", question, chain, str(gap), ("row_difference", one, two, *_flat(rows)))


def _row_of_value(rng: random.Random) -> Problem:
    text, rows, _ = _table(rng)
    key = rng.choice(list(rows))
    question = f"{text} " + rng.choice(
        (f"Which entry has the number {rows[key]}?", f"What does the value {rows[key]} belong to?")
    )
    chain = f"I look for the number {rows[key]} in the table and read what stands beside it, which is {key}."
    return Problem("table_lookup", question, chain, key, ("row_of_value", rows[key], *_flat(rows)))


# --- rewriting ------------------------------------------------------------------------------------

_SUBJECTS = (
    "the old captain",
    "my neighbour",
    "a small dog",
    "the new teacher",
    "our driver",
    "the red boat",
    "a tired nurse",
    "the young baker",
    "her brother",
    "the quiet child",
)
_VERBS = (
    "waits near",
    "looks at",
    "walks past",
    "runs to",
    "paints",
    "finds",
    "likes",
    "cleans",
    "draws",
    "visits",
)
_OBJECTS = (
    "the green door",
    "a wide river",
    "the busy market",
    "an empty street",
    "the tall tree",
    "a warm kitchen",
    "the stone bridge",
    "a dusty road",
    "the blue house",
    "an open field",
)
SPELLING = (  # wrong, right
    ("recieve", "receive"), ("seperate", "separate"), ("definately", "definitely"), ("tommorow", "tomorrow"),
    ("wich", "which"), ("freind", "friend"), ("beleive", "believe"), ("untill", "until"),
    ("adress", "address"), ("calender", "calendar"), ("begining", "beginning"), ("goverment", "government"),
    ("libary", "library"), ("neccessary", "necessary"), ("occured", "occurred"), ("wierd", "weird"),
    ("becuase", "because"), ("suprise", "surprise"), ("buisness", "business"), ("enviroment", "environment"),
    ("grammer", "grammar"), ("knowlege", "knowledge"), ("posible", "possible"),
)  # fmt: skip
PLURALS = (
    ("child", "children"), ("mouse", "mice"), ("knife", "knives"), ("leaf", "leaves"), ("box", "boxes"),
    ("city", "cities"), ("tooth", "teeth"), ("foot", "feet"), ("woman", "women"), ("baby", "babies"),
    ("dish", "dishes"), ("goose", "geese"), ("wolf", "wolves"), ("party", "parties"), ("bus", "buses"),
    ("shelf", "shelves"), ("lamp", "lamps"), ("story", "stories"), ("match", "matches"), ("key", "keys"),
)  # fmt: skip
PAST = (
    ("go", "went"), ("see", "saw"), ("buy", "bought"), ("write", "wrote"), ("take", "took"), ("run", "ran"),
    ("eat", "ate"), ("bring", "brought"), ("sing", "sang"), ("teach", "taught"), ("drive", "drove"),
    ("find", "found"), ("keep", "kept"), ("swim", "swam"), ("begin", "began"), ("fly", "flew"),
)  # fmt: skip


def _sentence(rng: random.Random) -> str:
    return f"{rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} {rng.choice(_OBJECTS)}"


def _upper(rng: random.Random) -> Problem:
    text = _sentence(rng)
    question = rng.choice(
        (
            f"Write in capital letters: {text}",
            f"Put this in upper case: {text}",
            f"Make every letter a capital: {text}",
        )
    )
    chain = "The words and their order stay as they are. I only change each letter to its capital form."
    return Problem("rewriting", question, chain, text.upper(), ("upper", text))


def _lower(rng: random.Random) -> Problem:
    text = _sentence(rng).upper()
    question = rng.choice(
        (
            f"Write in small letters: {text}",
            f"Put this in lower case: {text}",
            f"Please stop shouting and write it small: {text}",
        )
    )
    chain = "The words and their order stay the same. I only change each capital letter to a small one."
    return Problem("rewriting", question, chain, text.lower(), ("lower", text))


def _reverse(rng: random.Random) -> Problem:
    words = rng.sample(WORDS, rng.choice((3, 4)))
    text = " ".join(words)
    question = rng.choice(
        (
            f"Reverse the order of the words: {text}",
            f"Write these words from last to first: {text}",
            f"Say it backwards, word by word: {text}",
        )
    )
    chain = f"The last word is {words[-1]}, so it comes first. Then I go back word by word until {words[0]}."
    return Problem("rewriting", question, chain, " ".join(reversed(words)), ("reverse", text))


def _title(rng: random.Random) -> Problem:
    text = " ".join(rng.sample(WORDS, rng.choice((3, 4))))
    question = rng.choice(
        (
            f"Capitalise the first letter of each word: {text}",
            f"Write as a title, each word with a capital: {text}",
        )
    )
    chain = "Each word keeps its letters. Only the first letter of every word becomes a capital."
    return Problem("rewriting", question, chain, text.title(), ("title", text))


def _swap_word(rng: random.Random) -> Problem:
    text = _sentence(rng)
    old = rng.choice(text.split()[-1:] + text.split()[-2:-1])
    new = rng.choice(WORDS)
    question = rng.choice((f"Replace the word {old} by {new}: {text}", f"Swap {old} for {new} in this: {text}"))
    chain = f"I find {old} near the end and put {new} in its place. All the other words stay."
    answer = " ".join(new if word == old else word for word in text.split())
    return Problem("rewriting", question, chain, answer, ("swap", old, new, text))


def _spelling(rng: random.Random) -> Problem:
    wrong, right = rng.choice(SPELLING)
    question = rng.choice(
        (
            f"Fix the spelling: {wrong}",
            f"How is this word spelled correctly: {wrong}?",
            f"Correct this word for me: {wrong}",
        )
    )
    chain = f"The letters in {wrong} are not quite right. The word that is meant is spelled {right}."
    return Problem("rewriting", question, chain, right, ("spelling", wrong))


def _plural(rng: random.Random) -> Problem:
    one, many = rng.choice(PLURALS)
    question = rng.choice(
        (f"What is the plural of {one}?", f"One {one}, two what?", f"Write the word {one} in the plural.")
    )
    chain = f"There is one {one}, and for more than one of them English uses the form {many}."
    return Problem("rewriting", question, chain, many, ("plural", one))


def _past(rng: random.Random) -> Problem:
    now, then = rng.choice(PAST)
    question = rng.choice(
        (
            f"What is the past tense of {now}?",
            f"Today I {now}. Yesterday I what?",
            f"Put the verb {now} into the simple past.",
        )
    )
    chain = f"The verb {now} is irregular, so it takes no ending. Its simple past form is {then}."
    return Problem("rewriting", question, chain, then, ("past", now))


# --- reading a short rule -------------------------------------------------------------------------


def _asked(rng: random.Random, passage: Passage, fact: Fact) -> Problem:
    asked = ask(rng, passage, fact, named=True)
    layout = rng.choice(("{text} {asked}", "{text}\n{asked}", "Rule: {text}\nQuestion: {asked}"))
    others = [part for pair in passage.shown.items() for part in pair]
    return Problem(
        "reading",
        layout.format(text=passage.text, asked=asked),
        reasoning(passage, fact),
        passage.answers[fact.slot],
        ("reading", passage.text, fact.slot, *others),
        passage=passage.text,
        asked=asked,
        rule=passage.rule.name,
    )


def whole_passages(count: int, seed: int) -> tuple[Problem, ...]:
    """Passages of `count` different rules, or of all that are trained on, each asked about all of its facts."""
    rng = random.Random(f"think/passages/{seed}")
    problems: list[Problem] = []
    trained = [rule for rule in rules() if not rule.held_out]
    for rule in rng.sample(trained, min(count, len(trained))):
        passage = draw_passage(rng, rule)
        problems += [_asked(rng, passage, fact) for fact in rule.facts]
    return tuple(problems)


def _reading_makers(rng: random.Random, heldout: bool) -> tuple[Maker, ...]:
    """One maker a fact, in rounds: a round takes every rule once, each time with another of its facts."""

    def maker(rule: Rule, fact: Fact) -> Maker:
        return lambda rng: _asked(rng, draw_passage(rng, rule), fact)

    found = [rule for rule in rules() if rule.held_out == heldout]
    order = [(rule, rng.sample(rule.facts, len(rule.facts))) for rule in rng.sample(found, len(found))]
    rounds = max(len(facts) for _, facts in order)
    return tuple(maker(rule, facts[n % len(facts)]) for n in range(rounds) for rule, facts in order)


# --- saying that one does not know ----------------------------------------------------------------

UNKNOWN = DATA / "unknown.jsonl"
_UNKNOWN_CHAINS = (
    "This is about the user's own {about}. Nothing in our talk tells me that, so I say that I do not know.",
    "Nobody has told me about the user's {about}, and I have no way to look. A guess would be wrong to give.",
    "To answer I would need to know the user's {about}. I was not told, so the honest reply is to admit it.",
    "I have no record of the user's {about}. It is better to admit this than to make something up.",
)
_FUTURE_CHAIN = "That day has not come yet, and nobody can tell what it brings. So I say that I do not know."
_SCHOOL_CHAIN = "This is about the user's school, and nobody told me what happened there. So I do not know."


@cache
def unknowns() -> tuple[dict[str, Any], ...]:
    """Hand-written question templates about things that cannot be known, each with what fills it."""
    return tuple(json.loads(line) for line in UNKNOWN.read_text(encoding="utf-8").splitlines())


def _unknown(rng: random.Random) -> Problem:
    row = rng.choice(unknowns())
    filled = row["question"].format(x=rng.choice(row["fill"]))
    question = rng.choice(("", "", "Tell me: ", "Do you happen to know: ")) + filled
    special = {"future": _FUTURE_CHAIN, "school": _SCHOOL_CHAIN}
    chain = special.get(row["about"]) or rng.choice(_UNKNOWN_CHAINS).format(about=row["about"])
    return Problem("unknown", question, chain, row["answer"], ("unknown", filled))


MAKERS: dict[str, tuple[Maker, ...]] = {
    "arithmetic": (_add, _subtract, _multiply, _divide, _double_or_half, _percent, _two_steps),
    "dates": (_weekday, _month, _days_between, _date_plus, _age, _leap, _clock),
    "units": (_units,),
    "comparison": (_two_things, _extreme, _decimals, _word_length, _mixed_units),
    "sorting": (_sort_numbers, _sort_words, _sort_people, _sort_weekdays),
    "table_lookup": (_cell, _row_extreme, _row_sum, _row_difference, _row_of_value),
    "rewriting": (_upper, _lower, _reverse, _title, _swap_word, _spelling, _plural, _past),
    "unknown": (_unknown,),
}
TOPICS = (*MAKERS, "reading")


def makers_of(topic: str, rng: random.Random, heldout: bool) -> tuple[Maker, ...]:
    """The makers of a topic's problems, in the order in which they take turns."""
    return _reading_makers(rng, heldout) if topic == "reading" else MAKERS[topic]
