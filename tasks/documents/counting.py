"""Numbers of headings and list items in the forms that Word and browsers count them in."""

from __future__ import annotations

_CHINESE = "〇一二三四五六七八九"
_ROMAN = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
    (9, "ix"), (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip


def formed(value: int, kind: str) -> str:
    """A counter in one of Word's forms: `lowerLetter` 2 is "b", `upperRoman` 4 is "IV"."""
    if kind.endswith("Letter") and value > 0:
        sign = chr(ord("a") + (value - 1) % 26) * ((value - 1) // 26 + 1)
    elif kind.endswith("Roman") and value > 0:
        sign = ""
        for worth, letters in _ROMAN:
            while value >= worth:
                sign, value = sign + letters, value - worth
    elif kind.startswith(("chinese", "ideograph", "japaneseCounting", "taiwanese")) and 0 < value < 100:
        tens, ones = divmod(value, 10)
        before = "" if tens < 2 else _CHINESE[tens]
        return before + ("十" if tens else "") + (_CHINESE[ones] if ones else "")
    elif kind == "decimalZero":
        return f"{value:02d}"
    else:
        return "" if kind in ("bullet", "none") else str(value)
    return sign.upper() if kind.startswith("upper") else sign
