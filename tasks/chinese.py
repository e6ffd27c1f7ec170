"""Chinese text for those who compare it: its characters, where a value ends, what a question is about.

Chinese puts no blanks between words, so a value is bounded by what would make it another value: a digit or a
Chinese numeral beside a number ("7天" is not in "27天", "三楼" not in "十三楼"), a letter beside a code.
"""

from __future__ import annotations

import re

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff"  # inside a character class; U+3007 is the round zero
NUMERALS = "零〇一二两三四五六七八九十百千万亿"
# Words that stand in any question or rule; what is left between them carries the topic.
FUNCTION_WORDS = """
什么 多少 多久 多长 怎么 怎样 哪里 哪儿 哪个 哪位 哪些 哪一 哪 谁 几
我们 你们 他们 她们 我 你 他 她 它 可以 必须 应该 应当 需要 如果 要是
公司 员工 同事 人员 时间 时候 这个 那个 一个 自己 的 了 吗 呢 是 有 在
和 与 或 把 被 给 向 从 到 由 对 为 以 里 上 下 中 内 后 前 时
会 能 要 用 去 来 就 都 也 还 才 每 最 不 没 这 那
"""
_FUNCTION_WORD = re.compile("|".join(sorted(FUNCTION_WORDS.split(), key=len, reverse=True)))
_HAN_RUN = re.compile(f"[{HAN}]+")


def has_chinese(text: str) -> bool:
    return _HAN_RUN.search(text) is not None


def is_chinese(text: str) -> bool:
    """Is it a Chinese text, and not one in another script with a Chinese name? Two letters weigh a character."""
    return 2 * sum(map(len, _HAN_RUN.findall(text))) > len(re.findall(r"[A-Za-z]", text))


def joined(edge: str, beside: str) -> bool:
    """Does the character `beside` (or "") make a value with this `edge` a part of another value?

    A letter or a digit is joined to letters and digits, a Chinese numeral to numerals and digits; any
    other Chinese character ends a value.
    """
    if edge in NUMERALS:
        return bool(beside) and (beside in NUMERALS or beside.isdigit())
    word = beside.isalnum() or beside == "_"
    return word and not has_chinese(edge) and not has_chinese(beside)


def split_characters(text: str) -> str:
    """The text with blanks around each Chinese character, so that it counts as a word of its own."""
    return re.sub(f"([{HAN}])", r" \1 ", text)


def topics(text: str) -> frozenset[str]:
    """Pairs of neighbouring characters between the function words: they carry the topic, as content words do."""
    pieces = (piece for run in _HAN_RUN.findall(text) for piece in _FUNCTION_WORD.split(run))
    return frozenset(piece[i : i + 2] for piece in pieces for i in range(len(piece) - 1))
