"""What the signs are that a font of symbols draws for its codes."""

from __future__ import annotations

import re

_SIGNS = {  # the signs that fonts of symbols draw for the last two digits of a code
    "Symbol": {
        "A3": "≤", "A5": "∞", "AB": "↔", "AC": "←", "AD": "↑", "AE": "→", "AF": "↓", "B0": "°", "B1": "±",
        "B2": "″", "B3": "≥", "B4": "×", "B7": "•", "B8": "÷", "B9": "≠", "BB": "≈", "C5": "⊕", "C6": "∅",
        "CE": "∈", "D6": "√", "D7": "⋅", "DE": "⇒", "E5": "∑", "F2": "∫",
        **{f"{0x41 + n:X}": sign for n, sign in enumerate("ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ")},
        **{f"{0x61 + n:X}": sign for n, sign in enumerate("αβχδεφγηιϕκλµνοπθρστυϖωξψζ")},
        **{f"{n:X}": chr(n) for n in b"!#%&()+,./0123456789:;<=>?[]_{|}"},
    },
    "Wingdings": {
        "6F": "☐", "71": "☐", "72": "☐", "A8": "☐", "FB": "✗", "FC": "✓", "FD": "☒", "FE": "☑",
        "DF": "←", "E0": "→", "6C": "●", "6E": "■", "A7": "▪", "D8": "➢",
    },
    "Wingdings 2": {"4F": "✗", "50": "✓", "52": "☑", "54": "☒", "A3": "☐"},
}  # fmt: skip
CODE = re.compile("[\uf021-\uf0ff]")  # of a sign in the font of its run


def symbol(font: str, char: str) -> str:
    """The sign that a font has for a code; "" where that is not known."""
    if font in _SIGNS:
        return _SIGNS[font].get(char[-2:].upper(), "")
    code = int(char, 16) if re.fullmatch(r"[0-9A-Fa-f]{1,4}", char) else 0
    return chr(code) if 0x20 < code < 0xD800 else ""
