"""Does an answer say that the handbook does not tell? By pattern, in English and Chinese, no judge model."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from tasks.chinese import has_chinese
from tasks.values import read

_SHORT = {
    "can't": "can not", "cannot": "can not", "won't": "will not", "n't": " not", "'m": " am", "'ve": " have",
    "there's": "there is", "that's": "that is", "it's": "it is", "unable to": "not able to",
}  # fmt: skip
_SOURCE = (
    r"(?:handbook|rule ?book|manual|polic(?:y|ies)|clauses?|rules?|regulations?|documents?(?:ation)?|text|notes?"
    r"|sections?|guidelines?|guide|memor(?:y|ies)|knowledge|records?|materials?|provisions?|information|context"
    r"|passages?|excerpts?|sources?|data|details?|paragraphs?|content|extracts?|snippets?|articles?)"
)
_SAY = (
    r"(?:say|state|mention|specify|address|define|tell|answer|discuss|indicate|list|explain|describe|speak"
    r"|name|talk|refer|clarify|disclose|reveal)"
)
_HOLD = r"(?:cover|contain|include|give|provide|regulate|set|have|deal|offer|supply)"
_SAID = (
    r"(?:covered|mentioned|specified|stated|addressed|given|found|set out|provided|regulated|defined"
    r"|listed|described|discussed|answered|documented|dealt with|known|recorded|indicated|included|contained"
    r"|available|clear|disclosed)"
)
_NO = r"(?:no|not (?:any|enough)|insufficient|not sufficient|too little|nothing)"
_ADVERBS = r"(?:\w+ly |even |actually |yet |been )*"
# These say so whatever stands beside them.
_PLAIN = re.compile(
    "|".join(
        (
            rf"\b{_SOURCE}\b[^.;!?]{{0,60}}?\b(?:does|do|did) not (?:seem to |appear to )?{_ADVERBS}{_SAY}\b"
            "(?! (?:more|further|otherwise|anything else))",
            rf"\b{_SOURCE}\b[^.;!?]{{0,30}}?\b(?:(?:is|are) silent|says? nothing|makes? no mention"
            r"|(?:has|have|holds?|contains?) nothing (?:on|about)|leaves? (?:this|that|it) open)\b",
            r"\b(?:i|we) (?:do|can|could|am|are|would|was|have|will) not "
            rf"{_ADVERBS}(?:know|say|tell|find|found|answer|determine|be sure|sure|recall|certain|aware|confirm"
            r"|see|able to|provide|give|identify|locate"
            r"|have (?:a|any|that|this|the|enough|access|information|details?))\b",
            rf"\b(?:can|could) not {_ADVERBS}be {_ADVERBS}(?:answered|determined|found|known|said|inferred"
            r"|confirmed|established|deduced|told)\b",
            rf"\b{_NO} (?:\w+ ){{0,2}}?(?:information|context|details?|data)\b"
            r"(?! (?:is|are) (?:needed|required|passed|shared|stored|kept))",
            r"^\W*(?:i am )?not (?:sure|certain|known|\w*ly (?:stated|mentioned|specified))\b",
            r"^\W*not (?:stated|mentioned|specified|found|addressed|answered|documented|recorded)\W*$|^\W*n/a\b",
            r"^\W*(?:not known|unknown|unclear|unanswerable)\b|\bno idea\b|\bwe are not told\b",
            rf"^\W*no (?:[\w-]+ ){{1,3}}(?:is|are|was) {_ADVERBS}(?:stated|mentioned|specified)"
            rf"(?: (?:in|by) (?:\w+ ){{0,3}}{_SOURCE})?(?=\W*$|[.;!?])|^\W*no mention\b",
            rf"^\W*(?:there is )?nothing (?:in (?:\w+ ){{1,2}}{_SOURCE} )?about\b",
            rf"\b(?:it|this|that) (?:does|did) not {_ADVERBS}(?:say|mention|specify|state)\b",
            # "The deposit is not stated; it may be 80 euros."
            r"^(?!\W*(?:if|when|where|unless|once|yes|no)\b)[^.,;:!?\d]{0,60}"
            rf"\b(?:is|are|was|were) not {_ADVERBS}(?:stated|specified|mentioned|disclosed|documented|indicated)"
            rf"(?: (?:in|by) (?:\w+ ){{0,3}}{_SOURCE})?(?=\W*$|[.;!?]|,? (?:but|so|though|although|however)\b)",
            rf"\bit is (?:unclear|unknown|not clear)\b(?:[^.;!?]*\b{_SOURCE}\b)?",
            r"\b(?:no|without) (?:any )?(?:answer|way of knowing|way to (?:know|tell|determine))\b",
        )
    )
)
# These state facts too: "No, the policy does not cover contractors".
_GENERAL = re.compile(
    "|".join(
        (
            rf"\b{_SOURCE}\b[^.;!?]{{0,60}}?\b(?:does|do|did) not {_ADVERBS}{_HOLD}\b",
            rf"\bnot {_ADVERBS}{_SAID} (?:by|in|under|from|within) (?:\w+ ){{0,3}}{_SOURCE}\b",
            rf"\b(?:this|that|it|which|question|matter|topic|subject|point|answer) (?:is|are|was) not "
            rf"{_ADVERBS}{_SAID}\b",
            r"\b(?:there (?:is|are|was)|i (?:have|find|found|see|know of|recall)|contains?|has|have|gives?"
            rf"|provides?) no (?:such |\w+ ){{0,2}}(?:{_SOURCE}|mention|answer|entry|statement|reference)\b",
            rf"\bno (?:such |\w+ ){{0,2}}(?:{_SOURCE}|mention|entry) (?:\w+ ){{0,2}}?(?:covers?|says?|states?"
            r"|mentions?|specif(?:y|ies)|address(?:es)?|deals?|about|on this|for this|exists?|applies|apply"
            r"|answers?|is given|was found|found|available|in the)\b",
            rf"\bnot (?:in|part of|anywhere in|within) (?:the|this|our|any|my) (?:\w+ )?{_SOURCE}\b",
            r"\bnothing (?:is said|is stated|about (?:this|that|it))\b",
            rf"\bnone of (?:the |these )?(?:\w+ )?{_SOURCE}\b",
            rf"\bnot (?:something|anything|a (?:topic|question|matter))\b[^.;!?]*\b{_SOURCE}\b",
            rf"\boutside (?:of )?(?:the )?(?:scope|{_SOURCE})\b",
        )
    )
)
# These only in an answer without a figure, yes or no: "40 euros; alcohol is not covered" is none.
_BARE = re.compile(
    rf"\bnot {_ADVERBS}{_SAID}\b|^\W*(?:no (?:clause|rule|answer|information)|n/a)\b|\bunspecified\b"
    r"|\bno clause\b"
)
_ZH_SOURCE = (
    "(?:手册|规章|规定|条款|条文|制度|政策|文件|文档|资料|材料|指南|规则|说明书|章程|知识库|原文|文本|上下文"
    "|段落|信息|内容|文中|上文)"
)
_ZH_SAY = (
    "(?:说明|说到|说|提到|提及|提供|写明|写到|写|注明|载明|记载|规定|指出|指明|交代|回答|列出|描述|讨论|谈到|给出"
    "|明确)"
)
_ZH_COVER = "(?:涉及|包含|涵盖|覆盖|包括|收录)"
_ZH_NOT = "(?:并没有|没有|并未|尚未|未曾|未|没)(?:明确|具体|直接|专门|对此|就此|作出|有|被|在[^。;!?]{1,6}?中)*"
_ZH_PLAIN = re.compile(
    "|".join(
        (
            rf"{_ZH_SOURCE}[^。;!?]{{0,20}}?{_ZH_NOT}{_ZH_SAY}",
            "我(?:真的|确实|也|并)*不(?:太)?(?:知道|清楚|确定|了解)",
            "(?:我|也)?(?:无法|不能|没法|难以)(?:从[^。;!?]{0,12}?|根据[^。;!?]{0,12}?)?(?:确定|回答|得知|判断|知道|查到|找到)",
            "不得而知|答不上来|^\\W*(?:不知道|不清楚(?!的)|不确定)",
            "(?:信息|资料|内容)(?:不足|不够)|没有(?:足够|充分)的?(?:信息|资料|内容)",
        )
    )
)
_ZH_GENERAL = re.compile(
    "|".join(
        (
            rf"{_ZH_SOURCE}[^。;!?]{{0,20}}?(?:{_ZH_NOT}|不){_ZH_COVER}",
            rf"(?:没有|找不到|查不到|无)(?:任何|相关|有关|相应|对应|具体|明确|这样|此类|这方面|这类|关于[^。;!?]{{1,20}})*的?"
            rf"(?:{_ZH_SOURCE}|说明|信息|记载|内容|答案|记录)",
            rf"(?:这|此|该|那|问题|事)[^。;!?]{{0,10}}?{_ZH_NOT}(?:{_ZH_SAY}|{_ZH_COVER})",
            rf"(?:不在|没在|未在)[^。;!?]{{0,8}}?{_ZH_SOURCE}",
            rf"{_ZH_SOURCE}[里中上内]面?(?:并)?(?:没有|找不到|查不到|没)",
        )
    )
)
_ZH_BARE = re.compile(rf"{_ZH_NOT}(?:{_ZH_SAY}|{_ZH_COVER})|^\W*(?:未知|不详|无答案|没有答案|无规定)\W*$")
_YES_OR_NO = re.compile(r"^\W*(?:yes|no|nope|yeah)\b(?! (?:clause|rule|answer|information))")


def spelled_out(final: str) -> str:
    """In lower case, on one line, without contractions."""
    text = " ".join(unicodedata.normalize("NFKC", final).lower().replace("’", "'").split())
    for short, long in _SHORT.items():
        text = text.replace(short, long)
    return text


@lru_cache(maxsize=65536)
def plainly_abstains(final: str) -> bool:
    """Words that only say that the handbook does not tell, or that one does not know."""
    if has_chinese(final) and _ZH_PLAIN.search("".join(unicodedata.normalize("NFKC", final).split())):
        return True
    return _PLAIN.search(spelled_out(final)) is not None


@lru_cache(maxsize=65536)
def is_abstention(final: str, bare: bool = True) -> bool:
    """Does the answer say that the handbook does not tell?

    Covers "The handbook does not say", "The provided passages do not mention it", "There is no clause about
    that", "I'm unable to answer" and their like. Bare phrases ("not covered") count only in an answer without any
    figure, since "40 euros, alcohol is not covered" is an answer, and not behind "No,"; nor with bare=False.
    """
    if plainly_abstains(final):
        return True
    text = spelled_out(final)
    bare = (
        bare and not any(item.kind not in ("word", "code") for item in read(final)) and not _YES_OR_NO.match(text)
    )
    if has_chinese(final):
        joined = text.replace(" ", "")
        if _ZH_GENERAL.search(joined) or (bare and _ZH_BARE.search(joined)):
            return True
    return _GENERAL.search(text) is not None or (bare and _BARE.search(text) is not None)
