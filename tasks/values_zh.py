"""The Chinese side of `tasks.values`: values rewritten into the form that the English reading knows.

A Chinese value is rewritten into the form that the English normalisation knows ("二十七天", "27 天" and
"２７天" all become "27 day", "下午三点半" becomes "15:30"); every other Chinese character becomes a token of its
own, so that no word segmentation is needed and a value stays bounded: "7天" is not in "27天", "三楼" not in
"十三楼". Nothing here touches a text without Chinese characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from tasks.chinese import HAN, NUMERALS, split_characters

DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
PLACES = {"十": 10, "百": 100, "千": 1000}
GROUPS = {"万": 10**4, "亿": 10**8}
ABOUT = ("一两", "两三", "三四", "三五", "四五", "五六", "六七", "七八", "八九")  # "三五天": 3 to 5 days
UNITS = {  # behind a number only -> the spelling of the English normalisation
    "个小时": "hour", "小时": "hour", "钟头": "hour", "分钟": "minute", "秒钟": "second", "秒": "second",
    "天": "day", "日历天": "day", "工作日": "workingday",
    "周": "week", "星期": "week", "礼拜": "week", "个月": "month", "年": "year", "个季度": "quarter",
    "晚": "night", "夜": "night", "次": "time", "欧元": "euro", "欧": "euro", "美元": "dollar", "美金": "dollar",
    "英镑": "pound", "瑞士法郎": "franc", "日元": "yen", "人民币": "yuan", "元": "yuan", "块钱": "yuan",
    "角": "jiao", "毛": "jiao", "斤": "jin",
    "公里": "kilometer", "千米": "kilometer", "厘米": "centimeter", "公分": "centimeter", "毫米": "millimeter",
    "米": "meter", "公斤": "kilogram", "千克": "kilogram", "克": "gram", "吨": "tonne", "毫升": "milliliter",
    "公升": "liter", "升": "liter", "摄氏度": "celsius", "华氏度": "fahrenheit", "度": "degree", "分贝": "decibel",
    "千瓦时": "kilowatthour", "千瓦": "kilowatt",
}  # fmt: skip
PERIODS = {"小时": "hour", "天": "day", "日": "day", "周": "week", "星期": "week", "月": "month", "年": "year"}
PERIODS |= {"季度": "quarter", "晚": "night", "夜": "night", "分钟": "minute", "公里": "kilometer"}
MONTHS = {1: "january", 2: "february", 3: "march", 4: "april", 5: "may", 6: "june", 7: "july", 8: "august"}
MONTHS |= {9: "september", 10: "october", 11: "november", 12: "december"}
WEEKDAYS = {"一": "monday", "二": "tuesday", "三": "wednesday", "四": "thursday", "五": "friday"}
WEEKDAYS |= {"六": "saturday", "日": "sunday", "天": "sunday"}
_BOUNDS = [
    (re.compile(rf"(?:{words})(?=(?: |EUR|eur|[$€£¥]|为|是|有)*-?\d)"), sign)
    for words, sign in (
        ("不(?:得|能|可|可以|应)超过", " ≲ "),
        (
            "(?:最多)?(?:不得?|不[能可应会]|没有?|未)(?:以?超过|多于|高于|大于)|至多|最多|最高|最长|最大|上限为?",
            " ≤ ",
        ),
        ("(?:不得?|不[能可应会])(?:少于|低于|小于)|至少|最少|最低|最短|起码|下限为?", " ≥ "),
        ("超过|多于|高于|大于", " > "),
        ("少于|低于|小于|不到|不足|未满", " < "),
    )
]


def _one_of(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_UNIT = _one_of(UNITS)
_NUMBER = r"\d+(?:\.\d+)?"
_WEEKDAY = re.compile(
    rf"(?<![\d{NUMERALS}半])(?:周|星期|礼拜)([一二三四五六日天])(?![{NUMERALS}次天年个]|小时|分钟)"
)
# Words that hold a numeral and count nothing.
_WORDS = (
    "(?<=[这那同有])一点|一点(?=儿|也|都)|一(?:般|些|起|定|样|律|切|直|旦|致|共|同|并|边|面|方|向)|[统唯同单]一|之一|万一|(?<!点)十分(?!钟)"
    "|千万(?=不|别|要|记)|百货"
)
_NUMERAL = rf"(?:千(?![米克瓦])|[{NUMERALS.replace('千', '')}])+"
_RUN = re.compile(rf"({_WORDS})|((?:{_NUMBER}(?=[十百千万亿]))?{_NUMERAL})")
_DECIMAL = re.compile(rf"({_NUMERAL})点([零〇一二三四五六七八九]+)(?=个?(?:{_UNIT}|倍|%))")
NIGHT = ("凌晨", "晚上", "晚间", "夜晚", "夜里", "深夜", "半夜", "午夜")
_HALF_DAY = "凌晨|清晨|早上|早晨|上午|中午|正午|下午|傍晚|晚上|晚间|夜里|夜晚|深夜|半夜|午夜"
_CLOCK = re.compile(
    rf"({_HALF_DAY})?\s*(?<![A-Za-z\d.:])(\d{{1,2}})"
    rf"(?::(\d{{2}})(?![\d:])|[点时](?:钟|整)?(?:(\d{{1,2}})分(?!钟)|(\d{{2}})(?![\d.:]|\s*个?(?:{_UNIT}))|(半)|([13])刻)?)"
)
_HALF = _one_of({*PERIODS, "个月", "个小时", "钟头", "礼拜", "公斤", "米", "升"})


def _integer(run: str) -> int:
    """ "一千零五十" -> 1050, "三万五" -> 35000, "二〇二六" -> 2026; an Arabic number may lead: "5千" -> 5000."""
    lead = re.match(_NUMBER, run)
    if not lead and not any(c in PLACES or c in GROUPS for c in run):
        return int("".join(str(DIGITS[c]) for c in run))
    total, group, place = 0.0, 0.0, 1
    digit = float(lead[0]) if lead else None
    zero = False
    for c in run[lead.end() if lead else 0 :]:
        if c in DIGITS:
            zero, digit = zero or DIGITS[c] == 0, float(DIGITS[c])
        elif c in PLACES:
            group += (1 if digit is None else digit) * PLACES[c]
            place, digit, zero = PLACES[c], None, False
        else:
            group += digit or 0
            total = (total + group or 1) * GROUPS[c] if GROUPS[c] > total else total + (group or 1) * GROUPS[c]
            group, place, digit, zero = 0.0, GROUPS[c], None, False
    short = place > 10 and digit is not None and not zero  # "一百二" is 120
    return round(total + group + (digit or 0) * (place // 10 if short else 1))


def _run(match: re.Match[str]) -> str:
    if match[1]:
        return match[1]
    if match[2] in ABOUT:
        return f"{DIGITS[match[2][0]]} to {DIGITS[match[2][1]]}"
    if len(match[2]) > 1 and all(c in DIGITS for c in match[2]):
        return "".join(str(DIGITS[c]) for c in match[2])  # a code or a telephone number: leading zeros stay
    return str(_integer(match[2]))


def _clock(match: re.Match[str]) -> str:
    half_day, hour = match[1] or "", int(match[2])
    minute = 30 if match[6] else 15 * int(match[7]) if match[7] else int(match[3] or match[4] or match[5] or 0)
    if hour > 24 or minute > 59:
        return match[0]
    if hour == 12 and half_day in NIGHT:
        hour = 0
    elif hour < 12:
        late = half_day in ("下午", "傍晚") or (half_day == "中午" and hour < 5)
        hour += 12 if late or (half_day in NIGHT and half_day != "凌晨" and hour > 4) else 0
    return f" {hour:02d}:{minute:02d} "


def _date(match: re.Match[str]) -> str:
    month = MONTHS.get(int(match[2]))
    return f" {int(match[3])} {month} {match[1] or ''} " if month else match[0]


def _month(match: re.Match[str]) -> str:
    month = MONTHS.get(int(match[1]))
    return f" {month} " if month else match[0]


def _unit_of(word: str) -> str:
    return UNITS.get(word) or UNITS.get(word.removeprefix("个")) or PERIODS.get(word.removeprefix("个"), word)


def in_figures(text: str) -> str:
    """The text with its values in figures and English units, and blanks around every Chinese character left."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(rf"(?<=[{HAN}]) (?=[{HAN}])", "", text)
    text = text.replace("零下", "负").replace("零上", "").replace("摄氏零", "摄氏0")
    text = _WEEKDAY.sub(lambda m: f" {WEEKDAYS[m[1]]} ", text)
    text = re.sub(rf"(?<=[时年月天元周])零(?=[{NUMERALS}\d])", "", text)
    text = _DECIMAL.sub(lambda m: f"{_integer(m[1])}.{''.join(str(DIGITS[c]) for c in m[2])}", text)
    text = re.sub(
        rf"(?<![\d.{NUMERALS}])([1-9一二两三四五六七八九])成(?=的|[^{HAN}]|$)",
        lambda m: f"{DIGITS.get(m[1], m[1])}0%",
        text,
    )
    text = re.sub(r"百分之(?=[\d负零〇一二两三四五六七八九十百])", "\0", text)
    text = _RUN.sub(_run, text)
    text = re.sub(rf"\0(负?{_NUMBER})", r"\1%", text).replace("\0", "百分之")
    text = re.sub(r"¥\s*(\d[\d,.]*\d|\d)", r"\1元", text)
    text = re.sub(rf"摄氏\s*(负|-)?\s*({_NUMBER})\s*度", r"\1\2摄氏度", text)
    text = re.sub(r"负\s*(?=\d)", " minus ", text)
    text = _CLOCK.sub(_clock, text)
    text = re.sub(r"(?:(\d{4})\s*年\s*)?(\d{1,2})\s*月\s*(\d{1,2})\s*[日号]", _date, text)
    text = re.sub(r"(?<![\d.])(\d{1,2})\s*月份?", _month, text)
    text = re.sub(r"(\d+)刻钟", lambda m: f"{15 * int(m[1])}分钟", text)
    text = re.sub(rf"(\d+)(个)半({_HALF})", lambda m: f"{m[1]}.5 {_unit_of(m[2] + m[3])} ", text)
    text = re.sub(rf"(\d+)(个?(?:{_HALF}))半(?!个|{_HALF})", lambda m: f"{m[1]}.5 {_unit_of(m[2])} ", text)
    text = re.sub(rf"(?<![\d上下])半(个?(?:{_HALF}))", lambda m: f" 0.5 {_unit_of(m[1])} ", text)
    text = re.sub(rf"(?:每1?|/\s*)个?({_one_of(PERIODS)})", lambda m: f" per {PERIODS[m[1]]} ", text)
    text = re.sub(r"(\d)\s*[~至到]\s*(?=\d)", r"\1 to ", text)
    text = re.sub(r"(\d)\s*日(?=之?以?内)", r"\1 day ", text)
    text = re.sub(rf"(?<![第A-Za-z\d])({_NUMBER})\s*个?({_UNIT})", lambda m: f"{m[1]} {_unit_of(m[2])} ", text)
    text = re.sub(r"(?<![\d.])(\d+)\s*[块元]\s*(\d)(?!\s*[\w.])", r"\1.\2 yuan ", text)
    text = re.sub(rf"(\d)\s*块(?![{HAN}])", r"\1 yuan ", text)
    text = re.sub(rf"(\d)\s*个(?=\s*[{HAN}])", r"\1", text)
    for pattern, sign in _BOUNDS:
        text = pattern.sub(sign, text)
    text = re.sub(rf"(?<=[\da-z%] )(\s*[{HAN}]?)及?以上", r"\1⩾", text)
    text = re.sub(rf"(?<=[\da-z%] )(\s*[{HAN}]?)及?以下", r"\1⩽", text)
    text = text.replace("、", ",").replace("或者", "或").replace("。", ".")
    return split_characters(text)
