"""Is an answer right? Normalisation that knows numbers and units, and the rules of *correct*.

After SQuAD's evaluation script (Rajpurkar et al. 2016, arXiv:1606.05250: lower case, no punctuation,
no articles), extended so that "EUR 1,500", "1500 euros" and "one thousand five hundred euros" are one
value, and hardened by *rivals*: the values of near-miss clauses, any of which makes an answer wrong.
Containment is by whole tokens, so "40" stands in "40 euros" but not in "140" or "40.5".
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

from eval import scoring_zh
from tasks.base import QA
from tasks.chinese import has_chinese


class ScoringError(ValueError):
    """A question whose key cannot be scored: names the question and the fix."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ARTICLES = frozenset({"a", "an", "the"})

SMALL_NUMBERS = {
    word: value
    for value, word in enumerate(
        _words(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
            "sixteen seventeen eighteen nineteen"
        )
    )
}
TENS = {
    word: 10 * value
    for value, word in enumerate(_words("twenty thirty forty fifty sixty seventy eighty ninety"), start=2)
}
SCALES = {"thousand": 10**3, "k": 10**3, "million": 10**6, "billion": 10**9, "bn": 10**9}
# "second" stays a word, because it is a unit of time too: "2nd" is turned into it instead.
ORDINALS = {
    "first": "1st",
    "2nd": "second",
    "third": "3rd",
    "fourth": "4th",
    "fifth": "5th",
    "sixth": "6th",
    "seventh": "7th",
    "eighth": "8th",
    "ninth": "9th",
    "tenth": "10th",
    "eleventh": "11th",
    "twelfth": "12th",
    "fifteenth": "15th",
    "twentieth": "20th",
    "thirtieth": "30th",
}
COUNTS = {"once": ("1", "time"), "twice": ("2", "time"), "thrice": ("3", "time")}
FREQUENCIES = {"hourly": "hour", "daily": "day", "nightly": "night", "weekly": "week", "monthly": "month"}
FREQUENCIES |= {"yearly": "year", "annually": "year", "quarterly": "quarter"}

_TIME_ORDER = {unit: i for i, unit in enumerate(_words("second minute hour day week month year"))}
TIME_UNITS = frozenset(_words("second minute hour day night week fortnight month quarter year"))
ABBREVIATIONS = {  # read as units only behind a number or "per": "HR-204" is a form, "min" may be minimum
    "h": "hour", "hr": "hour", "min": "minute", "sec": "second", "s": "second", "d": "day", "wk": "week",
    "yr": "year", "mth": "month", "m": "meter", "km": "kilometer", "cm": "centimeter", "mm": "millimeter",
    "kg": "kilogram", "g": "gram", "lb": "pound", "l": "liter", "ml": "milliliter", "kb": "kilobyte",
    "mb": "megabyte", "gb": "gigabyte", "tb": "terabyte", "kw": "kilowatt", "kwh": "kilowatthour",
    "db": "decibel", "pct": "percent",
}  # fmt: skip
UNITS = {  # singular form -> one spelling
    "kilometre": "kilometer", "metre": "meter", "centimetre": "centimeter", "millimetre": "millimeter",
    "kilo": "kilogram", "kilogramme": "kilogram", "gramme": "gram", "litre": "liter",
    "millilitre": "milliliter", "usd": "dollar", "eur": "euro", "gbp": "pound", "chf": "franc",
    "jpy": "yen", "inr": "rupee", "cny": "yuan", "rmb": "yuan", "renminbi": "yuan", "sek": "krona",
    "nok": "krone", "dkk": "krone", "pln": "zloty", "czk": "koruna",
}  # fmt: skip
CURRENCY_SIGNS = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
CURRENCY_CODES = ("usd", "eur", "gbp", "chf", "jpy", "cny", "rmb", "inr", "sek", "nok", "dkk", "pln", "czk")
UNIT_WORDS = TIME_UNITS | {*UNITS.values(), *ABBREVIATIONS.values(), *CURRENCY_SIGNS.values(), "time"}
MONTH_ORDER = _words("january february march april may june july august september october november december")
MONTHS = {form: name for name in MONTH_ORDER for form in (name, name[:3])} | {"sept": "september"}

_NUMBER = r"\d+(?:\.\d+)?"
_SCALE = r"(?:\s*(?:k|m|bn)\b|\s+(?:thousand|million|billion)\b)?"  # of money
_FRACTIONS = {"½": ".5", "¼": ".25", "¾": ".75"}
_SPLITTABLE = "|".join(
    sorted({"k", "bn", *UNITS, *ABBREVIATIONS, *(f"{u}s" for u in ABBREVIATIONS)}, key=len, reverse=True)
)


def _money(amount: str, currency: str) -> str:
    return f" {re.sub('(?<=[0-9 ])m$', ' million', amount)} {currency} "


def _surface(text: str) -> str:
    """Characters: currency signs and codes behind their number, separators, clock times, ranges."""
    text = re.sub("(?<=\\d)[\u00a0\u2009\u202f'’](?=\\d{3}(?!\\d))", "", text)  # 1 500, 1'500
    for sign, decimals in _FRACTIONS.items():
        text = re.sub(rf"(?<=\d)\s?{sign}", decimals, text).replace(sign, f"0{decimals}")
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub("[\u2010-\u2015\u2212]", "-", text).replace("’", "'").replace("‘", "'")
    text = re.sub(r"\b(?:[a-z]\.){2,}", lambda m: m[0].replace(".", ""), text)  # a.m., u.s.
    text = re.sub(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d]|,\d)", lambda m: m[0].replace(",", ""), text)
    text = re.sub(
        r"\b(\d{4})-(0[1-9]|1[0-2])-(\d{2})\b",
        lambda m: f"{int(m[3])} {MONTH_ORDER[int(m[2]) - 1]} {m[1]}",
        text,
    )
    text = re.sub(r"(?<=\d)\s?-\s?(?=\d)", " to ", text)
    text = re.sub(r"\bus\s?\$", "$", text)
    text = re.sub(
        rf"([{''.join(CURRENCY_SIGNS)}])\s*({_NUMBER}{_SCALE})",
        lambda m: _money(m[2], CURRENCY_SIGNS[m[1]]),
        text,
    )
    text = re.sub(rf"\b({'|'.join(CURRENCY_CODES)})\s?({_NUMBER}{_SCALE})", lambda m: _money(m[2], m[1]), text)
    for sign, word in CURRENCY_SIGNS.items():
        text = text.replace(sign, f" {word} ")
    text = re.sub(r"\bus (?=dollars?\b)|\bswiss (?=francs?\b)|(?<=pounds) sterling\b", "", text)
    text = re.sub(r"%|\bper cent\b", " percent ", text)
    text = re.sub(r"(?:°|\bdegrees?)\s?c(?:elsius)?\b", " celsius", text)
    text = re.sub(r"(?:°|\bdegrees?)\s?f(?:ahrenheit)?\b", " fahrenheit", text).replace("°", " degree ")
    text = re.sub(r"\b12 (?=noon\b|midnight\b)", "", text)
    text = re.sub(r"\bnoon\b", "12:00", re.sub(r"\bmidnight\b", "00:00", text))
    text = re.sub(r"\b(\d{1,2})[:.](\d{2})\s?(am|pm)\b|\b(\d{1,2})()\s?(am|pm)\b", _half_day, text)
    text = re.sub(r"\b(\d{1,2}):(\d{2})\b", lambda m: f"{int(m[1]):02d}:{m[2]}", text)
    text = re.sub(r"\s*/\s*(?=(?:day|night|hour|hr|h|week|month|year|person|km|kg)\b)", " per ", text)
    text = re.sub(r"(?<![\w)])-(?=\d)", " minus ", text).replace("-", " ").replace("&", " and ")
    text = re.sub(r"'s\b", "", text).replace("'", "")
    return re.sub(rf"\b({_NUMBER})({_SPLITTABLE})\b", r"\1 \2", text)


def _half_day(match: re.Match[str]) -> str:
    hour, minute, half = (match[1] or match[4], match[2] or "00", match[3] or match[6])
    return f"{int(hour) % 12 + (12 if half == 'pm' else 0):02d}:{minute}"


def _is_number(token: str) -> bool:
    return re.fullmatch(_NUMBER, token) is not None


def _plain(value: Decimal) -> str:
    return format(value.normalize(), "f") if value else "0"


def _number_at(tokens: Sequence[str], start: int) -> tuple[str, int] | None:
    """The number in words or digits that begins at `start`, in digits, and where it ends."""
    total, current, place = Decimal(0), None, ""  # place: what was read last
    largest_scale = Decimal("Infinity")
    i = start
    if tokens[i] == "a" and i + 1 < len(tokens) and tokens[i + 1] in {"hundred", "dozen", *SCALES}:
        current, place, i = Decimal(1), "small", i + 1
    end = start
    while i < len(tokens):
        token = tokens[i]
        if token in SMALL_NUMBERS and (
            current is None or place == "hundred" or (place == "tens" and 0 < SMALL_NUMBERS[token] < 10)
        ):
            current, place = (current or Decimal(0)) + SMALL_NUMBERS[token], "small"
        elif token in TENS and (current is None or place == "hundred"):
            current, place = (current or Decimal(0)) + TENS[token], "tens"
        elif _is_number(token) and end == start and current is None:
            if token.startswith("0") and token.isdigit():
                return token, i + 1  # a code or a telephone number: leading zeros stay
            current, place = Decimal(token), "digits"
        elif token == "hundred" and current is not None and place in {"small", "digits"}:
            current, place = current * 100, "hundred"
        elif token == "dozen" and current is not None:
            return _plain(total + current * 12), i + 1
        elif token in SCALES and current is not None and SCALES[token] < largest_scale:
            largest_scale = Decimal(SCALES[token])
            total, current, place = total + current * largest_scale, None, "hundred"
        elif (
            token == "and"
            and place == "hundred"
            and i + 1 < len(tokens)
            and (tokens[i + 1] in SMALL_NUMBERS or tokens[i + 1] in TENS)
        ):
            i += 1
            continue
        else:
            break
        i += 1
        end = i
    if end == start:
        return None
    value = total + (current or Decimal(0))
    if tuple(tokens[end : end + 3]) == ("and", "a", "half"):
        value, end = value + Decimal("0.5"), end + 3
    return _plain(value), end


def _singular(token: str) -> str:
    if len(token) > 4 and token.endswith("ies"):
        return token[:-3] + "y"
    if len(token) > 4 and token.endswith(("sses", "xes", "ches", "shes")):
        return token[:-2]
    if len(token) > 2 and token.endswith("s") and not token.endswith(("ss", "us", "is")):
        return token[:-1]
    return token


@lru_cache(maxsize=65536)
def tokenize(text: str) -> tuple[str, ...]:
    """Normalised tokens of a text.

    Lower case; punctuation and articles gone; number words as digits, without thousands separators or
    trailing zeros; currency signs and codes and "%" as unit words behind their number; units in one
    spelling; simple plurals and possessives cut; hyphens opened; clock times as HH:MM; "1 March" and
    "March 1st" alike; "a day", "each day", "daily" and "/day" as "per day". For Chinese see scoring_zh.
    """
    chinese = has_chinese(text)
    if chinese:
        text = scoring_zh.in_figures(text)
    raw = re.findall(r"\d\d:\d\d|\d+(?:\.\d+){2,}|\d+\.\d+|[^\W_]+", _surface(text))
    numbered: list[str] = []
    i = 0
    while i < len(raw):
        number = _number_at(raw, i)
        if number is not None:
            numbered.append(number[0])
            i = number[1]
        else:
            numbered.append(raw[i])
            i += 1
    tokens: list[str] = []
    for i, token in enumerate(numbered):
        following = _singular(numbered[i + 1]) if i + 1 < len(numbered) else ""
        following = UNITS.get(following, ABBREVIATIONS.get(following, following))
        before = tokens[-1] if tokens else ""
        singular = _singular(ORDINALS.get(token, token))
        if token in COUNTS:
            tokens.extend(COUNTS[token])
        elif token in FREQUENCIES:
            tokens.extend(("per", FREQUENCIES[token]))
        elif token in {"each", "every"} and following in UNIT_WORDS | {"person", "trip"}:
            tokens.append("per")
        elif token in {"a", "an"} and following in TIME_UNITS:
            if before == "half":
                tokens[-1] = "0.5"
            elif before in UNIT_WORDS or _is_number(before):
                tokens.append("per")
            elif before != "per":
                tokens.append("1")
        elif token == "half" and following in TIME_UNITS:
            tokens.append("0.5")
        elif token in ARTICLES and not chinese:
            continue
        elif singular in ABBREVIATIONS and (_is_number(before) or before == "per"):
            tokens.append(ABBREVIATIONS[singular])
        else:
            tokens.append(UNITS.get(singular, singular))
    return tuple(_day_before_month(tokens))


def _day_before_month(tokens: list[str]) -> list[str]:
    """ "march 1st", "1st of march" and "1 march" all read "1 march"."""

    def day(token: str) -> str | None:
        match = re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)?", "2nd" if token == "second" else token)
        return match[1].lstrip("0") if match and 1 <= int(match[1]) <= 31 else None

    out: list[str] = []
    i = 0
    while i < len(tokens):
        month = MONTHS.get(tokens[i])
        if month is None:
            out.append(tokens[i])
            i += 1
            continue
        if len(out) > 1 and out[-1] == "of" and day(out[-2]):
            out.pop()
        if out and day(out[-1]):
            out[-1] = day(out[-1]) or ""
            out.append(month)
        elif i + 1 < len(tokens) and day(tokens[i + 1]):
            out.extend((day(tokens[i + 1]) or "", month))
            i += 1
        else:
            out.append(month)
        i += 1
    return out


def normalise(text: str) -> str:
    """`tokenize`, joined by single blanks: what exact match and consistency compare."""
    return " ".join(tokenize(text))


def spans(needle: str, haystack: str) -> list[tuple[int, int]]:
    """Where the tokens of `needle` stand in a row among the tokens of `haystack`: [start, end) pairs."""
    want, have = tokenize(needle), tokenize(haystack)
    if not want:
        return []
    return [
        (i, i + len(want))
        for i in range(len(have) - len(want) + 1)
        if have[i : i + len(want)] == want and not _part_of_a_larger_value(have, i, i + len(want))
    ]


def _part_of_a_larger_value(tokens: Sequence[str], start: int, end: int) -> bool:
    """Is the figure tokens[start:end] only a piece of a range, of a sum of units or of a negative number?

    "30 days" is no value of "20 to 30 days", "20 minutes" none of "1 hour 20 minutes", "1 hour" none of
    "1 hour 20 minutes", "5 euros" none of "minus 5 euros".
    """
    if not _is_number(tokens[start]):
        return False
    before, after = list(tokens[max(0, start - 3) : start]), list(tokens[end : end + 3])
    if before[-1:] == ["minus"]:
        return True
    if len(before) > 1 and before[-1] == "to" and _is_number(before[-2]):
        return True
    if len(before) > 2 and before[-3] == "between" and _is_number(before[-2]) and before[-1] == "and":
        return True
    if end - start != 2 or tokens[end - 1] not in _TIME_ORDER:
        return False
    place = _TIME_ORDER[tokens[end - 1]]
    before = [token for token in before if token != "and"][-2:]
    after = [token for token in after if token != "and"][:2]
    larger = len(before) == 2 and _is_number(before[0]) and _TIME_ORDER.get(before[1], -1) > place
    smaller = len(after) == 2 and _is_number(after[0]) and _TIME_ORDER.get(after[1], 99) < place
    return larger or smaller


def _asserted(value: str, final: str) -> list[tuple[int, int]]:
    """The spans of a value that the answer does not deny: "40 euros, not 50" asserts 40 euros only."""
    tokens = tokenize(final)
    return [
        (start, end)
        for start, end in spans(value, final)
        if not (tokens[max(0, start - 1) : start] in _DENIALS or tokens[max(0, start - 2) : start] in _DENIALS)
    ]


def held_values(final: str, qa: QA) -> tuple[bool, tuple[str, ...]]:
    """Does the answer hold the key (or an alias), and which rivals does it hold?

    A rival that lies wholly inside a span matched by the key or an alias is part of that span and does
    not count: with the key "10 working days" the rival "10" is no contradiction. A value right behind
    "not", "rather than" or "instead of" is denied and counts on neither side, so that setting a user's
    wrong claim right is no mistake.
    """
    key_spans = [span for value in (qa.answer, *qa.aliases) for span in _asserted(value, final)]
    rivals = tuple(
        rival
        for rival in qa.rivals
        if any(not any(start <= s and e <= end for start, end in key_spans) for s, e in _asserted(rival, final))
    )
    return bool(key_spans), rivals


_DENIALS = {("not",), ("isnt",), ("arent",), ("wasnt",), ("rather", "than"), ("instead", "of")}
_DENIALS |= scoring_zh.DENIALS


def _check(qa: QA) -> None:
    if (qa.kind == "unanswerable") != (not qa.memory_ids):
        raise ScoringError(
            f"question {qa.id!r} has kind {qa.kind!r} and memory_ids {qa.memory_ids!r}: exactly the "
            "unanswerable questions rest on no clause"
        )
    if qa.memory_ids and not tokenize(qa.answer):
        raise ScoringError(f"question {qa.id!r}: nothing is left of its key {qa.answer!r} to compare with")


def is_correct(final: str, qa: QA) -> bool:
    """*Correct*, the one definition of every accuracy here (DESIGN section 3).

    final: the text after `</think>`, "" where the think never closed (which is wrong). Answerable: holds
    the key or an alias bounded by tokens, holds no rival, and does not abstain. Unanswerable: abstains,
    and names no rival value beside. Raises ScoringError where the question has no usable key.
    """
    _check(qa)
    if not final.strip():
        return False
    holds_key, rivals = held_values(final, qa)
    if rivals or holds_key != bool(qa.memory_ids):
        return False
    return abstains(final, qa) != holds_key


def exact_match(final: str, qa: QA) -> float:
    """1.0 where the whole normalised answer equals the key or an alias. SQuAD's EM, arXiv:1606.05250.

    Unanswerable: 1.0 where it abstains, as in SQuAD 2.0.
    """
    _check(qa)
    if not qa.memory_ids:
        return float(is_abstention(final))
    return float(normalise(final) in {normalise(value) for value in (qa.answer, *qa.aliases)})


def token_f1(final: str, qa: QA) -> float:
    """Harmonic mean of token precision and recall against the key, best over aliases, in [0, 1].

    SQuAD's F1, arXiv:1606.05250. Unanswerable: 1.0 where it abstains, as in SQuAD 2.0.
    """
    _check(qa)
    if not qa.memory_ids:
        return float(is_abstention(final))
    return max(overlap_f1(final, value) for value in (qa.answer, *qa.aliases))


def overlap_f1(left: str, right: str) -> float:
    """Token F1 of two texts after normalisation, in [0, 1]."""
    a, b = tokenize(left), tokenize(right)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


_CONTRACTIONS = {
    "can't": "can not", "cannot": "can not", "won't": "will not", "n't": " not", "i'm": "i am",
    "there's": "there is", "that's": "that is", "it's": "it is", "i've": "i have",
}  # fmt: skip
_SOURCE = (
    r"(?:handbook|rule ?book|manual|polic(?:y|ies)|clauses?|rules?|regulations?|documents?|text|notes?"
    r"|sections?|guidelines?|guide|memor(?:y|ies)|knowledge|records?|materials?|provisions?|information)"
)
_SAY = (
    r"(?:say|state|mention|specify|address|define|tell|answer|discuss|indicate|list|explain|describe|speak"
    r"|name|talk)"
)
_HOLD = r"(?:cover|contain|include|give|provide|regulate|set|have|deal)"
_SAID = (
    r"(?:covered|mentioned|specified|stated|addressed|given|found|set out|provided|regulated|defined"
    r"|listed|described|discussed|answered|documented|dealt with|known|recorded)"
)
_PLAIN_ABSTENTIONS = re.compile(
    "|".join(
        (
            rf"\b{_SOURCE}\b[^.;!?]{{0,60}}?\b(?:does|do|did) not (?:\w+ly |even )?{_SAY}\b",
            rf"\b{_SOURCE}\b[^.;!?]{{0,30}}?\b(?:(?:is|are) silent|says? nothing)\b",
            r"\bi (?:do|can|could|am|would) not (?:\w+ly )?(?:know|say|tell|find|answer|determine|be sure"
            r"|sure|recall|certain|aware|have (?:a|any|that|this|the|enough))\b",
            r"\b(?:can|could) not be (?:\w+ly )?(?:answered|determined|found|known|said)\b",
        )
    )
)
_ABSTENTIONS = re.compile(
    "|".join(
        (
            rf"\b{_SOURCE}\b[^.;!?]{{0,60}}?\b(?:does|do|did) not (?:\w+ly |even )?{_HOLD}\b",
            rf"\bnot (?:\w+ly )?{_SAID} (?:by|in|under) (?:\w+ ){{0,2}}{_SOURCE}\b",
            rf"\b(?:this|that|it|which|question|matter|topic|subject|point|answer) (?:is|are|was) not "
            rf"(?:\w+ly )?{_SAID}\b",
            rf"\b(?:there (?:is|are)|i (?:have|find|found|see|know of|recall)|contains?|has|have|gives?) "
            rf"no (?:such |\w+ ){{0,2}}(?:{_SOURCE}|mention|answer|entry|statement)\b",
            rf"\bno (?:such |\w+ ){{0,2}}(?:{_SOURCE}|mention|entry) (?:\w+ ){{0,2}}?(?:covers?|says?|states?"
            r"|mentions?|specif(?:y|ies)|address(?:es)?|deals?|about|on this|for this|exists?|applies|apply"
            r"|answers?|is given|was found|found|available)\b",
            rf"\bnot (?:in|part of|anywhere in) (?:the|this|our|any|my) {_SOURCE}\b",
            r"\bnothing (?:is said|is stated|about (?:this|that|it))\b",
        )
    )
)
# These read as abstentions only where the answer gives no figure: "40 euros; alcohol is not covered".
_LOOSE_ABSTENTIONS = re.compile(
    rf"\bnot (?:\w+ly )?{_SAID}\b|^\W*(?:no (?:clause|rule|answer|information)|unknown|unanswerable"
    r"|n/a|none)\b|\bunspecified\b|\bno clause\b"
)


@lru_cache(maxsize=65536)
def is_abstention(final: str) -> bool:
    """Does the answer say that the handbook does not tell? By pattern, in English or Chinese, no judge model.

    Covers "The handbook does not say", "This is not covered", "There is no clause about that", "I don't
    know" and their like. Bare phrases ("not covered") count only in an answer without any figure, since
    "40 euros, alcohol is not covered" is an answer.
    """
    text = _for_patterns(final)
    if _PLAIN_ABSTENTIONS.search(text) or _ABSTENTIONS.search(text):
        return True
    has_figure = any(map(_is_number, tokenize(final)))
    if has_chinese(final) and scoring_zh.abstains(final, has_figure):
        return True
    return bool(_LOOSE_ABSTENTIONS.search(text)) and not has_figure


def _for_patterns(final: str) -> str:
    text = " ".join(unicodedata.normalize("NFKC", final).lower().replace("’", "'").split())
    for short, long in _CONTRACTIONS.items():
        text = text.replace(short, long)
    return text


def abstains(final: str, qa: QA) -> bool:
    """`is_abstention`, with the key in view.

    In an answer that holds the key, words that also state facts do not count ("No, the policy does not
    cover contractors" to the key "no"); only plain ones do ("I don't know, perhaps 40 euros"), and not even
    those where the key itself reads like them.
    """
    if not (qa.memory_ids and held_values(final, qa)[0]):
        return is_abstention(final)
    if any(is_abstention(value) for value in (qa.answer, *qa.aliases)):
        return False
    return _PLAIN_ABSTENTIONS.search(_for_patterns(final)) is not None or scoring_zh.plainly_abstains(final)


def verbatim(text: str, memory_text: str) -> bool:
    """Is the text the memory's text, character by character, whitespace runs and ends aside?

    In Chinese all whitespace is put aside, and the width of characters and punctuation. Raises ScoringError
    where the memory has no text.
    """
    _check_text(memory_text)
    if has_chinese(memory_text):
        return scoring_zh.folded(text) == scoring_zh.folded(memory_text)
    return " ".join(text.split()) == " ".join(memory_text.split())


def recites(think: str, memory_text: str) -> bool:
    """Does the memory's text stand in the think, character by character, whitespace runs aside?

    Chinese text is compared as by `verbatim`. Raises ScoringError where the memory has no text.
    """
    _check_text(memory_text)
    if has_chinese(memory_text):
        return scoring_zh.folded(memory_text) in scoring_zh.folded(think)
    return " ".join(memory_text.split()) in " ".join(think.split())


def _check_text(memory_text: str) -> None:
    if not memory_text.strip():
        raise ScoringError("the memory has no text to compare with")
