"""What an answer asserts and what it denies, clause by clause; and whether it says yes or no."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from tasks.abstention import is_abstention, plainly_abstains, spelled_out
from tasks.values import CHANGED, Item, normalise

_WRONG = "(?:wrong|incorrect|false|mistaken|outdated|obsolete|invalid|untrue|a mistake"
_WRONG += "|not (?:right|correct|true|valid|accurate|so|the case))"
_SCOPE_ENDS = "before|after|until|within|without|unless|if|when|because|since"
_CLAIMED = (
    "said|say|claim(?:ed)?|mention(?:ed)?|thought|think|stated?|assumed?|suggest(?:ed)?|wrote|heard|believed?"
)
_DENIED_BEFORE = re.compile(
    # "not ... before 9:40" and "goods not collected are stored for 3 days" deny nothing about the value
    r"\b(?<!or )(?:not(?! only\b)(?! \w+ed .*\b(?:is|are|must|can|will|cost|pay) )(?! (?:forget|fail)\b)"
    r"|never|nor|neither|hardly|barely|nowhere near|no longer|formerly|previously|originally|unlike|rather than"
    rf"|instead of|other than|opposed to|contrary to|used to)\b(?!(?: until| \w+ (?:.* )?(?:{_SCOPE_ENDS})) )"
    rf"|(?<!number )\bno $|\b(?<!as )(?:you|user|colleague|friend) (?:\w+ )?(?:{_CLAIMED})\b"
    r"|\byour (?:claim|figure|number|guess|assumption|statement|information|message|value) "
    r"|\b(?:wrong|incorrect|false|mistake) (?:to|that) "
    r"|\b(?:except|excluding|apart from|aside from) (?:(?:for|on|in|at) )?$|\bno (?!more |le |later )\w+ of $"
    r"|除 了 $|^除 $"
    r"|(?:不 是|并 非|而 非|不 在|不 用|不 再|不 再 是|不 需 要|不 要|没 有|无 需|不 为|不 会 是|不 像|以 前 是"
    r"|原 来 是"
    r"|过 去 是|曾 经 是|曾 是|原 为|[不没无未非]) (?:\w )?$"
    r"|(?:你|您|用 户) (?:\w ){0,2}?(?:说|认 为|提 到|以 为) "
)
_DENIED_BEHIND = re.compile(
    rf"^ (?:\w+ ){{0,3}}?(?:{_WRONG}|no longer|not (?:apply|enough|sufficient|what|how))\b"
    r"|^ (?:\w ){0,4}?(?:错 的|错 误|错 了|不 对|不 正 确|有 误|作 废|不 再 适 用|不 适 用|不 够)"
    r"|^ (?:调 整|变 更|改|提 高|上 调|下 调|降 低|延 长|缩 短|增 加|减 少) (?:为|到|至|成)"
)
_DENIED_NEXT = re.compile(
    rf"^ (?:but )?(?:that|this|it|which)(?: \w+)? (?:is|wa)(?: \w+)? {_WRONG}\b|^ (?:that|this|it)? ?is {_WRONG}$"
)
_PAST, _ONCE = re.compile(r"\bwa\b|\bwere\b"), re.compile(r"^ (?:before|previously|formerly|earlier|until)\b")
_CHANGED_FROM = re.compile(rf"\b(?:{'|'.join(CHANGED)})(?: up| down)? from $")
_BARRED = "forbidden|prohibited|banned|excluded|illegal|disallowed"
_NO_BAR = "nothing (?:is |speaks )?(?:against|wrong with|forbids|prohibits|prevents|stops|excludes)"
_YES_OR_NO = re.compile(r"\W*(?:yes|no|nope|yeah)\b(?! (?:clause|rule|answer|information))")
_OPENING = re.compile(r"^(?:\W|(?:the |my )?answer(?: is)?\b|(?:it|that) is (?=yes\b|no\b)|well\b|so\b|答案是?)+")
_LEADS = (
    re.compile(
        r"(?:yes|yeah|yep|yup|(?:sure|certainly|of course|absolutely|correct|indeed|definitely)(?! not))\b"
        r"|no (?:problem|objection)|(?:that|it|you)(?: is| are|s) (?:right|correct|true)\b"
        r"|(?:y|true|right)(?=\W*$)|是(?!否)|可以|对(?!于)|能|允许|当然"
    ),
    re.compile(
        r"(?:n|false|wrong)(?=\W*$)"
        r"|(?:no|nope|nah|never|not|negative|否|不|没|禁止)(?![a-z])(?! (?:problem|objection|doubt|later|only))"
    ),
)
_PERMITS = re.compile(
    r"\b(?:can|may|must|will|should|allowed|permitted|covered|possible|required|included"
    r"|entitled|eligible|needs?|requires?|needed|necessary|paid|free|fine|ok|okay|mandatory|compulsory|obligatory|welcome)\b"
    rf"|\bnot (?:{_BARRED})\b|\b{_NO_BAR}\b|可以|允许|能够|需要|必须|应当|包括"
)
_BARE, _LONG = re.compile(r"\b(?:there )?(?:is|are|does|has|(?<!^)(?:do|have))\b"), re.compile(r"\w{3,}")
_NO_PREDICATE = re.compile(r"the|its|our|his|her|their|any|some|also|still|always|already|\w+ly")
_FIT = (
    "allowed|permitted|covered|possible|required|included|entitled|eligible|needed|necessary|applicable|supported"
)
_ANY_FIT = rf"(?:{_FIT}|paid|free|appropriate|practical|useful|convenient|forbidden|prohibited|banned|excluded)"
_WHEN = "(?:as|than|if|when|whenever|where|wherever|whatever|what|whichever|once|until|unless|while)"
_WHO = (
    "(?:i|you|he|she|it|we|they|one|there|this|that|an?|the|your|our|their|nobody|no one"
    "|(?:some|any|every)(?:one|body))"
)
_MODAL = "(?:can|may|must|will|does|do|has|have|should|needs?|requires?)"
# They say how, when or which, not whether: "as needed", "if you can", "the required form", "按需要".
_ASIDE = re.compile(
    rf"\b{_WHEN} (?:(?:it|this|that) )?(?:(?:is|are|was|were|(?:may )?be) )?(?:not )?(?:\w+ly |otherwise )*"
    rf"{_ANY_FIT}\b|\b{_WHEN} {_WHO} {_MODAL}(?: to| it| them| so)?(?=\W*$|[,:])"
    rf"|\b(?:an?|the|your|our|its|their|my|any) (?:\w+ly )?(?:{_ANY_FIT}(?= [a-z])|(?:needs?|will|fine)\b)"
    "|(?:如果?有?|若有?|根据|依照?|按照?|视)(?:实际)?(?:需要|必要|可能)"
    "|(?:需要|必要|可以|允许)(?:时(?![间长限])|的时候|的话)"
)
_CONDITION = re.compile(rf"(?<!^)(?<!\bonly )\b(?:if|when|whenever|whether|unless|while|because) {_WHO} [^,:]*$")
_PREDICATE = re.compile(rf"\b(?:is|are|{_MODAL})\b(?: not)?(?: be)?(?: {_ANY_FIT}\b)?|\b{_ANY_FIT}\b")
# A yes or no that stands alone: "Unfortunately, no." "In principle, yes." "Allowed: no." "The default is no."
_ALONE = re.compile(r"(?:(?<=\w)[,:]? |[—–-] )(?P<said>yes|no|nope|yep|yeah)(?=\W*$|[,:]| ?[—–]| - )")
_FRAME = re.compile(
    rf"{_FIT}|default|fine|ok|okay|in|on|at|for|with|by|as|to|of|if|when|where|the|a|an|this|that|it|is|are|be|i"
    "|would|say|think|believe|without|exception|so|then|well|but|and|sorry|alas|case|principle|general|short|practice|rule|theory|answer|value"
    "|(?:unfortunate|general|usual|normal|official|technical|basic|current|actual|certain|definite|clear|simp"
    "|regrettab|sad|typical|ordinari|strict|legal|formal|real)(?:al)?ly"
)
_REFUSES = re.compile(
    rf"\b(?:not(?! only\b| (?:{_BARRED})\b)|never|nobody|none|neither|nowhere|no longer|no one)\b"
    rf"|\b(?!{_NO_BAR})nothing\b"
    rf"|(?<!not )\b(?:{_BARRED}|unlawful|impossible|exempt|incorrect|false|untrue|(?<!nothing )wrong)\b"
    r"|\bagainst (?:the|our|company|all) (?:rule|law|policy|code)"
    r"|\bno (?!problem|doubt|objection|later|more|less)|不|没有|禁止|无法|无权"
)


def _side_of(items: Sequence[Item], start: int, end: int) -> tuple[str, str, str]:
    """The words of the span's clause before and behind it, and those of the clause that follows."""
    clause = items[start].clause
    before = [item.text for item in items[max(0, start - 16) : start] if item.clause == clause]
    behind = [item.text for item in items[end : end + 8] if item.clause == items[end - 1].clause]
    following = [
        i.text for i in items[end : end + 16] if i.clause > items[end - 1].clause and i.clause == clause + 1
    ]
    return " ".join((*before, "")), " ".join(("", *behind)), " ".join(("", *following))


def denied(items: Sequence[Item], start: int, end: int) -> bool:
    """Is the span denied, asked or put into someone's mouth by the clause that it stands in?"""
    if items[start].asked:
        return True
    before, behind, following = _side_of(items, start, end)
    if _PAST.search(before) and _ONCE.match(behind):
        return True
    if _CHANGED_FROM.search(before) and behind.startswith(" to "):
        return True
    return bool(_DENIED_BEFORE.search(before) or _DENIED_BEHIND.search(behind) or _DENIED_NEXT.search(following))


def key_says(form: str) -> bool | None:
    """Is a key yes (True) or no (False), or another value?"""
    word = normalise(form)
    return (
        True
        if word in ("yes", "是", "是 的", "对")
        else False
        if word in ("no", "否", "不", "不 是", "不 对")
        else None
    )


def _alone(sentence: str, question: str) -> set[bool]:
    """What stands alone behind a turn of phrase, or a label in the question's words: yes, no, both or neither."""
    found = list(_ALONE.finditer(sentence))
    sides = {match["said"] not in ("no", "nope") for match in found}
    asked = set(re.findall(r"\w+", spelled_out(question))) - {"not", "no", "never", "yes"}
    frame = re.findall(r"\w+", sentence[: found[0].start()]) if found else []
    return sides if len(sides) > 1 or all(word in asked or _FRAME.fullmatch(word) for word in frame) else set()


def _main(sentence: str) -> str:
    """The sentence without what says how, when or which; a condition that holds its only verb goes too."""
    sentence = _ASIDE.sub(" ", sentence).strip()
    match = _CONDITION.search(sentence)
    return sentence[: match.start()] if match and len(_PREDICATE.findall(match[0])) < 2 else sentence


def _grants(sentence: str, question: str) -> bool:
    """Does a sentence that refuses nothing say yes? Behind a bare "is" nothing follows, or what was asked for."""
    if _PERMITS.search(sentence):
        return True
    asked = {word.rstrip("s") for word in re.findall(r"\w+", spelled_out(question))}
    bare = _BARE.search(sentence)
    if bare is None or not asked:
        return bare is not None
    behind = re.split(r"[,:(]", sentence[bare.end() :])[0]
    told = [word for word in _LONG.findall(behind) if not _NO_PREDICATE.fullmatch(word)]
    return told[0].rstrip("s") in asked if told else "there" not in bare[0]


@lru_cache(maxsize=16384)
def answer_says(final: str, question: str = "") -> bool | None:
    """Does an answer say yes (True), no (False), or neither? "It is not allowed." says no.

    An abstention says neither; "No, the policy does not cover it" and "Contractors are not covered" are answers.
    """
    text = spelled_out(final)
    if re.search(r"\byes (?:and|or) no\b|\byes/no\b", text):
        return None
    if plainly_abstains(final) if _YES_OR_NO.match(text) else is_abstention(final, bare=False):
        return None
    said = [s for s in re.split(r"[.!;\n。!;]+", text) if s.strip() and "?" not in s]
    starts = [_OPENING.sub("", sentence) for sentence in said]
    leads: set[bool] = set()
    for sentence in starts:
        led = {yes for yes, lead in zip((True, False), _LEADS, strict=True) if lead.match(sentence)}
        leads |= led or _alone(sentence, question)
    if leads or not said:
        return leads.pop() if len(leads) == 1 else None
    main = _main(said[0])
    heard = False if _REFUSES.search(main) else True if _grants(main, question) else None
    lone = _ALONE.search(starts[0])  # of something else: "Smoking allowed: no"
    return None if lone and heard != (lone["said"] not in ("no", "nope")) else heard
