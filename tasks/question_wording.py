"""English questions from a sentence and a fact in it, in words that people use; None where no rule fits.

"If it rains, visitors must leave within 3 days." gives "Within how many days must visitors leave if it rains?" and
"Who must leave within 3 days if it rains?". Rules look at the sentence's words alone: subject, auxiliary and what
stands beside the fact. A sentence that they cannot take apart with certainty gets no question here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tasks.spelling import words

_PRONOUNS = "it|they|he|she|we|you|i|this|that|these|those|there|such|one|some|others|both|who|which|what|here|so"
_MODALS = "must|shall|should|may|might|can|could|will|would"
_BE = "is|are|was|were"
_AUX = re.compile(rf" (?P<aux>{_MODALS}|{_BE})(?P<no> not)? ")
_LINKS = (
    "that|which|who|whose|when|where|because|if|unless|although|while|since|as|whether|than|but|and/or|how|why|"
    "not|no|nor|does|do|did|has|have|had|been|be|" + _PRONOUNS
)
_NO_SUBJECT = re.compile(
    rf"\b(?:{_LINKS}|{_MODALS}|{_BE})\b|^(?:and|or|unlike|note|see|by|also|then|now|for|in|on|at|with|to|use|new|thus|only|"
    r"however|therefore|e\.g\.)\b|\b(?:following|previous|latter|former|same|above|next|various|available|"
    r"different|certain|similar|exact|first|second|last|example)\b|(?:^| )\d|\b\w+(?<!tw)ing$",
    re.IGNORECASE,
)
_STATE = r"(?:also|then|thus|therefore|usually|normally|now|always|generally|still|often|typically|in turn)"
_BREAK = re.compile(
    r"(?:;|:| [–—-]| and(?= (?:you|it|they|we|this) )"
    r"|,(?= (?:and|but|or|so|which|who|where|because|unless|except|since|although|while|whereas|then|"
    r"for example|e\.g\.|i\.e\.|in which|as)\b)) "
)
_LEAD = re.compile(
    r"(?P<lead>(?:If|When|Whenever|Where|Before|After|For|In|On|At|During|Until|Unless|Once|While|To|With|By|From|"
    r"Under|Within) [^,;:]{3,90}), (?P<main>.+)"
)
_PREPOSITION = (
    r"(?:within|for|after|before|by|at|on|in|from|to|until|with|during|under|over|above|below|through|via|against)"
)
_BOUND = re.compile(
    r"\b(at least|at most|up to|no more than|no less than|no later than|no fewer than|not more than)$"
)
_IDLE = re.compile(r"\b(?:about|approximately|exactly|only|around|roughly|some|precisely|currently)$")
_UNCLEAR = re.compile(
    r"(?:\b(?:a|an|the|this|that|these|those|each|every|any|all|and|or|than|per|of|its|their|other|another|first|"
    r"last|next|following|same|as|like|between|plus|version|not)|,|/|\()$"
)
# Verbs that need "do" in a question; the forms are made by rule.
_VERBS = words(
    """
    accept add allow answer apply approve arrive ask attend back bear begin bring build buy call carry change
    charge check claim clean close collect come confirm consist contain cost cover cut decide define deliver
    depend describe die double earn eat elect employ empty enable end enter expire extend fall file fill find
    fit follow get give go grow happen hire hold implement include inform inspect install issue join keep
    last lead learn leave lend limit list live lock maintain make measure meet move need notify offer open
    order own park pass pay place print produce provide publish raise reach read receive record reduce refer
    refund register release remain remove rent repair replace report request require reserve return ring run
    save say see sell send serve service show sign specify start state stay stop store submit supply support
    take tell test train travel use visit wait wash weigh work write
    """
)


def _third(verb: str) -> str:
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeou" else verb + "s"


_DO = {verb: ("do", verb) for verb in _VERBS} | {_third(verb): ("does", verb) for verb in _VERBS}
_STATES = re.compile(rf"{_MODALS}|{_BE}|has|have|had|does|do|did|be|been")
_PERSON = re.compile(
    r"(?:\w{2,}(?:er|or|ist|ant|ian|eer)s?|staff|people|persons?|employees?|members?|visitors?|guests?|residents?|"
    r"students?|delegates?|heads?|leads?|leaders?|crew|teams?|committees?|boards?|nobody|everyone|anyone)$",
    re.IGNORECASE,
)
_NO_PERSON = re.compile(
    r"(?:number|paper|letter|folder|header|server|compiler|parameter|counter|order|register|identifier|computer|"
    r"printer|layer|buffer|filter|character|chapter|matter|power|water|error|color|colour|floor|door|meter|descriptor|"
    r"vector|editor|monitor|container|loader|handler|driver|wrapper|pointer|installer|linker|specifier|variant|"
    r"separator|operator|motor|factor|corridor|elevator|debugger|parser|browser|manager programs?)s?$",
    re.IGNORECASE,
)
_BEHIND_A_VERB = rf"(?:an?|the|its|all|any|no|each|every|only|at|one|two|three|{_PREPOSITION})$|\\d"
MOST_SUBJECT_WORDS = 5  # more are hard to give back word for word
MOST_WORDS = 28  # of a question
_LEAST_REST = 3  # words behind the auxiliary, where its subject is asked for


class Sentence(NamedTuple):
    """subject, auxiliary, rest: `main` is what stands behind the lead ("If it rains, ")."""

    lead: str
    subject: str
    aux: str
    rest: str

    @property
    def ending(self) -> str:
        """The lead, where a question has it: behind."""
        kept = self.lead[:1].lower() + self.lead[1:] if self.lead else ""
        return f" {kept}" if kept else ""


def _segment(text: str, start: int, end: int) -> tuple[str, int]:
    """(the part of a sentence that holds [start, end), its offset), cut where another sentence could begin."""
    first, last = 0, len(text)
    for match in _BREAK.finditer(text):
        if match.end() <= start:
            first = match.end()
        elif match.start() >= end:
            last = min(last, match.start())
    return text[first:last], first


def _parsed(part: str) -> Sentence | None:
    lead = ""
    if match := _LEAD.match(part):
        lead, part = match["lead"], match["main"]
        if re.search(rf"\b(?!you\b)(?:{_PRONOUNS})\b", lead, re.IGNORECASE):
            return None
    match = _AUX.search(f" {part}")
    if match is not None:
        subject, aux, rest = part[: max(0, match.start() - 1)], match["aux"], f" {part}"[match.end() :]
        rest = re.sub(rf"^{_STATE} ", "", rest)
        if match["no"]:
            rest = f"not {rest}"
    else:
        tokens = part.split(" ")
        places = (n for n in range(1, min(8, len(tokens) - 1)) if tokens[n] in _DO)
        place = next(places, None)
        if place is None:
            return None
        aux, verb = _DO[tokens[place]]
        subject, rest = " ".join(tokens[:place]), " ".join([verb, *tokens[place + 1 :]])
        plural = subject.endswith("s") or subject.lower() in ("staff", "people")
        if plural != (aux == "do"):
            return None  # the word may be a noun: "the work permit costs"
    subject = re.sub(rf"^(?:{_STATE}),? ", "", subject.strip(), flags=re.IGNORECASE)
    if subject.lower() == "you":
        return Sentence(lead, "you", aux, rest)
    if (
        not subject
        or len(subject.split()) > 9
        or _NO_SUBJECT.search(subject)
        or re.search(r"[,;:()\"“”]", subject)
    ):
        return None
    return Sentence(lead, subject, aux, rest)


def _without_brackets(sentence: str, start: int, end: int) -> tuple[str, int, int]:
    """The sentence without brackets and closing stop, and where the fact is then."""
    for match in reversed(list(re.finditer(r"\s?[(\[][^()\[\]]*[)\]]|[.!?;:,\s]+$", sentence))):
        if match.end() <= start:
            cut = match.end() - match.start()
            sentence, start, end = sentence[: match.start()] + sentence[match.end() :], start - cut, end - cut
        elif match.start() >= end:
            sentence = sentence[: match.start()] + sentence[match.end() :]
    return sentence, start, end


def _lowered(subject: str) -> str:
    """With a small letter first, unless the word is a name or an abbreviation."""
    first = subject.split(" ")[0]
    known = first.lower() in words("the a an each every all any no in on if for when staff people")
    return subject[:1].lower() + subject[1:] if known or re.fullmatch(r"[A-Z][a-z]+s", first) else subject


def _finished(question: str) -> str | None:
    question = re.sub(r"\s+([,.])", r"\1", " ".join(question.split())).rstrip(" ,;:.")
    unsound = question.count('"') % 2 or question.count("(") != question.count(")") or "<" in question
    if unsound or len(question.split()) > MOST_WORDS:
        return None
    return f"{question[:1].upper()}{question[1:]}?"


def has_verb(text: str) -> bool:
    """Does a text hold a verb that is known here? A word with a capital is a name, unless it is the first."""
    first, *others = re.findall(r"\w+", text) or [""]
    return any(word in _DO or _STATES.fullmatch(word) for word in (first.lower(), *others))


def ask_for_fact(sentence: str, start: int, end: int, asked: str) -> str | None:
    """A question for the value at [start, end); asked: "how many days", "what time", "who"."""
    text, start, end = _without_brackets(sentence, start, end)
    part, offset = _segment(text, start, end)
    value = text[start:end]
    before, after = part[: start - offset], part[end - offset :]
    asked = asked[:1].lower() + asked[1:]
    if re.match(r"\s*(?:,? (?:and|or|to)\b|[,/–-]\s?\d)", after):
        return None  # one of several values
    mark = "\x00"
    parsed = _parsed(f"{before}{mark}{after}")
    if parsed is None or mark in parsed.lead or value in parsed.lead:
        return None
    if mark in parsed.subject:
        lead_in, _, behind = parsed.subject.partition(mark)
        if lead_in.strip() and not _BOUND.search(lead_in.strip().lower()):
            return None
        if parsed.aux in ("do", "does"):
            return None
        return _finished(f"{lead_in}{asked}{behind} {parsed.aux} {parsed.rest}{parsed.ending}")
    middle, _, tail = parsed.rest.partition(mark)
    middle = _IDLE.sub("", middle.strip()).strip()
    bound = ""
    if found := _BOUND.search(middle.lower()):
        bound, middle = f"{found[1]} ", _IDLE.sub("", middle[: found.start()].strip()).strip()
    noun = re.search(r"\b(code|number|room|level|form|line|extension|port|bay|dock|counter)$", middle.lower())
    if noun and asked.startswith("which code"):
        asked, middle = f"which {noun[1]}", re.sub(r"\b(?:the )?\w+$", "", middle).strip()
    preposition = re.search(rf"(?:^|(?<= )){_PREPOSITION}$", middle)
    if preposition:
        bound, middle = f"{preposition[0]} {bound}", middle[: preposition.start()].strip()
    if _UNCLEAR.search(middle.lower()) or middle.startswith("not"):
        return None
    unit = re.escape(re.sub(r"[\d\s.,:]", "", value))
    if re.search(rf"\b(?:{_MODALS}|{_BE})\b|\d.*{unit}|{unit}.*\d", middle):
        return None  # another statement stands between: "was 30 euros until 2023 and is"
    if asked == "who":
        if (
            not preposition
            or preposition[0] not in ("by", "to", "from", "with", "for")
            or re.match(r" [a-z]+s? (?:of|for)\b", tail)
        ):
            return None  # a name may be a person's, or a thing's
        asked = "whom"
    ends = r"(?= (?:a|an|the|in|on|at|for|to|by|per|if|when|after|before)\b|$)"
    if of := re.match(rf" (?:of(?: (?!the\b|a\b)[a-z-]+){{1,2}}|in advance){ends}", tail):
        asked, tail = asked + of[0], tail[of.end() :]
    tail = re.split(r"[,;:]| and ", tail)[0]
    subject = _lowered(parsed.subject)
    if parsed.aux in _BE.split("|") and not middle and not bound and asked.startswith("how much"):
        return _finished(f"how much {parsed.aux} {subject}{tail}{parsed.ending}")
    return _finished(f"{bound}{asked} {parsed.aux} {subject} {middle} {tail}{parsed.ending}")


def ask_for_subject(sentence: str) -> tuple[str, str] | None:
    """(question, answer) for who or what the sentence is about."""
    text, _, _ = _without_brackets(sentence, len(sentence), len(sentence))
    part = _BREAK.split(text)[0]
    parsed = _parsed(part)
    if parsed is None or parsed.aux == "do" or parsed.subject == "you":
        return None
    answer = re.sub(
        r"^(?:the|a|an|each|every|all|any|no|its|their|your|our)\s+", "", parsed.subject, flags=re.IGNORECASE
    )
    if not answer or len(answer.split()) > MOST_SUBJECT_WORDS or re.match(r"(?:[Nn]o|[Nn]one)\b", parsed.subject):
        return None
    rest = re.split(r"[,;:]", parsed.rest)[0].split()[:18]
    while rest and re.fullmatch(rf"{_PREPOSITION}|a|an|the|and|or|of|that|which|if|when|as|is|are|be", rest[-1]):
        rest.pop()
    if len(rest) < _LEAST_REST or re.search(
        rf"\b(?:{_PRONOUNS}|above|below|following|its|their)\b", " ".join(rest)
    ):
        return None
    if parsed.aux in _BE.split("|") and rest[0] in ("a", "an", "the", "not", "to", "if", "off", "most", "more"):
        return None  # a definition: its subject is not what it is asked by
    if parsed.aux == "does" and not re.match(_BEHIND_A_VERB, rest[1]):
        return None  # "files by dpkg": the verb may be a noun
    head = re.split(r" (?:of|in|for|from|on|with|to|at|by) ", answer)[0].split()[-1]
    who = "who" if _PERSON.search(head) and not _NO_PERSON.search(answer) else "what"
    if parsed.aux == "does":
        question = f"{who} {_third(rest[0])} {' '.join(rest[1:])}"
    else:
        question = f"{who} {parsed.aux} {' '.join(rest)}"
    finished = _finished(question + parsed.ending)
    return (finished, answer) if finished else None


def ask_for_definition(sentence: str) -> tuple[str, str] | None:
    """(question, answer) for "The default priority is optional": what stands alone behind "is"."""
    text, _, _ = _without_brackets(sentence, len(sentence), len(sentence))
    parsed = _parsed(_BREAK.split(text)[0])
    if parsed is None or parsed.aux not in ("is", "are") or not re.match(r"(?:The|Its|A|An) ", parsed.subject):
        return None
    answer = re.match(
        r"(?:called |named |known as )?(?P<a>(?:the |an? )?[\w./+-]+(?: [\w./+-]+){0,2})$", parsed.rest
    )
    if not answer or re.search(r"(?:ed|ing|ly|en)\b|\bnot\b|\bto\b|^(?:as|in|on|at|for|by)\b", answer["a"]):
        return None
    if (
        answer["a"].islower()
        and answer["a"] == parsed.rest
        and not re.match(r"(?:the|an?) |.*[\d/_-]", answer["a"])
    ):
        return None  # an adjective: "is available"
    named = " called" if answer["a"] != parsed.rest else ""
    finished = _finished(f"what {parsed.aux} {_lowered(parsed.subject)}{named}{parsed.ending}")
    return (finished, answer["a"]) if finished else None


_OBJECT = re.compile(
    r"(?P<verb>(?:not )?(?:only )?[a-z-]+) (?P<object>(?:the|an?|any|all|your) [\w./+’'-]+(?: [\w./+’'-]+){0,3}?)"
    rf"(?P<tail>(?: (?:{_PREPOSITION}|if|unless|when|as|using|so|before|after|because)\b.*)?)$"
)


def ask_for_object(sentence: str) -> tuple[str, str] | None:
    """(question, answer) for "You must provide a manual page for each program": what is done something to."""
    text, _, _ = _without_brackets(sentence, len(sentence), len(sentence))
    parsed = _parsed(_BREAK.split(text)[0])
    if parsed is None or parsed.aux not in _MODALS.split("|"):
        return None
    found = _OBJECT.match(re.split(r"[,;:]", parsed.rest)[0])
    if found is None or found["verb"].split()[-1] in ("be", "have", "not", "only"):
        return None
    answer = re.sub(r"^\w+ ", "", found["object"])
    if re.search(rf"\b(?:{_LINKS}|of|and|or|following|same|above|below)\b", answer) or not found["tail"]:
        return None
    tail = " ".join(found["tail"].split()[:14])
    if re.search(rf"\b(?!you\b)(?:{_PRONOUNS}|its|their|above|below|following)\b", tail):
        return None
    while re.search(rf" (?:{_PREPOSITION}|a|an|the|and|or|of|that|which|if|when|as|is|are|be)$", tail):
        tail = tail.rpartition(" ")[0]
    finished = _finished(f"what {parsed.aux} {_lowered(parsed.subject)} {found['verb']} {tail}{parsed.ending}")
    return (finished, answer) if finished else None
