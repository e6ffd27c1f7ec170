"""A text in one spelling: numbers in figures, times as HH:MM, one sign for each bound.

The first half of `tasks.values`: rules that rewrite the text, in order. What they leave is cut into tokens there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SMALL = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = {w: 10 * n for n, w in enumerate(words("twenty thirty forty fifty sixty seventy eighty ninety"), start=2)}
NUMBERS = {word: n for n, word in enumerate(SMALL)} | TENS
SCALES = {"hundred": 100, "dozen": 12, "thousand": 10**3, "million": 10**6, "billion": 10**9}
NTH = words("first second third fourth fifth sixth seventh eighth ninth")
MONTHS = words("january february march april may june july august september october november december")

UNITS: dict[str, tuple[str, str, Fraction]] = {}  # a spelling -> dimension, name, factor
BEHIND_A_NUMBER: set[str] = set()  # spellings that are units there only: "min" may be minimum
for _line in (Path(__file__).parent / "data" / "units.txt").read_text(encoding="utf-8").splitlines()[1:]:
    _dimension, _, _units = _line.partition(": ")
    for _unit in _units.split(" | "):
        _name, _factor, *_spellings = _unit.split()
        for _spelling in (_name, *_spellings):
            UNITS[_spelling.lstrip("~")] = (_dimension, _name, Fraction(_factor))
        BEHIND_A_NUMBER |= {s[1:] for s in _spellings if s.startswith("~")}
LETTER = "ᴀ"  # "A" as a name, which is no article: "Block A"
_SIGNS = {"¢": "cent", "$": "dollar", "€": "euro", "£": "pound", "¥": "yensign", "₹": "rupee"}
_CODES = "usd|eur|gbp|chf|jpy|cny|rmb|inr|sek|nok|dkk|pln|czk"
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}


def plain(value: Fraction) -> str:
    """In figures; as a fraction where no short decimal is exact."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.6f}".rstrip("0") if (value * 10**6).denominator == 1 else str(value)


def _number_words(match: re.Match[str]) -> str:
    """ "one thousand five hundred" -> "1500", "ten twenty" -> "10 20", "2.5 million" -> "2500000"."""
    found: list[str] = []
    total, current, place = Fraction(0), Fraction(0), ""
    for word in (*re.findall(rf"{_N}|[a-z]+", match[0]), "end"):
        follows = place in ("", "large") or (place == "tens" and word in SMALL[1:10])
        if word == "end" or (word in NUMBERS and not follows):
            found += [plain(total + current)] if place else []
            total, current = Fraction(0), Fraction(0)
        if word in NUMBERS:
            current, place = current + NUMBERS[word], "tens" if word in TENS else "small"
        elif word in SCALES or word in ("k", "bn"):
            scale = SCALES.get(word, 10**3 if word == "k" else 10**9)
            if scale <= 100:
                current, place = (current or Fraction(1)) * scale, "large"
            else:
                total, current, place = total + (current or Fraction(1)) * scale, Fraction(0), "large"
        elif word != "and":
            current, place = Fraction(word) if word[0].isdigit() else Fraction(1), "small"
    return " ".join(found)


def _in_half_day(hour: int, half: str) -> str:
    if half in ("am", "morning") or hour > 12 or (half == "night" and (hour < 5 or hour == 12)):
        return f"{hour % 12 if hour == 12 else hour:02d}"
    return f"{hour % 12 + 12:02d}"


def _clock(match: re.Match[str]) -> str:
    if match[5]:
        return f"~{int(match[5]):02d}:00" if int(match[5]) < 25 else match[0]
    return f" {_in_half_day(int(match[1]), match[3] or match[4])}:{match[2] or '00'} "


def _spoken(match: re.Match[str]) -> str:
    """ "quarter to 6" -> "~05:45"; "20 to 30", a range, stays."""
    minutes = {"half": 30, "quarter": 15}.get(match[1]) or int(match[1])
    hour, back, half = int(match[3]), match[2] in ("to", "before"), match[4] or match[5]
    clear = not match[1].isdigit() or match[2] == "past" or half or (back and minutes > hour and minutes % 5 == 0)
    if not clear or not 0 < hour < 13 or not 0 < minutes < 60 or (match[2] in ("before", "after") and not half):
        return match[0]
    hour, minute = divmod(60 * hour + (-minutes if back else minutes), 60)
    return f" {_in_half_day(hour or 12, half)}:{minute:02d} " if half else f" ~{hour % 12:02d}:{minute:02d} "


def _date(day: int, month: int, year: str) -> str:
    return f" {day} {MONTHS[month - 1]} {year} "


def _numeric_date(match: re.Match[str]) -> str:
    day, month = int(match[1]), int(match[3])
    if match[2] == "/" and day != month and day < 13 and month < 13:
        return f" {day}/{month}/{match[4]} "
    day, month = (month, day) if month > 12 >= day else (day, month)
    return _date(day, month, match[4]) if 0 < month < 13 and 0 < day < 32 else match[0]


def _fraction(match: re.Match[str]) -> str:
    whole, over, under = int(match[1] or 0), int(match[2]), int(match[3])
    if match[3][0] == "0" and not match[1] and under > 0 and 0 < over < 32:
        return _date(over, under, "")  # 15/03
    common = over < under and under in (2, 3, 4, 5, 6, 8, 10)
    return plain(whole + Fraction(over, under)) if common else match[0]


def _part(match: re.Match[str]) -> str:
    """ "a quarter of a" -> "0.25", "2 thirds" -> "2/3"."""
    parts = {"quarter": 4, "tenth": 10}.get(match[2]) or NTH.index(match[2]) + 1
    return plain(Fraction(int(match[1]) if match[1].isdigit() else 1, parts))


def _roman(match: re.Match[str]) -> str:
    digits = [_ROMAN[c] for c in match[2].upper()]
    return f"{match[1]} {sum(-d if d < max(digits[n:]) else d for n, d in enumerate(digits))}"


def _one_of(words: set[str]) -> str:
    """With plurals, the longest first."""
    return "|".join(sorted((word + s for word in words for s in ("", "s")), key=len, reverse=True))


def _whole_days(match: re.Match[str]) -> str:
    """ "Mon-Fri" -> "monday-friday"."""
    names = {name[:3]: name for name in words("monday tuesday wednesday thursday friday saturday sunday")}
    return re.sub(rf"\b(?:{_DAYS})\b\.?", lambda day: names[day[0][:3]], match[0])


_N = r"\d+(?:\.\d+)?"
_MEASURES = _one_of(set(UNITS))
_PERIOD = "(?:seconds?|minutes?|hours?|days?|nights?|weeks?|months?|years?)"
_MONTH = "|".join((*MONTHS, *(name[:3] for name in MONTHS)))
_DAYS = "mon(?:day)?|tue(?:s|sday)?|wed(?:nesday)?|thu(?:r?s|rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?"
_LARGE = "(?:hundred|thousand|million|billion|dozen)"
_WORD = "|".join((*NUMBERS, *SCALES))
_HALF_DAY = r"(?: ?(am|pm)\b| (?:in the |at )(morning|afternoon|evening|night)\b)"
_MINUTES = r"\b(?:a )?(half|quarter|\d{1,2})(?: minutes?)? (past|to|before|after) (\d{1,2})\b"
_FOLLOWED = rf"(?=(?: (?:of|an?|the|about|around|another|{_CODES}))* ?[$€£¥₹~-]? ?(?:\d|minus))"  # by a value
_ABOVE = "(?:more|longer|greater|higher|larger|bigger|older|heavier|farther|further|over|above)"
_BELOW = "(?:less|fewer|shorter|smaller|lower|younger|lighter|under|below)"
_NO = r"\b(?:no|not|never)((?: \w+){0,4}?)"
_LAST = r"(?= *(?:[.,;)]|$))"
_LABEL = (
    "[Cc]hapter|[Pp]art|[Ss]ection|[Aa]nnex|[Aa]rticle|[Aa]ppendix|[Vv]olume|[Pp]hase|[Cc]lass|[Ll]evel|[Pp]age"
)
_NO_CODE = "AM|PM|NO|OF|IN|TO|" + _CODES.upper()

_FIGURE = "7"  # stands for any figure, and for "minus"
# What each text that the rule changes holds ("" for nothing certain): others need not be searched. Pattern, new.
Rule = tuple[str, str, "str | Callable[[re.Match[str]], str]"]
# Here capitals still count.
_CASED: list[Rule] = [
    ("", rf"\b({_LABEL}) ([IVX][IVXLC]*|[LC][IVXLC]+|[ivx]{{2,}})\b", _roman),
    ("", r"\b([A-Z]{2,})s\b", r"\1"),  # PDFs
    ("", r"()(?<![\w-])(?=[IVX]{2})(X{0,3}(?:IX|IV|V?I{0,3}))(?![\w-])", _roman),
    ("may", r"\bmay(?= +[a-z])", "can"),  # no month
    ("-", r"\b([A-F])-(?=\W*$|[.,;)])", r"\1minus"),
    (
        _FIGURE,
        rf"\b(?!(?:{_NO_CODE})\b)([B-HJ-Z][A-Z]{{0,2}}|(?<=[a-z] )A) (\d{{2,}})\b(?![.,:%]\d)",
        r"\1\2",
    ),  # K 32
    ("A", r"(?<=[a-z\d] )A\b(?!')|\bA\b(?![ -]?\d)(?=[\W\d]*$)|\bA(?=[.,;)])", LETTER),
]
_RULES: list[Rule] = [
    # letters
    (".", r"\b(?:[a-z]\.){2,}", lambda m: m[0].replace(".", "")),  # a.m., u.s.
    (_FIGURE, r"\bno\.? ?(?=\d)|#(?=\d)|\bnr\.? ?(?=\d)", "number "),
    ("can", r"\bcan't\b|\bcannot\b|\bcant\b", "can not"),
    ("won't", r"\bwon't\b", "will not"),
    ("anything but", r"\banything but\b", "not"),
    ("", r"n't\b|(?:(?<=\bis|\bdo)|(?<=\bare|\bwas|\bdid|\bhas)|(?<=\bdoes|\bwere|\bmust))nt\b", " not"),
    ("'", r"'(?:s|ll|re|ve|d|m)\b|'(?!\d{1,2}\")", ""),
    (_FIGURE, r"\b(jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.(?= ?\d)", r"\1"),
    # figures
    (_FIGURE, r"(?<![\w.,])\d{1,3}(?: \d{3})+(?![\w])", lambda m: m[0].replace(" ", "")),
    (_FIGURE, r"(?<![\d.,])\d{1,3}(?:\.\d{3})+,\d{1,2}(?!\d)", lambda m: m[0].replace(".", "").replace(",", ".")),
    (_FIGURE, r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)", lambda m: m[0].replace(",", "")),
    (_FIGURE, r"(?<![\d.,])(\d+),(\d{1,2})(?![\d]|,\d)", r"\1.\2"),
    (_FIGURE, r"(?<=\d)[.,]-(?!\d)", ""),
    (_FIGURE, r"(?<![\w.])\.(?=\d)", "0."),
    (_FIGURE, r"\b(\d{4})([/-])(0[1-9]|1[0-2])\2(\d{2})\b", lambda m: _date(int(m[4]), int(m[3]), m[1])),
    (_FIGURE, r"(?<![\d.])(\d\d)([./])(\d\d)\2(\d\d)(?![\d.]?\d)", r"\1\2\3\g<2>20\4"),
    (_FIGURE, r"\b(\d{1,2})([./-])(\d{1,2})\2(\d{4})\b", _numeric_date),
    (_FIGURE, rf"\b(\d{{1,2}})-({_MONTH})-(?=\d{{4}}\b)", r"\1 \2 "),
    (_FIGURE, rf"\b({_MONTH}) the (?=\d)", r"\1 "),
    ("ty", rf"\b({'|'.join(TENS)})[ -]({'|'.join(NTH)})\b", lambda m: f"{TENS[m[1]] + NTH.index(m[2]) + 1}th"),
    (_FIGURE, rf"((?:[$€£¥₹]|\b(?:{_CODES})) ?)({_N}) ?m\b", lambda m: m[1] + plain(Fraction(m[2]) * 10**6)),
    (_FIGURE, rf"\b({_N}) ?m(?= (?:euros?|dollars?|pounds?|francs?|{_CODES})\b)", r"\1 million"),
    ("half", rf"\bhalf an? (?={_LARGE}\b)", "0.5 "),
    (
        "",
        rf"\b(?:an?[ -](?={_LARGE}\b))?(?:{_N}(?= {_LARGE}\b)|{_WORD})(?:(?:[ -]| and )(?:{_WORD}))*\b"
        rf"|\b{_N} ?(?:k|bn)\b",
        _number_words,
    ),
    (_FIGURE, r"\b(\d+) ?\(\1\)", r"\1"),  # 3 (three) days
    (_FIGURE, r"(?<![\d/.])(?:(\d{1,3}) )?(\d{1,2})/(\d{1,2})(?![\d/])", _fraction),
    ("half", rf"\b(?:an?|1) ({_PERIOD}) and a half\b", r"1.5 \1"),
    (_FIGURE, r"\b(\d+) ([a-z]{2,12}) and a half\b", r"\1.5 \2"),
    (_FIGURE, r"\b(\d+) (euros?|dollars?|pounds?|francs?) (\d\d)\b(?![.,:]?\d| [a-z])", r"\1.\3 \2"),
    (
        _FIGURE,
        rf"\b({_N}) and a half (10{{2,9}})\b",
        lambda m: plain((Fraction(m[1]) + Fraction(1, 2)) * int(m[2])),
    ),
    (_FIGURE, rf"\b({_N}) and a half\b", r"\1.5"),
    (
        "quarter",
        r"\b(?:(3) |a )?quarters? (?:of )?an hour\b|\ba quarter hour\b",
        lambda m: f"{15 * int(m[1] or 1)} minutes",
    ),
    ("", r"\b(\d|an?)[ -](third|quarter|fifth|eighth|tenth)s?(?: of(?: an?)?|(?=[\W]*$))", _part),
    (_FIGURE, r"(?<=\d) (?:full|whole|entire|complete|consecutive|paid|calendar|running) (?=[a-z]+s?\b)", " "),
    (_FIGURE, r"(?<=\d) ?[x×](?![\w ]?\d)(?!\w)", " times"),
    (_FIGURE, r"\b(\d+)(?:'| ?(?:ft|feet|foot) )(\d+)(?:\"| ?in\b)", r"\1 feet \2 inches"),
    ("half", rf"\b(?:a |1 )?half[ -](?:an? )?(?=(?:{_one_of(set(UNITS) - BEHIND_A_NUMBER)})\b)", "0.5 "),
    (
        "half",
        r"(?<!first )(?<!2nd )(?<!second )(?<!other )(?<!the )(?<!next )(?<!last )"
        r"\b(?:an? |1 )?half(?= of\b|[.,;)]|\W*$)",
        "0.5",
    ),
    (
        _FIGURE,
        r"\b(?!\d\d?h[0-5]\d\b)(\d+) ?h ?(\d{1,2})(?: ?m(?:in)?)?\b(?! ?(?:\w|[.:]\d))",
        r"\1 hour \2 minute",
    ),
    # times of day and days
    (
        "",
        rf"\b(?:{_DAYS})\b\.?(?:(?: ?[-,/&] ?| (?:to|through|and|or) )(?:{_DAYS})\b\.?)+|^\W*(?:{_DAYS})\W*$",
        _whole_days,
    ),
    ("midnight", r"\b(past|to|after|before) (?:12 )?midnight\b", r"\1 12 at night"),
    ("", r"\b(?:12 )?(noon|midday|midnight)\b", lambda m: "00:00" if m[1] == "midnight" else "12:00"),
    ("clock", r"\bo-?clock\b", "o clock"),
    (_FIGURE, rf"{_MINUTES}(?![:.]?\d)(?! (?:{_PERIOD}|percent)\b){_HALF_DAY}?", _spoken),
    (_FIGURE, rf"\b(\d{{1,2}})(?:[:.](\d{{2}}))?(?: o clock)?{_HALF_DAY}|\b(\d{{1,2}}) o clock\b", _clock),
    (_FIGURE, r"(?<![\d.:~])(\d{1,2}):(\d{2})(?![\d:])", lambda m: f"{int(m[1]):02d}:{m[2]}"),
    # units and signs
    ("$", r"\bus ?\$", "$"),
    (_FIGURE, rf"([$€£¥₹]|\b(?:{_CODES})) ?(-?{_N})(?!\d)", lambda m: f" {m[2]} {_SIGNS.get(m[1], m[1])} "),
    ("", r"[$€£¥₹¢]", lambda m: f" {_SIGNS[m[0]]} "),
    ("", r"\b(?:us|american) (?=dollars?\b)|\bswiss (?=francs?\b)|(?<=pounds) sterling\b", ""),
    ("", r"%|\bper ?cent\b", " percent "),
    ("‰", r"‰", " permille "),
    ("", r"\bpercent(?:age)? points?\b|\bpp\b", "percentagepoint"),
    ("", r"(?:°|\bdegrees?) ?c(?:elsius|entigrade)?\b|(?<=\d)(?<![a-z]\d)(?<![a-z]\d\d) ?c\b", " celsius "),
    ("", r"(?:°|\bdegrees?) ?f(?:ahrenheit)?\b|(?<=\d) f\b", " fahrenheit "),
    ("°", r"°", " degree "),
    (_FIGURE, rf"({_N} +(?:degrees?|celsius)) +(?:below|under) (?:zero|0|freezing)\b", r"minus \1"),
    (
        "",
        r"\b(square|cubic|sq|cu)\.? ?((?:kilo|centi|milli)?met(?:er|re)|m|cm|km)s?\b",
        lambda m: {"sq": "square", "cu": "cubic"}.get(m[1], m[1]) + UNITS[m[2]][1],
    ),
    ("", r"\b(newton|kilowatt|watt)[ -](met(?:er|re)s?|hours?)\b", r"\1\2"),
    ("day", r"\b(working|business|calendar)[ -](days?)\b", r"\1\2"),
    ("", r"\bkm/?h\b|\bkph\b", "km per hour"),
    ("&", r"&", " and "),
    ("min", r" */ *min\b", " per minute"),
    ("/", r" */ *(?=(?:day|night|hour|hr|h|minute|s|week|month|year|person|km|kg)\b)", " per "),
    # hyphens
    ("-", r"(?<=\d) ?- ?(?=\d|~)|(?<=day) ?- ?(?=\w+day)|(?<=days) ?- ?(?=\w+day)", " to "),
    (_FIGURE, rf"\b({_N} *(?:{_MEASURES}|{_MONTH})) *- *(?={_N} *(?:{_MEASURES}|{_MONTH})\b)", r"\1 to "),
    ("-", r"\b(e|x|t)-(?=[a-z]{2})|\b([a-z]{1,4})-(?=\d)", r"\1\2"),
    (_FIGURE, r"(?<![\w)])-(?=\d)", " minus "),
    ("-", r" - ", " — "),
    ("-", r"-", " "),
    (_FIGURE, rf"\b({_N})({_MEASURES})\b", r"\1 \2"),
    # how often
    ("once", r"\bonce\b", "1 time"),
    ("twice", r"\btwice\b", "2 times"),
    ("thrice", r"\bthrice\b", "3 times"),
    ("every", r"\bevery (?:other|second) (?=(?:hour|day|week|month|year)\b)", "every 2 "),
    ("fortnightly", r"\bfortnightly\b", "every 2 weeks"),
]
_BOUNDS: list[Rule] = [  # ⩾ and ⩽ stand behind their value
    (
        _FIGURE,
        rf"\b(?:no|not)(?: \w+){{0,2}}? (?:later|earlier|sooner) than{_FOLLOWED}|\bnot before{_FOLLOWED}",
        " by ",
    ),
    (_FIGURE, rf"{_NO} (?:{_ABOVE} than|over|above){_FOLLOWED}", r"\1 ≤"),
    (_FIGURE, rf"{_NO} (?:{_BELOW} than|under|below){_FOLLOWED}", r"\1 ≥"),
    (_FIGURE, rf"\bnot (?:to )?exceed(?:ing)?{_FOLLOWED}", " ≲"),
    (
        _FIGURE,
        r"(?:\bup to(?: and including)?|\bat (?:the )?(?:very )?most|\b(?:a )?max(?:imum|\.)?(?: of)?"
        rf"|\bas (?:much|many|long) as|<=){_FOLLOWED}",
        " ≤",
    ),
    (
        _FIGURE,
        rf"(?:\bat (?:the )?(?:very )?least|\b(?:a )?min(?:imum|\.)?(?: of)?|\bupwards? of|>=){_FOLLOWED}",
        " ≥",
    ),
    (_FIGURE, rf"\b(?:{_ABOVE} than|later than|over|above|exceed(?:s|ing)?|beyond){_FOLLOWED}", " >"),
    (_FIGURE, rf"\b(?:{_BELOW} than|earlier than|under|below|almost|nearly){_FOLLOWED}", " <"),
    ("", rf"(?<=[\w%]) (?:or|and) (?:{_ABOVE}|later|upwards?)\b|(?<=\d)\+(?!\w)", " ⩾"),
    ("", rf"(?<=[\w%]) (?:or|and) (?:{_BELOW}|earlier|sooner)\b", " ⩽"),
    ("", rf"(?<=[\w%]) (?:at (?:the )?(?:very )?least|minimum|(?<=[a-z%] )min){_LAST}", " ⩾"),
    ("", rf"(?<=[\w%]) (?:at (?:the )?(?:very )?most|max(?:imum)?|tops){_LAST}", " ⩽"),
]
_STAGES = [[(holds, re.compile(p), new) for holds, p, new in rules] for rules in (_CASED, [*_RULES, *_BOUNDS])]
_HAS_FIGURE = re.compile(r"\d|minus")


def _rewritten(text: str, rules: list[tuple[str, re.Pattern[str], str | Callable[[re.Match[str]], str]]]) -> str:
    figure = _HAS_FIGURE.search(text)
    for holds, pattern, new in rules:
        if figure if holds is _FIGURE else holds in text:
            before, text = text, pattern.sub(new, text)
            if figure is None and text is not before:
                figure = _HAS_FIGURE.search(text)
    return text


def in_one_spelling(text: str) -> str:
    """In lower case, with numbers in figures and times as HH:MM ("~06:30" where the half of the day is open)."""
    text = re.sub("[\u00a0\u2009\u202f]", " ", text).replace("§", " section ")
    text = re.sub(r"\$*\\(?:boxed|text|textbf|mathrm|mathbf)\{|\}\$*", " ", text)  # LaTeX
    text = re.sub("([¼-¾⅐-⅞])", r" \1", re.sub(r"</?(?:b|i|u|em|strong|code|p|br|su[bp]) ?/?>", " ", text))
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("‘", "'").replace("⁄", "/")
    text = re.sub("[\u2010-\u2015\u2212]", "-", text)
    cased, rules = _STAGES
    return _rewritten(_rewritten(text, cased).lower(), rules)
