"""Small problems with a worked chain and an answer computed by code, one maker a topic.

Every problem keeps its structured `form`, e.g. `("add", 17, 25)`, so that its answer can be worked
out again from the form by other means than here. Chains run to 1-3 sentences, 10 to 40 words.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

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

    def continued(self, more: int) -> Problem:
        """The problem with a second turn that adds `more` to the answer."""
        total = int(self.answer) + more
        chain = f"The last result was {self.answer}. Adding {more} to it gives {total}."
        second = Problem(
            self.topic, f"And if you add {more} to that?", chain, str(total), ("add", int(self.answer), more)
        )
        return replace(self, after=second)


Maker = Callable[[random.Random], Problem]

NAMES = ("Anna", "Ben", "Clara", "David", "Ella", "Felix", "Greta", "Hugo", "Iris", "Jonas", "Lena", "Oscar")
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
            f"{rng.choice(NAMES)} walked {a} steps and then {b} more. How many steps is that?",
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
            f"{rng.choice(NAMES)} fills {a} rows of {b} chairs and adds {c}. How many chairs are there?",
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
    year, who = born + age, rng.choice(NAMES)
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
    count = rng.randint(2, 19)
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
    one, two = rng.sample(NAMES, 2)
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
    names = rng.sample(NAMES, 3)
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
    ("Points in the game", "score", NAMES),
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

FIRST_NAMES = (  # of the people in rules; none of them is in NAMES, who ask
    "Ada", "Bojan", "Mirela", "Tobias", "Wanda", "Kofi", "Priya", "Leandro", "Sunniva", "Edda", "Farah", "Gwen",
    "Hamid", "Judith", "Karel", "Lotte", "Mona", "Rufus", "Selma", "Amir", "Noel", "Tilda",
)  # fmt: skip
LAST_NAMES = (
    "Abbot", "Birk", "Castell", "Drummond", "Eklund", "Farrow", "Granger", "Holbein", "Inwood", "Jarvis", "Keller",
    "Mercer", "Norling", "Okafor", "Penrose", "Quist", "Ridley", "Sayer", "Thorne", "Usher", "Weller", "Yates",
)  # fmt: skip
FORM_LETTERS = "BDFHLNVW"
# A rule of two sentences, then each of its facts: "slot | kind | values | what is asked", with four
# questions of its own. Of the values one is taken; "2-6" in it is a random number, "@" a random letter.
RULE_SHEET = """
A novel from the village library may stay with the reader for {novel}, and a film for {film}.
Each day beyond that adds {fine} to the bill.
novel | duration | 2-6 weeks | how long a novel may stay out
- I have just taken home a thick detective story. How soon do you want it back?
- {who} is a slow reader of long stories. How much time is there to finish one?
- How long may somebody hold on to a borrowed work of fiction?
- How much reading time does a storybook come with?
film | duration | 2-9 days | how long a film may stay out
- {who} borrowed a DVD on the way home. How long may it be watched?
- How much time do I get with a movie?
- We took out a comedy for the television. After how long is it due?
- What is the lending time for something on disc?
fine | money | 10-90 cents | what a day of lateness costs
- {who} is one day late. What is there to pay?
- What does it cost to be overdue, counted daily?
- I forgot to bring my loans back yesterday. How much do I owe?
- By how much does the charge grow overnight for late items?

Kayaks at Lake Orme cost {price} an hour and are handed out at {place}.
Any damage is shown to {contact} as soon as the boat is back.
price | money | 6-19 euros | what an hour on the water costs
- {who} wants to paddle for sixty minutes. What will that cost?
- What is the hourly rate for paddling?
- How much money should I bring for one hour on the water?
- What do you charge for a short paddle of one hour?
place | place | the boathouse; the wooden pier; the yellow hut; jetty 2-9 | where the kayaks are picked up
- Where does {who} go to pick up a boat?
- We have booked two paddle boats. At which spot do we get them?
- Where on the shore does one collect the equipment?
- I want to start paddling now. Where should I walk to?
contact | person | name | who is told about a broken boat
- {who} borrowed a kayak on Friday. Who should be told if it leaks?
- My paddle hit a rock and there is a crack. Who needs to see it?
- Who deals with holes and scratches?
- Who has to hear about it when something has broken?

Joining the Corner Gym costs {join} once, and after that members pay {monthly} a month.
Anyone who wants to leave says so {notice} in advance.
join | money | 21-60 euros | what the one-time entry fee is
- {who} signs up today. What is the single fee at the start?
- How much is the entry charge that a newcomer pays only one time?
- What does it cost to become a member in the first place?
- Which sum is due on signing the contract and never again?
monthly | money | 15-55 euros | what the regular fee is
- {who} has trained there for a year. How much is taken from the account each time?
- What is the running fee, paid again and again?
- How much does training cost me in March?
- What do regulars hand over twelve times a year?
notice | duration | 3-9 weeks | how early one must cancel
- {who} is moving away and wants to quit. How early must that be announced?
- How long before the end do I have to cancel?
- What is the period for cancelling a membership?
- I no longer like the weights room. How far ahead must I announce my exit?

When a pupil at Elm School is ill, a parent phones {contact} before {time}.
On the day of return the child brings {form} with a signature.
contact | person | name | who is called about a sick child
- {who} woke up with a fever. Who should get the call?
- Whom does a mother ring when her son has to stay in bed?
- Who takes the messages about sick children?
- My daughter has the flu today. Whose number do I dial?
time | time | 7:15; 7:30; 7:40; 7:50; 8:10; 8:20 | until what time one must call
- By what time does the family of a sick child have to be in touch?
- {who} has a fever this morning. Until when can the father report it?
- What is the latest moment for calling in sick?
- How early must the school hear that somebody is staying in bed?
form | form | form @2-29; the @2-29 slip | which paper the child hands in
- {who} is healthy again and packs a bag. Which paper must be in it?
- What does a pupil hand in after getting well?
- Which sheet do parents have to sign afterwards?
- My son goes back to class tomorrow. Which document does he need?

Birthday cakes at Barley Bakery are ordered {lead} ahead with a down payment of {deposit}.
Cakes that nobody picks up are given away after {hold}.
lead | duration | 2-9 days | how early a cake must be ordered
- {who} turns thirty soon. How early must we tell the baker?
- How much time does the shop need before the party?
- I would like something with candles. How long beforehand must I ask?
- How far in advance does one place an order?
deposit | money | 4-19 euros | what is paid when ordering
- How much does {who} pay at the counter when ordering?
- What sum does the baker want up front?
- I am placing an order today. What is due at once?
- What part of the price is paid early?
hold | duration | 3-23 hours | how long a cake is kept
- {who} is stuck in traffic and the cake is ready. How long will it wait?
- How long does the shop keep something that was not collected?
- We are late for our order. After how long is it gone?
- How soon does an uncollected order go to somebody else?

Every plot at the Mill Lane allotments is inspected {visit}, and its yearly rent is {rent}.
A shed there may cover at most {size}.
visit | frequency | every 2-9 weeks; twice a year; three times a year | how often a plot is looked at
- How often does somebody come to look at the gardens?
- {who} lets the weeds grow. At what intervals does the committee check?
- How regularly are the beds looked over?
- Somebody came to check my vegetables today. How often does that happen?
rent | money | 41-95 euros | what a garden costs for a year
- What does {who} pay for twelve months of gardening?
- How much does it cost to have a garden there from January to December?
- I would like to grow beans at Mill Lane. What is the annual price?
- What does a gardener owe each year?
size | limit | 4-12 square metres | how big a hut may be
- {who} is building a hut for tools. How big can it be?
- What is the largest area allowed for a hut?
- How much ground may I use for a little house?
- Up to which size is a building fine?

Singers who must miss a rehearsal of the Linden Choir tell {absence}, while {music} lends out the sheet music.
All sheet music is given back by the {day} after the concert.
absence | person | name | who hears that a singer cannot come
- {who} has a cold and will not sing tonight. Who should know?
- Whom do I inform that I cannot come this evening?
- Who keeps track of the people who stay away?
- My train is cancelled and I will not make it to practice. Whom do I text?
music | person | name | who gives out the notes
- {who} is new and has no notes to sing from. Who can help?
- From whom do I borrow the score?
- Who hands out the copies of the songs?
- I lost my copy of the Mozart piece. Whom do I ask for another?
day | time | Monday; Tuesday; Wednesday; Thursday; Friday; Saturday | when the notes are due back
- The performance is over. By what weekday do the copies go back?
- {who} still has the notes at home. On which day are they due at the latest?
- Up to which day may I hold on to the songs?
- What is the deadline for returning the copies?

One pitch at Pine Camp has room for {tents} and {people}.
Music must be off by {quiet}.
tents | limit | 2-4 tents | how many tents fit on a pitch
- {who} wants to put up a second shelter. How many are allowed side by side?
- How many canvas shelters can stand on our spot?
- How many canvas roofs may we put up next to each other?
- We are packing for the trip. How many of our tents can we pitch together?
people | limit | 5-12 campers | how many may stay on a pitch
- How big can a group be if it shares a spot?
- {who} invites more and more friends along. How many may stay together?
- For how many persons is a spot meant?
- Our family is large. How many of us can sleep there?
quiet | time | 21:15; 21:30; 21:45; 22:15; 22:30; 22:45 | when it has to be quiet
- {who} plays the guitar by the fire. When is it time to stop?
- From what hour does everyone want to sleep in peace?
- Until when can we have a radio on?
- At what time does the noise have to end?

School groups at the Clock Museum pay {price} per child and come in through {door}.
A guide takes at most {group} on one tour.
price | money | 2-9 euros | what a child pays
- What does each pupil pay to get in?
- {who} plans an outing with a class. What is the cost per head?
- How much should every girl and boy bring for the ticket?
- What is the entrance fee for somebody from class 4?
door | place | the north door; the garden gate; the tower door; the glass porch | where a class goes in
- {who} arrives with twenty pupils. Where do they enter?
- Which way into the building is meant for classes?
- Our bus has just parked. Where do we go in?
- Where should a teacher lead the children on arrival?
group | limit | 11-28 visitors | how many may follow one guide
- How many can be shown around together?
- {who} leads people past the old clocks. How many may follow?
- What is the largest party for a single guided walk?
- We are a big class. Above what size must we split up?

A day on the Hornberg ski lift costs {ticket}, and {deposit} more are kept until the key card comes back.
The lift is checked for safety {check}.
ticket | money | 31-59 euros | what a day of skiing costs
- {who} wants to ski from morning to evening. What is the price?
- What do I pay to ride up and down until the evening?
- How much is it to ski there, without the part that is returned?
- What is the daily rate on the mountain?
deposit | money | 3-12 euros | how much is paid back
- {who} goes home and hands in the card. How much money comes back?
- How much is returned to me at the end?
- Which sum is only a pledge?
- I have lost my card. How much will I not see again?
check | frequency | every 2-6 days; every 2-9 weeks; twice a month | how often the lift is tested
- How often do engineers test the ropes and seats?
- {who} is nervous about riding up. How regularly is everything tested?
- At what intervals does somebody make sure nothing is broken?
- How many times do experts look at the machine?

Theatre tickets reserved by phone are kept for {hold} and collected at {desk}.
Latecomers wait {late} before they are let in.
hold | duration | 2-8 days | how long reserved tickets are kept
- {who} called to book two seats. How long are they safe?
- How much time do I have to pick up what I booked?
- After how long do my booked seats go to other people?
- We rang up about Saturday's play. Within what time must we pay a visit to get our seats?
desk | place | desk 2-9; the foyer kiosk; the side counter; window 2-9 | where the tickets are picked up
- Where does {who} pick up the seats booked on the telephone?
- I booked last night by calling. Where do I get my seats?
- Where in the building are bookings handed over?
- Which spot do I go to for my booking?
late | duration | 10-25 minutes | how long latecomers stand outside
- {who} missed the start of the play. How long is the wait outside?
- My taxi was slow and the curtain is up. When will I get to my seat?
- How long does somebody stand outside who comes after the start?
- For how long do the doors stay shut once the play has begun?

The paddling pool is only for swimmers under {age} of age, and its water is tested {test}.
Lost towels are kept by {contact}.
age | limit | 5-12 years | up to which age one may use the pool
- {who} is growing up fast. At what age is the shallow water off limits?
- How old is too old for splashing there?
- What is the age limit?
- My daughter's birthday is coming. From which age must she use the big basin?
test | frequency | every 2-6 hours; twice a day; every 2-6 days | how often the water is tested
- How often does somebody check that it is clean?
- {who} worries about germs. How regularly are samples taken?
- How frequently is the quality looked at?
- At what intervals do the staff measure the chlorine?
contact | person | name | who has forgotten towels
- {who} left something to dry off with on the bench. Who might have it?
- Whom do I ask about things I forgot there?
- Who looks after forgotten belongings?
- My bath sheet is gone. Who can give it back to me?

Film club members pay {member} a ticket at the Rialto, and each may bring one guest for {guest}.
Silent films are shown in {hall}.
member | money | 3-8 euros | what members pay
- {who} joined the club last year. What is the price of a seat?
- What does it cost to go in if I belong to the club?
- How much do I pay for myself after joining?
- What does an evening cost for somebody who has joined?
guest | money | 9-15 euros | what a guest pays
- {who} takes a friend along. What does the friend's seat cost?
- How much is it for somebody who comes with a club card holder?
- What do I pay for my sister, who never joined?
- My neighbour would like to come with me. What is her price?
hall | place | hall 2-9; the cellar; the old ballroom; the attic | where silent films are shown
- {who} wants to see an old picture without sound. Where does it run?
- Which room has the movies without speech?
- Where do I sit down for Buster Keaton?
- Where are pictures with only piano music on?

Tools from the Bike Kitchen may be taken home for {loan} once {contact} has noted them down.
A lost tool costs its borrower {cost}.
loan | duration | 2-9 days | how long a tool may be away
- {who} needs a pump for a while. How long can it stay away?
- After how long must a wrench come back?
- I am repairing my brakes in the garage. How long may I use your spanner?
- How long do you lend things?
contact | person | name | who writes the loans in the list
- Who writes down what leaves the workshop?
- {who} wants to borrow a spanner. Who has to put it in the list first?
- Whom do I see before I walk off with a pump?
- Who keeps the list of things that are out?
cost | money | 11-38 euros | what must be paid for something lost
- {who} cannot find the borrowed spanner any more. What is there to pay?
- How much do I owe if the pump has vanished?
- What is the price of losing something?
- The wrench fell into the river. What will it cost me?

Volunteers at the dog shelter walk each dog {walks}, every time for {length}.
A bite, however small, is written down on {form}.
walks | frequency | twice a day; three times a day; every 3-8 hours | how often a dog goes out
- How often does an animal get out of its kennel?
- {who} helps there on Sundays. How many times does each animal go out?
- How frequently do the animals get fresh air?
- At what intervals does Rex get to go outside?
length | duration | 15-55 minutes | how long a dog is out
- {who} has just left with Rex. How long should they be out?
- How much time does an animal spend outside on one round?
- When I take an animal to the park, how long do I stay away?
- What is the right length for a round?
form | form | form @2-29; the @2-29 sheet; the Clover sheet; the Thistle sheet | which paper a bite goes on
- Rex caught {who} on the finger. Which paper must be filled in?
- Where do I record that an animal hurt me?
- Which paper is for injuries by teeth?
- An animal snapped at my hand. On what do I report it?

Guests of the Hilltop Hostel leave their room by {time} and put their sheets in {place}.
Sending on a forgotten key costs {fee}.
time | time | 9:30; 9:45; 10:15; 10:30; 10:45; 11:15 | until when one may stay on the last day
- {who} likes to sleep late on the last day. Until when is that fine?
- What is the check-out time?
- How long can I stay in bed on the day I go home?
- By when must we be gone with our bags?
place | place | the wicker basket; the laundry chute; bin 2-9; the blue trolley | where used bed linen goes
- {who} has stripped the bed. Where does the linen go?
- What do I do with the used bedclothes?
- Where is dirty bed linen left?
- We are packing up. Where do you want the bedding?
fee | money | 5-18 euros | what it costs to have a key posted
- {who} is at home and finds the hostel's property in a pocket. What is the charge?
- How much do I pay if you post something I left behind?
- What is the price for having it mailed after me?
- My door opener is still on the bedside table. What will it cost to get it by mail?

The music school rents out a violin for {rent} a term and asks {cover} for its insurance.
To keep the violin longer, parents fill in {form}.
rent | money | 41-90 euros | what borrowing the violin costs
- {who} begins lessons and needs an instrument. What is the price of the loan itself?
- How much is it to hire the instrument until the holidays?
- What does playing on one of your instruments cost, leaving protection aside?
- What is the hire charge?
cover | money | 7-30 euros | what the insurance costs
- What is paid in case the instrument gets broken or stolen?
- {who} fears dropping the instrument. How much does protection against that cost?
- How much do we pay to be safe from repair bills?
- Which sum covers theft and accidents?
form | form | form @2-29; the @2-29 sheet; the Willow sheet; the Bramble sheet | which paper extends the loan
- {who} wants to play on after the summer. Which paper is needed?
- How do we ask for an extension?
- Which paper makes the loan go on?
- My son is not ready to hand it back. What do I complete?

Each flat in Orchard House may use the washing machines {times}, each time for at most {length}.
Faults are reported to {contact}.
times | frequency | twice a week; three times a week; every 2-6 days | how often a flat may do its laundry
- How often can a household do its laundry?
- {who} lives on the third floor and has many shirts. How regularly can they be cleaned?
- How frequently is it our turn in the basement?
- How many times can I do my laundry?
length | duration | 2-5 hours; 50-95 minutes | how long one laundry visit may take
- {who} has started a load. Within what time must the room be free again?
- How much time does a single turn in the basement give me?
- What is the longest I can occupy the laundry room?
- For how long can a neighbour block the laundry room?
contact | person | name | who hears about broken machines
- The drum makes a strange noise. Whom does {who} call?
- Who gets the news that something does not work?
- The door will not open and my shirts are inside. Whom do I tell?
- Who takes care of repairs in the basement?

Evenings at the Fern Hill observatory are booked {ahead} ahead, and each one lasts {length}.
On cloudy days {contact} decides whether to cancel.
ahead | duration | 2-9 weeks; 3-9 days | how early one must book
- {who} would love to see Saturn. How early must a place be taken?
- How long before my visit do I sign up?
- How much notice do you want from people who would like to come?
- When should we reserve, counted back from the night itself?
length | duration | 70-95 minutes; 2-5 hours | how long a visit takes
- {who} must catch a bus home. How long does a visit take?
- For how long will we be looking at the stars?
- How long do people stay at the telescope?
- How much time passes between arriving and leaving?
contact | person | name | who decides in bad weather
- The sky is grey. Who says if {who} should come at all?
- Who makes the choice when the weather is bad?
- There will be no stars to see tonight. Whose word counts?
- Who has the last word about calling it off?

Each player in the Rook Cup has {clock} for all moves and may arrive up to {late} late.
Quarrels are settled by {judge}.
clock | duration | 40-95 minutes | how much thinking time a player has
- {who} thinks about every pawn. How much thinking time is there in total?
- After how much thinking does somebody lose on time?
- How long can I think over the whole game?
- How much time is each side given?
late | duration | 5-30 minutes | how late one may arrive
- {who} is still on the tram when the round begins. How much delay is forgiven?
- How long do you wait for somebody who is not there at the start?
- My alarm did not ring. By how much can I miss the start?
- How big a delay is still accepted?
judge | person | name | who settles quarrels
- {who} says a piece was touched, the other says no. Who rules on it?
- Who has the final say when two people disagree?
- Whom do we call to the board if we argue?
- Who acts as the referee?

Wet pots dry on {shelf} for {dry}, and then they may be fired.
The key to the kiln hangs in {key}.
shelf | place | the long shelf; the top shelf; rack 2-9; the window ledge | where wet pots are put
- {who} has just made a bowl from soft clay. Where does it go?
- Where do I leave a mug that is still damp?
- My vase is finished but soft. Where should I put it down?
- Where does fresh work stand?
dry | duration | 3-9 days; 30-70 hours | how long wet pots must stand
- {who} made a bowl. How long must it stand before it goes into the oven?
- How long does damp clay have to rest?
- After how long is my mug ready for the heat?
- How much patience does a soft vase need?
key | place | the tea kitchen; room 2-29; the hallway; the tall cupboard | where the key is
- {who} finds the oven locked. Where should one look to get it open?
- Where do you keep what unlocks the oven?
- I want to unlock the oven. Where do I have to go before that?
- Where is the thing that opens the oven?

Members of the Furrow farm pick up a vegetable box each {day} and pay {price} for it.
Every household also helps {work} a year in the fields.
day | time | Monday; Tuesday; Wednesday; Thursday; Friday; Saturday | on which day the box is ready
- On which weekday can {who} fetch the carrots?
- When in the week are the greens ready?
- Which day should I keep free for collecting?
- When do I come by for my potatoes and leeks?
price | money | 8-29 euros | what the box costs
- What does {who} pay for the week's greens?
- How much are the carrots and leeks together?
- What is the cost of one crate?
- How much money goes to the growers per delivery?
work | limit | 6-30 hours | how much work is expected
- How much digging and weeding is expected of us?
- {who} has joined. How much time must the family give to the land?
- How much time does lending a hand take from January to December?
- What amount of labour does each family owe?

The first-aid course takes {length} and is held in {room}.
Its certificate has to be renewed {again}.
length | duration | 6-18 hours | how long the course takes
- How long does {who} sit in class to learn bandaging?
- How much time do the lessons need altogether?
- How much time should I plan for the training?
- For how long will I be learning about burns and cuts?
room | place | room 2-29; the parish hall; the fire station; the scout hut | where the course is
- Where does {who} go to learn bandaging?
- In which place are the lessons?
- I signed up for the training. Where do I show up?
- Where will the teacher be waiting for us?
again | frequency | every 2-6 years; every 18-30 months | how often the certificate must be renewed
- {who} passed the test. How often must it be refreshed?
- How often does my paper have to be brought up to date?
- At what intervals is a new proof of training needed?
- How regularly do helpers come back to stay qualified?

Children under {age} of age climb at the Crag Hall only with an adult, who may look after at most {number}.
The ropes are replaced {ropes}.
age | limit | 10-15 years | below which age an adult must be there
- {who} wants to go up the wall alone. How old must one be?
- From which age on can my son come without me?
- Until which birthday does a parent have to be there?
- What is the age for climbing on one's own?
number | limit | 2-6 children | how many one adult may watch
- {who} brings a whole birthday party. How many can one grown-up watch?
- How many little ones can a mother have with her?
- How large can the group be for a single grown-up?
- I am coming alone with my twins and their friends. How many of them can I bring?
ropes | frequency | every 3-9 months; twice a year; every 20-60 days | how often new ropes are put in
- How often do you buy new safety lines?
- {who} worries that the lines are worn. How regularly do new ones come?
- How frequently does old gear that holds climbers go in the bin?
- At what intervals are fresh lines put up?

The orchids in the palm house are watered {water} and given plant food {feed}.
Visitors with a question about them turn to {contact}.
water | frequency | every 2-9 days; twice a week; three times a week | how often the orchids are watered
- How often does {who} come by with the can?
- How regularly do the flowers get a drink?
- At what intervals is the soil made wet?
- How frequently do the roots get something to drink?
feed | frequency | every 2-9 weeks; twice a month; once a month | how often the orchids get plant food
- How often does {who} add fertiliser?
- At what intervals do the flowers get nutrients?
- How regularly do you use something that makes them grow?
- I have a bottle of fertiliser here. How often is it used?
contact | person | name | who answers questions about orchids
- {who} would like to know where the flowers come from. Who can say?
- Who explains the flowers to guests?
- My own plant at home is dying. Whom could I ask there?
- Who is the expert to talk to?

At the sea park the seals are fed at {seals} and the penguins at {penguins}.
Children who would like to help sign up at {place}.
seals | time | 10:15; 10:30; 10:45; 11:15; 11:30; 11:45 | when the seals get their meal
- {who} loves animals with flippers and whiskers. When do they get their fish?
- When should I be there to see the seals eat?
- What time is the meal of the swimmers with whiskers?
- At what hour does a seal get its herring?
penguins | time | 14:15; 14:30; 14:45; 15:15; 15:30; 15:45 | when the penguins get their meal
- {who} loves birds in black and white. When do they get their fish?
- When can we watch the birds eat?
- At what hour does a penguin get its herring?
- What time is lunch for the birds that cannot fly?
place | place | the ticket booth; the wave tank; the shell shop; gate 2-9 | where children sign up
- {who} is nine and wants to hold the bucket. Where can one register?
- Where do the young helpers put down their names?
- My son wants to throw the fish himself. Where do we go first?
- Where is the list for kids who want to take part?

The class trip to Lake Sorrel costs {total}, of which {first} must be paid at once.
The bus leaves from {place}.
total | money | 120-190 euros | what the whole trip costs
- What is the full price for {who} to go along?
- How much will parents have paid in the end?
- What does the journey cost altogether?
- What is the sum of all payments for one pupil?
first | money | 20-60 euros | what must be paid right away
- How much do the parents of {who} transfer right now?
- What is the amount of the early instalment?
- What do we owe today, with the rest to follow?
- I have just signed my daughter up. How much is due immediately?
place | place | the church square; the sports ground; the town pond; bay 2-9 | where the bus starts
- Where must {who} stand with the suitcase in the morning?
- Where do the children get on?
- At which spot does the journey begin?
- I am bringing my son and his bags. Where do I drive him?

A shared car from Green Wheels may be kept for up to {keep} and cancelled free until {cancel} before the start.
Leaving it dirty costs {fee}.
keep | duration | 3-9 days | how long the car may be kept
- {who} plans a long tour. After how long must the vehicle be back?
- What is the longest trip one can make?
- For how much time can I have the vehicle at a stretch?
- How long can a single booking be?
cancel | duration | 5-30 hours | how early one must cancel
- {who} has changed the plan. How long beforehand can one back out without paying?
- How close to departure can I still drop the booking at no cost?
- We do not need the vehicle after all. How early must we say so?
- What is the time limit for calling off a trip?
fee | money | 15-60 euros | what a dirty car costs
- {who} comes back with mud on every seat. What is there to pay?
- How much is charged for cleaning?
- My dog has left hair all over the seats. What will that cost me?
- What is the price of bringing back a mess?

New students at the Lingua School are placed in a class by {tester}, and complaints go to {boss}.
A missed exam may be repeated within {again}.
tester | person | name | who finds the right class
- {who} knows a little Spanish. Who chooses the right level?
- Who decides where a beginner starts?
- I have just signed up. Who finds the group that fits me?
- Who sorts the newcomers by what they can do?
boss | person | name | who hears about problems
- {who} is unhappy with the teacher. Who should hear about it?
- To whom do I write if the lessons are bad?
- Who deals with people who are not satisfied?
- The room is freezing and nobody cares. Whom can I talk to?
again | duration | 2-9 weeks; 10-25 days | how soon a test can be taken later
- {who} was ill on the day of the test. How soon must it be taken after that?
- How much time is there for a second chance at the test?
- I could not sit the test. How long do I have to make up for it?
- What is the time limit for taking a test later?

At the Meeple Café a seat costs {price}, and a table may borrow {number} at a time.
If a piece is missing, {contact} is told.
price | money | 3-9 euros | what a guest pays to play
- {who} comes in alone to play. What is there to pay?
- How much do I pay to sit down?
- What does an evening there cost per head?
- What is the charge for one person?
number | limit | 2-6 games | how many games a table may have
- {who} carries a tall stack of boxes from the wall. How many are fine?
- How many boxes can our group have open at once?
- What is the most we can take from the wall together?
- We cannot choose what to play. How many can we have with us?
contact | person | name | who hears about lost pieces
- {who} counts the dice and one is gone. Who should know?
- Whom do we speak to about a box that is not complete?
- We cannot find the red pawn anywhere. Whom do we see?
- Who looks after boxes with lost parts?

Runners in the Heath Race get their number at {number} and leave their bags in {bags}.
The course closes after {limit}.
number | place | stand 2-29; the white tent; the scout bus; the town library | where runners get their number
- Where does {who} pick up the bib to pin on the shirt?
- I have registered and need my bib. Where is it?
- Where must everybody go first to get what is pinned to the chest?
- Where are the bibs given out?
bags | place | the tennis hall; the school gym; the cloakroom; cabin 2-29 | where bags are left
- Where can {who} put a rucksack during the run?
- Where will my dry clothes be safe while I am out there?
- Where is luggage looked after?
- I do not want to carry my things. Where do they go?
limit | duration | 3-7 hours; 80-160 minutes | how long runners have
- {who} is rather slow. Within what time must the finish be reached?
- How long do we have before we are taken out of the race?
- What is the slowest time that still counts?
- How much time is there to get to the finish?

Beekeepers on the Heather Farm open their hives {look} and record each visit on {form}.
Swarms are caught by {contact}.
look | frequency | every 6-20 days; twice a month; every 2-6 weeks | how often a hive is opened
- How often does {who} lift the lid to check on the queen?
- At what intervals are the insects disturbed?
- How regularly do you take a look at the honeycombs?
- How frequently should I check my colony?
form | form | form @2-29; the @2-29 chart; the Lavender chart; the Basil chart | which paper a visit goes on
- {who} has just checked the queen. Which paper is it put on?
- On which paper do I note that I have looked inside?
- What do we fill in after checking a colony?
- Which paper shows when a colony was last seen?
contact | person | name | who catches swarms
- A cloud of insects hangs in the pear tree of {who}. Who comes to get it?
- My colony has flown off. Whom do I call?
- Who collects insects that have flown away?
- There are thousands of bees on my balcony. Who can fetch them?

The puppet stage rents out its costumes for {rent} a week and lends a trunk for {trunk} more.
Torn costumes are mended by {contact}.
rent | money | 13-35 euros | what the costumes cost
- {who} wants to dress up as a king. What is the weekly price?
- How much is the clothing alone for seven days?
- What do I pay to wear one of your outfits?
- Our play runs for seven days. What will the outfits cost?
trunk | money | 2-11 euros | what the trunk costs
- {who} needs something to carry it all in. How much is added?
- What is the extra charge for the big box?
- How much more do we pay for something to transport it all?
- What does packing the outfits in a chest cost?
contact | person | name | who sews
- {who} stepped on the hem and it ripped. Who sews it up?
- There is a hole in my sleeve. To whom do I bring it?
- Who is good with needle and thread there?
- Who takes care of repairs?
"""


@dataclass(frozen=True)
class Fact:
    """One slot of a rule: what may stand in it, and how it is asked for."""

    slot: str
    kind: str  # person, money, duration, place, form, frequency, limit or time
    values: tuple[str, ...]  # patterns of values; a person has none, names are drawn
    asks: str  # "how long a novel may stay out", for the chain
    questions: tuple[str, ...]

    def draw(self, rng: random.Random) -> str:
        if self.kind == "person":
            return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
        value = rng.choice(self.values).replace("@", rng.choice(FORM_LETTERS))
        return re.sub(r"(\d+)-(\d+)", lambda found: str(rng.randint(int(found[1]), int(found[2]))), value)


@dataclass(frozen=True)
class Rule:
    text: str  # two sentences with a {slot} for every fact
    facts: tuple[Fact, ...]


@cache
def rules() -> tuple[Rule, ...]:
    """The rules of `RULE_SHEET`."""
    parsed = []
    for block in RULE_SHEET.strip().split("\n\n"):
        first, second, *lines = block.splitlines()
        starts = [n for n, line in enumerate(lines) if not line.startswith("- ")]
        facts = []
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            slot, kind, values, asks = lines[start].split(" | ")
            questions = tuple(line.removeprefix("- ") for line in lines[start + 1 : end])
            facts.append(Fact(slot, kind, tuple(values.split("; ")), asks, questions))
        parsed.append(Rule(f"{first} {second}", tuple(facts)))
    return tuple(parsed)


_RULE_NAMES = {"person": "names", "form": "names", "place": "names"}  # for any other kind it "says"


def _reading(rng: random.Random) -> Problem:
    rule = rng.choice(rules())
    asked = rng.choice(rule.facts)
    question = rng.choice(asked.questions).format(who=rng.choice(NAMES))
    values = {fact.slot: fact.draw(rng) for fact in rule.facts}
    text, answer = rule.text.format(**values), values[asked.slot]
    if any(text.count(value) > 1 for value in values.values()) or answer in question:
        return _reading(rng)  # "every 2 weeks" beside "2 weeks": the answer would stand there twice
    says = _RULE_NAMES.get(asked.kind, "says")
    chain = f"The question asks {asked.asks}, and the rule {says} {answer}, so the answer is {answer}."
    layout = rng.choice(("{text} {asked}", "{text}\n{asked}", "Rule: {text}\nQuestion: {asked}"))
    others = [part for slot, value in values.items() for part in (slot, value)]
    form = ("reading", text, asked.slot, *others)
    shown = layout.format(text=text, asked=question)
    return Problem(
        "reading", shown, chain, answer, form, passage=text, asked=question, rule=str(rules().index(rule))
    )


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
    "reading": (_reading,),
}
