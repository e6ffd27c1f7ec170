"""Layers of a PDF that are switched off: their names, and a page without what is marked with one of them."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
from collections import Counter
from collections.abc import Collection
from typing import Any


def layers_off(pdf: Any) -> tuple[bool, frozenset[str]]:
    """(whether a file switches layers off, the names that only such layers have).

    pdfium does not say so, but in a copy that it writes the objects lie open.
    """
    copy = io.BytesIO()
    with contextlib.suppress(RuntimeError):
        pdf.save(copy)
    body = copy.getvalue()
    lists = re.findall(rb"/OFF\s*\[([\s\dR]*\d[\s\dR]*)\]", body)
    if len(lists) != 1 or b"/BaseState/OFF" in re.sub(rb"\s", b"", body):
        return bool(lists) or re.search(rb"/BaseState\s*/OFF", body) is not None, frozenset()
    off = {int(number) for number in re.findall(rb"(\d+)\s+0\s+R", lists[0])}
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for piece in body.split(b"endobj"):
        held = re.search(rb"(?:^|[\r\n])(\d+) 0 obj\s*<<(?=.*/Type\s*/OCG\b)", piece, re.DOTALL)
        if held:
            names[int(held[1]) in off].add(_name(piece[held.end() :]))
    return True, frozenset(names[True] - names[False] - {""})


def _name(layer: bytes) -> str:
    """The name in a layer's dictionary."""
    found = re.search(rb"/Name\s*(?:\(((?:[^\\()]|\\.)*)\)|<([0-9A-Fa-f\s]*)>)", layer, re.DOTALL)
    if not found:
        return ""
    if found[2] is not None:
        digits = b"".join(found[2].split()).decode()
        given = bytes.fromhex(digits + "0" * (len(digits) % 2))  # a last digit that is missing is 0
    else:
        given = re.sub(rb"\\(.)", rb"\1", found[1])
    wide = given.startswith(b"\xfe\xff")
    return given[2:].decode("utf-16-be", errors="replace") if wide else given.decode("latin-1")


def switch_off(page: Any, off: Collection[str]) -> bool:
    """Takes what is marked with one of these layers off a page; whether there was any."""
    import pypdfium2.raw as raw

    found = False
    for n in range(raw.FPDFPage_CountObjects(page)):
        one = raw.FPDFPage_GetObject(page, n)
        marks = (raw.FPDFPageObj_GetMark(one, k) for k in range(raw.FPDFPageObj_CountMarks(one)))
        if any(_said(raw.FPDFPageObjMark_GetParamStringValue, mark, b"Name") in off for mark in marks):
            raw.FPDFPageObj_SetIsActive(one, False)
            found = True
    return found


def _said(function: Any, *given: Any) -> str:
    """What a function of pdfium writes as text; "" for none."""
    size = ctypes.c_ulong()
    if not function(*given, None, 0, size) or not size.value:
        return ""
    import pypdfium2.raw as raw

    buffer = (raw.FPDF_WCHAR * size.value)()
    function(*given, buffer, size.value, size)
    return bytes(buffer)[: size.value].decode("utf-16-le", errors="replace").rstrip("\0")


def gone(before: str, after: str) -> str:
    """The words of a text that are no longer in it."""
    left = Counter(after.split())
    words = []
    for word in before.split():
        if left[word]:
            left[word] -= 1
        else:
            words.append(word)
    return " ".join(words)
