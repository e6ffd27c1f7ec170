"""What a text says, read into values: the one reading that scorer, check and "stands in" share.

`read` turns a text, English or Chinese, into items: numbers, quantities (a number with its unit, in base units,
so that 90 minutes are 1.5 hours), dates, times of day, ranges and single words, each with the bound before it
("at most") and the clause that it stands in. Two items are compared as values (`same`). What a text leaves open
("1.500", "half past six", "05/03/2025") has several readings, and what it is compared with decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from tasks import values_zh
from tasks.chinese import has_chinese
from tasks.spelling import BEHIND_A_NUMBER, LETTER, MONTHS, SMALL, UNITS, in_one_spelling, plain, words

Kind = Literal["word", "number", "quantity", "date", "weekday", "time", "code", "range"]
# "second" stays a word, because it is a unit of time too: "2nd" is turned into it instead.
ORDINALS = {"first": "1st", "2nd": "second", "third": "3rd", "fifth": "5th", "eighth": "8th", "ninth": "9th"}
ORDINALS |= {"twelfth": "12th", "twentieth": "20th", "thirtieth": "30th"}
ORDINALS |= {f"{word}th": f"{n}th" for n, word in enumerate(SMALL) if n in {4, 6, 7, 10, 11, *range(13, 20)}}
FREQUENCIES = {"hourly": "hour", "daily": "day", "nightly": "night", "weekly": "week", "monthly": "month"}
FREQUENCIES |= {"yearly": "year", "annually": "year", "quarterly": "quarter"}
BOUND_WORDS = {"≤": ("at most ", "最多"), "≥": ("at least ", "至少")}
BOUND_WORDS |= {"<": ("less than ", "少于"), ">": ("more than ", "超过")}
_WEEKDAYS = frozenset(words("monday tuesday wednesday thursday friday saturday sunday"))
_MONTH_OF = {form: n for n, name in enumerate(MONTHS, start=1) for form in (name, name[:3])} | {"sept": 9}
PERIODS = frozenset(words("second minute hour day night week fortnight month quarter year"))
_OPEN = {"cent": ("euro", "dollar"), "penny": ("pound",), "jiao": ("yuan",), "yensign": ("yen", "yuan")}
_TOKEN = re.compile(
    r"~?\d\d:\d\d|\d{1,2}/\d{1,2}/\d{4}|[a-z]{1,3}\d+(?:\.\d+)+|\d+(?:\.\d+){2,}|\d+(?:\.\d+|/[1-9]\d*)?(?![^\W_])"
    r"|[^\W\d_]{1,3}[+#]{1,2}|[^\W_]+|[≤≥≲<>⩾⩽=]|[.,;:!?()—\n]"
)
# What is written as code: between marks, an option, a path, an ending, a name with "_" or "()".
_NAMES = re.compile(
    r"`([^`\n]+)`|\[([^\s\[\]]+)\]|<([^\s<>]+)>"
    r"|(?<![^\s(\"'“‘])((?:--?|~/|\.{0,2}/|\.)[^\W\d][\w./-]*)|(?<!\w)(\w*[^\W_]_+[^\W_]\w*|\w+\(\))"
)
_MANY_PARTS = re.compile(r"[^\W\d]\d|\d[^\W\d]|\w[./_:@-]\w|\d\.\d+\.\d|^[-/.]")  # of a name written as code
_GOES_ON_BEFORE = re.compile(r"(?:[A-Za-z\d_.:-]|[A-Za-z\d_.]/)\Z")
_GOES_ON = re.compile(r"[A-Za-z\d_@]|[./:-]+[A-Za-z\d]")
_CLOCK_OR_SPAN = re.compile(r"(\d{1,2})h([0-5]\d)")
_CAPITALS = re.compile(r"\b[A-Z]{2,}\b")
FIGURES = frozenset({"number", "quantity", "time", "date", "weekday", "range", "code"})
_HEDGES = frozenset(words("but not maybe perhap possibly probably sometime"))  # in the singular
_SPLITS = frozenset(words("but however whereas while although though"))


class Item(NamedTuple):
    """One value or word of a text."""

    kind: Kind
    text: str  # in one spelling: "27 day", "18:40", "heron"
    readings: tuple[Any, ...]  # what it may mean, in base units; the plain meaning first
    unit: str = ""  # dimension of a quantity: "time", "money", ...
    bound: str = ""  # "<", "≤", "≥", ">", "≲" (must not exceed) or none
    factor: Fraction = Fraction(1)  # of its unit
    clause: int = 0  # clauses end at punctuation and at "but"
    mark: str = ""  # punctuation right before it
    asked: bool = False  # it stands in a question
    said: str = ""  # a word as it was written, in lower case: "databases"; "17:30" of the hours in "17h30"
    code: Literal["", "capitals", "name"] = ""  # written as code: "KILL" in capitals; "[databases]" as a name
    joined: bool = False  # to the item before it, in one name: "auth_file"

    @property
    def amount(self) -> str:
        return self.text.partition(" ")[0]


@lru_cache(maxsize=65536)
def _singular(token: str) -> str:
    if token == "yes":
        return token
    if len(token) > 4 and token.endswith("ies"):
        return token[:-3] + "y"
    if len(token) > 4 and token.endswith(("sses", "xes", "ches", "shes")):
        return token[:-2]
    if len(token) > 2 and token.endswith("s") and not token.endswith(("ss", "us", "is")):
        return token[:-1]
    return token


def _unit_of(tokens: Sequence[str], place: int) -> tuple[str, str, Fraction] | None:
    """The unit at a place behind a number or "per"."""
    if place >= len(tokens):
        return None
    return UNITS.get(tokens[place]) or UNITS.get(_singular(tokens[place]))


def _is_number(token: str) -> bool:
    return token[0].isdigit() and re.fullmatch(r"\d+(?:\.\d+|/[1-9]\d*)?", token) is not None


def _number(token: str, sign: int = 1) -> tuple[Fraction, ...]:
    """The readings of a number: "1.500" is 1500, or else 1.5."""
    value = sign * Fraction(token)
    return (1000 * value, value) if re.fullmatch(r"[1-9]\d{0,2}\.\d{3}", token) else (value,)


def _bare(token: str, sign: str) -> Item:
    """A number without a unit keeps its zeros: section 4.10 is not 4.1, and 07700 a telephone number."""
    whole, _, decimals = token.partition(".")
    kept = whole if not decimals.strip("0") else token.rstrip("0") if whole == "0" and decimals else token
    thousands = len(_number(token)) > 1
    readings = (plain(_number(token)[0]), kept, kept.rstrip("0")) if thousands else (kept,)
    return Item("number", sign + readings[0], tuple(sign + reading for reading in readings))


def _quantity(token: str, sign: int, unit: tuple[str, str, Fraction]) -> Item:
    dimension, name, factor = unit
    values = _number(token, sign)
    text = f"{plain(values[0])} {name}"
    if dimension in ("money", "cent"):
        readings = tuple((value * factor, currency) for value in values for currency in _OPEN.get(name, (name,)))
        return Item("quantity", text, readings, "money", factor=factor)
    return Item("quantity", text, tuple(value * factor for value in values), dimension, factor=factor)


def _day(item: Item) -> int | None:
    match = re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)?", "2" if item.text == "second" else item.text)
    return int(match[1]) if match and item.kind in ("number", "word") and 1 <= int(match[1]) <= 31 else None


def _a_date(day: int | None, month: int, year: int | None, also: tuple[int, int] | None = None) -> Item:
    text = " ".join(str(part) for part in (day, MONTHS[month - 1], year) if part)
    readings = ((year, month, day), *(((year, also[1], also[0]),) if also else ()))
    return Item("date", text, readings)


def _month_at(tokens: Sequence[str], place: int, items: list[Item]) -> tuple[Item, int] | None:
    """The date around the month at a place, and where it ends; its day is taken off the items."""
    month = _MONTH_OF.get(tokens[place])
    if month is None:
        return None
    day, end = None, place + 1
    of = 2 if len(items) > 1 and items[-1].text == "of" else 1
    if len(items) >= of and not items[-1].bound and (day := _day(items[-of])):
        del items[-of:]
    elif end < len(tokens) and (ahead := _day(Item("word", tokens[end], ()))) and not _unit_of(tokens, end + 1):
        day, end = ahead, end + 1
    comma = end + 1 if day and tokens[end : end + 1] == [","] else end
    year = None
    if comma < len(tokens) and re.fullmatch(r"(?:19|20)\d\d", tokens[comma]) and not _unit_of(tokens, comma + 1):
        year, end = int(tokens[comma]), comma + 1
    if tokens[place] in ("may", "mar", "dec", "sun") and not day and not year:
        return None
    return _a_date(day, month, year), end


def _cut(text: str) -> tuple[list[str], list[bool]]:
    """The tokens, and whether each is joined to the one before it by "_" or "/"."""
    found = list(_TOKEN.finditer(text))
    between = ["", *(text[one.end() : two.start()] for one, two in pairwise(found))]
    return [match[0] for match in found], [bool(gap) and set(gap) <= {"_", "/"} for gap in between]


@lru_cache(maxsize=65536)
def _as_code(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """The words, in lower case, that a text writes as names of code, and those in capitals."""
    spans = (" ".join(filter(None, match.groups())) for match in _NAMES.finditer(text))
    names = frozenset(re.findall(r"[^\W_]+", " ".join(spans).lower()))
    return names, frozenset(map(str.lower, _CAPITALS.findall(text)))


def _raw_items(tokens: list[str], joined: list[bool], text: str, articles: bool) -> Iterator[Item]:
    """The items in order, before what stands side by side is joined."""
    names, capitals = _as_code(text)
    items: list[Item] = []
    clause, mark, bound = 0, "", ""

    def add(item: Item) -> None:
        nonlocal mark, bound
        items.append(item._replace(clause=clause, mark=mark, bound=bound, joined=joined[i]))
        mark, bound = "", ""

    i = 0
    while i < len(tokens):
        token, rest = tokens[i], i + 1
        before = items[-1] if items and not mark else None
        following = _unit_of(tokens, rest)
        if token in ".,;:!?()—\n":
            if not (token == "." and items and items[-1].text in ("approx", "max", "min", "art", "sec")):
                mark, clause, bound = mark + token, clause + 1, ""
        elif token in "≤≥≲<>":
            bound = token
        elif token in "⩾⩽":
            if items:
                back = -2 if items[-1].kind == "word" and len(items) > 1 and items[-2].kind == "number" else -1
                items[back] = items[back]._replace(bound="≥" if token == "⩾" else "≤")
        elif (dated := _month_at(tokens, i, items)) is not None:
            add(dated[0])
            rest = dated[1]
        elif _is_number(token):
            minus = before is not None and before.text == "minus"
            if minus:
                bound = items.pop().bound
            if following is not None:
                add(_quantity(token, -1 if minus else 1, following))
                rest += 1
            else:
                add(_bare(token, "-" if minus else ""))
        elif re.fullmatch(r"~?\d\d:\d\d", token):
            minutes = (60 * int(token[-5:-3]) + int(token[-2:])) % 1440
            also = ((minutes + 720) % 1440,) if token[0] == "~" else ()
            add(Item("time", token.lstrip("~"), (minutes, *also)))
        elif clock := _CLOCK_OR_SPAN.fullmatch(token):
            hours = Fraction(int(clock[1])) + Fraction(int(clock[2]), 60)
            add(_quantity(str(hours), 1, UNITS["hour"])._replace(said=f"{int(clock[1]):02d}:{clock[2]}"))
        elif re.fullmatch(r"\d+/\d+/\d{4}", token):
            one, two, year = map(int, token.split("/"))
            add(_a_date(one, two, year, also=(two, one)))
        elif token in FREQUENCIES:
            add(Item("word", "per", ("per",)))
            add(Item("word", FREQUENCIES[token], (FREQUENCIES[token],)))
        elif token in ("each", "every") and (following or tokens[rest : rest + 1] in (["person"], ["trip"])):
            add(Item("word", "per", ("per",)))
        elif token in ("a", "an") and following and following[1] in PERIODS and articles:
            counted = len(items) > 1 and items[-2].kind == "number"
            if before is not None and (before.kind in ("quantity", "number") or counted):
                add(Item("word", "per", ("per",)))
            elif before is None or before.text != "per":
                add(_quantity("1", 1, following))
                rest += 1
        elif token == "fortnight" and (before is None or before.text != "per"):
            add(_quantity("1", 1, UNITS["fortnight"]))
        elif (
            token in ("a", "an", "the") and articles and token not in tokens[max(0, i - 1) : i] + tokens[rest:][:1]
        ) or (
            token == "number" and before is not None and before.kind == "word" and _is_number([*tokens, "."][rest])
        ):
            pass
        else:
            word = "a" if token == LETTER else token
            singular = _singular(ORDINALS.get(word, word))
            per = before is not None and before.text == "per"
            if singular in UNITS and (per or singular not in BEHIND_A_NUMBER):
                singular = UNITS[singular][1]
            code = not word.isalpha() and re.search(r"\d", word) and not re.fullmatch(r"\d+(?:st|nd|rd|th)", word)
            kind: Kind = "code" if code else "weekday" if singular in _WEEKDAYS else "word"
            written: Literal["", "capitals", "name"] = (
                "name" if token in names else "capitals" if token in capitals else ""
            )
            add(Item(kind, singular, (singular,), said=word, code=written))
            if word in _SPLITS:
                clause += 1
        i = rest
    ends = [n for n, item in enumerate(items) if n + 1 == len(items) or set(".!?\n") & set(items[n + 1].mark)]
    closing = mark
    start = 0
    for end in ends:
        mark_behind = items[end + 1].mark if end + 1 < len(items) else closing
        asked = "?" in mark_behind
        yield from (item._replace(asked=True) if asked else item for item in items[start : end + 1])
        start = end + 1


_OR = frozenset({"or", "或"})
_AND = frozenset({"and", "和", "与", "及", "以及"})
_IN_PLACE_OF = {("rather", "than"), ("instead", "of"), ("but", "not")}
_TO = frozenset({"to", "until", "till", "through"})
CHANGED = frozenset(
    words(
        "raised increased rose grew changed extended went moved lifted reduced lowered decreased fell cut"
        " increase change"
    )
)
_VALUES = frozenset({"number", "quantity", "time", "date", "weekday"})


def _with_unit(number: Item, of: Item) -> Item:
    """The number with the unit of the quantity that it is listed with: "7 or 9 days"."""
    sign = -1 if number.text.startswith("-") else 1
    name = of.text.partition(" ")[2]
    made = _quantity(number.readings[-1].lstrip("-"), sign, UNITS[name])
    return made._replace(clause=number.clause, mark=number.mark, bound=number.bound, asked=number.asked)


def _lend_unit(out: list[Item]) -> None:
    """Numbers listed before a quantity take its unit: "5, 7 or 9 days", "between 7 and 9 days"."""
    place = len(out) - 1
    if place < 2 or out[place].mark or out[place].kind != "quantity":
        return
    link = out[place - 1].text
    between = link in _AND and place > 2 and out[place - 3].text == "between"
    at = place - (3 if (out[place - 2].text, link) in _IN_PLACE_OF else 2)
    if link not in _OR and link not in _TO and link != "not" and not between and at == place - 2:
        return
    while at >= 0 and out[at].kind == "number":
        out[at] = _with_unit(out[at], out[place])
        if out[at].mark.strip() != "," or at == 0:
            break
        at -= 1


def _lend_month(out: list[Item]) -> None:
    """A day listed before a date takes its month and year: "1 to 15 March"."""
    if len(out) < 3 or out[-1].mark or out[-1].kind != "date" or out[-3].kind != "number":
        return
    (year, month, day), first = out[-1].readings[0], _day(out[-3])
    if first and day and out[-2].text in _OR | _AND | _TO and not out[-2].mark:
        out[-3] = _a_date(first, month, year)._replace(
            clause=out[-3].clause, mark=out[-3].mark, bound=out[-3].bound
        )


def _value_of(item: Item) -> Any:
    return item.readings[0][0] if item.unit == "money" else item.readings[0]


def _add_up(out: list[Item]) -> None:
    """ "1 hour and 30 minutes", "40 euros 50 cents": the smaller unit is added to the larger."""
    small = out[-1]
    at = -3 if len(out) > 2 and out[-2].text in _AND else -2
    if len(out) < -at or small.kind != "quantity" or small.mark not in ("", ",") or small.bound:
        return
    large = out[at]
    if large.kind != "quantity" or large.unit != small.unit or small.factor >= large.factor:
        return
    if abs(_value_of(small)) >= large.factor and small.unit != "money":
        return
    if small.unit == "money" and (
        large.readings[0][1] not in [r[1] for r in small.readings] + ["franc", "koruna"]
    ):
        return
    total = _value_of(large) + _value_of(small)
    readings = ((total, large.readings[0][1]),) if large.unit == "money" else (total,)
    text = f"{plain(total / large.factor)} {large.text.partition(' ')[2]}"
    out[at:] = [large._replace(text=text, readings=readings)]


def _join_range(out: list[Item]) -> None:
    if len(out) < 3 or out[-1].mark or out[-1].kind not in _VALUES or out[-1].kind != out[-3].kind:
        return
    low, link, high = out[-3:]
    head = out[-4].text if len(out) > 3 and not low.mark else ""
    if link.mark or not (link.text in _TO or (link.text in _AND and head == "between")):
        return
    if len(out) > 4 and head == "from" and out[-5].text in CHANGED:
        return
    if low.unit != high.unit or high.bound or (low.kind == "quantity" and _value_of(low) >= _value_of(high)):
        return
    if low.kind == "number" and Fraction(low.readings[0]) >= Fraction(high.readings[0]):
        return
    made = low._replace(
        kind="range",
        text=f"{low.text} to {high.text}",
        readings=((low.readings[0], high.readings[0]),),
        factor=high.factor,
    )
    out[-4 if head in ("between", "from") else -3 :] = [made]


@lru_cache(maxsize=65536)
def read(text: str) -> tuple[Item, ...]:
    """The items of a text, in order: values, and the words between them without articles.

    Numbers in words or figures, thousands separators, currency signs and codes, spellings of units, simple
    plurals and possessives, hyphens, clock times and dates are brought into one form; for Chinese see
    `tasks.values_zh`. Articles stay where nothing else is left.
    """
    chinese = has_chinese(text)
    tokens, joined = _cut(in_one_spelling(values_zh.in_figures(text) if chinese else text))
    found = tuple(_raw_items(tokens, joined, text, articles=not chinese))
    found = found or tuple(_raw_items(tokens, joined, text, articles=False))
    out: list[Item] = []
    for n, item in enumerate(found):
        trailing = item.kind == "number" and len(out) > 1 and out[-2].kind == "quantity" and not item.mark
        if trailing and out[-1].text in _OR | _HEDGES and (n + 1 == len(found) or found[n + 1].mark):
            item = _with_unit(item, out[-2])
        out.append(item)
        _lend_unit(out)
        _lend_month(out)
        _add_up(out)
        _join_range(out)
    return tuple(out)


def tokenize(text: str) -> tuple[str, ...]:
    """The items' normalised tokens: what token F1 counts."""
    return tuple(token for item in read(text) for token in (item.bound + item.text).split())


def normalise(text: str) -> str:
    """`tokenize`, joined by single blanks."""
    return " ".join(tokenize(text))


# The bounds of an answer that meet a key's. "must not exceed 40 euros" names the limit, and 40 euros is one.
_MEETS = {"": ("", "≲"), "≤": ("≤", "≲", ""), "≲": ("≤", "≲", ""), "≥": ("≥", "")}


def same(key: Item, item: Item, bounds: bool = True, any_unit: bool = False) -> bool:
    """Is the item's value the key's? The key decides among the item's readings.

    bounds: "at most 7 days" is neither "7 days" nor "at least 7 days"; the plain value may stand for a bound that
    includes it. any_unit: a key that is a bare number or range is met by the same with any unit. A word that the
    key writes as code is met by that word alone, in no other number: "[databases]" not by "database".
    """
    if bounds and item.bound not in _MEETS.get(key.bound, (key.bound,)):
        return False
    if key.kind == "time" and item.kind == "number" and (clock := re.fullmatch(r"(\d{1,2})\.(\d{2})", item.text)):
        return 60 * int(clock[1]) + int(clock[2]) == key.readings[0]
    if {key.kind, item.kind} == {"time", "quantity"}:  # 17h30
        (hour,) = (one.text for one in (key, item) if one.kind == "time")
        return hour in (key.said, item.said)
    if any_unit and not key.unit and item.unit and key.kind in ("number", "range"):
        return key.text == " to ".join(part.partition(" ")[0] for part in item.text.split(" to "))
    if key.kind != item.kind or (key.code and key.said != item.said):
        return False
    if key.unit != item.unit and {key.unit, item.unit} != {"degree", "celsius"}:
        return False
    if key.kind == "date":
        return any(all(k in (None, i) for k, i in zip(key.readings[0], r, strict=True)) for r in item.readings)
    if key.kind == "time" or (key.unit == "money" and len({r[1] for r in key.readings}) > 1):
        return not set(key.readings).isdisjoint(item.readings)
    return key.readings[0] in item.readings


def matches(
    key: Sequence[Item], items: Sequence[Item], bounds: bool = True, any_unit: bool = False
) -> list[tuple[int, int]]:
    """Where the key's items stand in a row: [start, end) pairs."""
    if not key:
        return []
    n, first = len(key), key[0]
    found = []
    for start in range(len(items) - n + 1):
        item = items[start]
        if first.kind == "word" and item.text != first.text:
            continue
        behind = items[start + n : start + n + 1]  # "auth_file" is not in "auth_file_2"
        if item.text == "per" and start and re.fullmatch(r"(?!1 ).* time", items[start - 1].text):
            continue  # twice a week is not weekly
        if (first.code == "name" and item.joined) or (key[-1].code == "name" and behind and behind[0].joined):
            continue
        within = start > 0 and items[start - 1].text == "within"
        within |= "内" in [other.text for other in items[start + n : start + n + 2]]
        if bounds and within and first.bound == "≥":  # within 7 days is not at least 7 days
            continue
        if all(same(key[k], items[start + k], bounds, any_unit) for k in range(n)):
            found.append((start, start + n))
    return found


def in_longer_names(value: str, text: str) -> bool:
    """Does a name of several parts stand in the text in longer names alone: "/etc/hosts" in "/etc/hosts.allow"?"""
    name = value.strip(" \n`'\"“”.,;")
    if " " in name or name.lower() not in text.lower() or not _MANY_PARTS.search(name):
        return False
    if not re.search(r"[A-Za-z]|\d\.\d+\.\d", name):
        return False
    if not re.fullmatch(r"-\w", name):  # of an option of one letter the case counts
        name, text = name.lower(), text.lower()
    place = text.find(name)
    while place >= 0:
        if not _GOES_ON_BEFORE.search(text[max(0, place - 2) : place]) and not _GOES_ON.match(
            text, place + len(name)
        ):
            return False
        place = text.find(name, place + 1)
    return True


def stands_in(value: str, text: str) -> bool:
    """Does the value stand in the text, as a value: "9 days" not in "19 days", "90 minutes" in "1.5 hours"?

    A bound before it or its place in a range does not matter, and a bare number stands there with any unit.
    """
    if in_longer_names(value, text):
        return False
    key, items = read(value), read(text)
    if matches(key, items, bounds=False, any_unit=len(key) == 1):
        return True
    ends = (end for item in items if item.kind == "range" for end in item.readings[0])
    return len(key) == 1 and key[0].kind in _VALUES and key[0].readings[0] in ends


def bounded_forms(value: str, text: str) -> tuple[str, ...]:
    """The value with the bound that it has in a text ("at least 7 weeks"), and with what that bound leaves.

    Where consent is needed above 390 euros, "up to 390 euros" says what may be spent without it.
    """
    found = (read(text)[start].bound for start, _ in matches(read(value), read(text), bounds=False))
    allowed = {">": ">≤", "<": "<≥", "≲": "≤"}
    bounds = dict.fromkeys(sign for bound in found for sign in allowed.get(bound, bound))
    return tuple(f"{BOUND_WORDS[sign][has_chinese(value)]}{value}" for sign in bounds)
