"""The Chinese side of the questions made by rule: facts without blanks between words, and what is asked of them.

The same rule as for English: a number with what it counts, a time, a date, a share or a code is asked for by the
words around it, under the clause's title.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.chinese import HAN, NUMERALS

GAP_CHARACTERS = 8  # of the text, on either side of a gap
MAX_PHRASES = 2
_UNITS = """
个工作日 工作日 个小时 小时 个星期 星期 个月 分钟 秒 天 周 年 岁 晚 夜
万欧元 万美元 万元 欧元 美元 英镑 港元 元 块 人 名 位 台 件 张 份 套 间 页 条 项 种 倍 次 只 瓶 箱 层 步
平方米 立方米 公里 千米 厘米 毫米 米 公斤 千克 毫克 克 吨 毫升 升 摄氏度 度 千瓦 瓦 伏 安 个
"""
_UNIT = "|".join(sorted(_UNITS.split(), key=len, reverse=True))
_SYMBOL = "(?:[kcm]?m[²³]?|[km]?g|[mc]?l|k?Wh?|k?V|m?A|Hz|bar|Nm|rpm|°C|GB|MB)(?![A-Za-z])"
_COUNT = NUMERALS.replace("零", "").replace("〇", "")
# "第3天" and "几十人" count nothing, "一名" is an article, "2024年" is a date.
FACT = re.compile(
    r"(?P<percentage>\d[\d.]*\s?[%％]|百分之(?:\d[\d.]*|[" + NUMERALS + r"]+))"
    r"|(?<!\d)(?P<time>\d{1,2}[:：]\d{2})(?!\d)"
    r"|(?<!\d)(?P<date>(?:\d{4}年)?\d{1,2}月\d{1,2}[日号])"
    r"|(?<![A-Za-z\d])(?P<code>[A-Z]{1,4}-?\d+[A-Z\d-]*)"
    rf"|(?<![第几数\d.,:：A-Za-z{NUMERALS}])(?!\d{{4}}年)"
    rf"(?:\d(?:[\d.,]*\d)?\s?|(?!一[^{NUMERALS}])[{_COUNT}]+)(?P<unit>{_UNIT}|{_SYMBOL})"
)
ASKED = {"percentage": "百分之几", "time": "几点几分", "date": "哪一天", "code": "什么编号"}
# What parts the words around a fact; a character that is also the inside of a word does not.
_STOP_WORDS = """
最多 最少 至少 不得 必须 应当 应该 需要 可以 超过 不超过 以下 以上 以内 之内 之前 之后 之间 期间 如果 但是
并且 以及 员工 人员 公司 的 了 和 与 或 在 由 向 每 须 到 于 是 为 把 被 从 并 且
"""
_STOPS = re.compile("|".join(_STOP_WORDS.split()))


def facts_in(sentence: str) -> Iterator[tuple[str, str, str, int]]:
    """(kind or unit, answer, what asks for it, where it begins) of each fact."""
    for match in FACT.finditer(sentence):
        unit = match["unit"]
        kind = unit or str(next(name for name, text in match.groupdict().items() if text))
        yield kind, match.group(), f"多少{unit}" if unit else ASKED[kind], match.start()


def phrases(sentence: str, start: int, end: int) -> list[str]:
    """Words around the fact, by characters: the nearest MAX_PHRASES, in the text's order."""
    runs: list[tuple[int, int, str]] = []  # distance to the fact, place, the run
    for offset, part in ((0, sentence[:start]), (end, sentence[end:])):
        blank = _STOPS.sub(_blank, FACT.sub(_blank, part))
        for match in re.finditer(f"[{HAN}]{{2,8}}", blank):
            begin, last = offset + match.start(), offset + match.end()
            runs.append((start - last if begin < start else begin - end, begin, match.group()))
    return [run for _, _, run in sorted(sorted(runs)[:MAX_PHRASES], key=lambda entry: entry[1])]


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())


def by_keywords(asked: str, found: list[str], title: str) -> str:
    """`请查“洗衣房”这一条：关于代币、艾达，写明的是多少欧元？`"""
    where = f"请查“{title}”这一条：" if title else ""
    return f"{where}关于{'、'.join(found) or '此事'}，写明的是{asked}？"


def by_gap(sentence: str, start: int, end: int, gap: str, title: str) -> str:
    """`“洗衣房”一条里，空白处应填什么：代币每枚___，在艾达·伦德的？`"""
    left, right = sentence[max(0, start - GAP_CHARACTERS) : start], sentence[end : end + GAP_CHARACTERS]
    left = left.lstrip("，、；。")
    where = f"“{title}”一条里，" if title else ""
    return f"{where}空白处应填什么：{left}{gap}{right.rstrip('。！？；，')}？"
