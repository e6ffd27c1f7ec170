"""A tokenizer and its chat template, read once: messages -> the template's own ids, and a person's text -> text.

A chat is rendered with marks in place of its contents. What stands between them is the template's own, and its
control tokens count; what replaces them is plain text, whatever it looks like.
"""

from __future__ import annotations

import datetime
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from methods.base import MethodError
from methods.parts import THINK, THINK_END
from tasks.base import Message

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TODAY = datetime.date(2025, 1, 1)  # in templates that print the date: a prompt is the same tomorrow
_BLANKS = " \t\r\n\u2581"  # added tokens of these alone are words as others are
_SURROGATES = re.compile("[\ud800-\udfff]")
_NO_BLANK_BEFORE = {"prepend_scheme": "never", "add_prefix_space": False, "prepend": ""}
_DATE_CALL = re.compile(r"strftime_now\(\s*(?:format\s*=\s*)?(['\"])(.*?)\1\s*\)")
_OPENED = re.compile(rf"{THINK}\s*({THINK_END}\s*)?$")
_ASKED = (Message("user", "Where may I park, and what's the price?"),)
_ANSWERED = (*_ASKED, Message("assistant", "On level 2: 31 euros a day."))
_WENT_ON = (*_ANSWERED, Message("user", "And on Sundays?"))
_SYSTEM = Message("system", "You are a helpful assistant.")


SystemTurn = Literal["the template's", "in the first user turn"]
Content = Literal["text", "parts"]


@dataclass(frozen=True)
class TemplateFacts:
    """What a chat template does, as far as prompts and answers depend on it."""

    system_turn: SystemTurn = "the template's"
    content: Content = "text"  # parts: a list of typed parts, as templates for images take it
    opened_think: str = ""  # what its generation prompt opens, and answers begin with; prompts leave it out
    date: str = ""  # the one that it prints, frozen; "": none


@dataclass(frozen=True)
class _Masked:
    """Tokenizers that know each added token under a private name alone, so that no text becomes one."""

    names: Mapping[str, str]  # added token -> private name
    added: re.Pattern[str]  # matches the longest added token that begins somewhere
    whole: Tokenizer  # as the tokenizer encodes a whole text
    inner: Tokenizer  # as it encodes a part from the middle, where no blank is put before


@lru_cache(maxsize=4)
def _masked(tokenizer: Any, _size: int) -> _Masked:
    """_size: len(tokenizer), which grows with every added token."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise MethodError("its tokenizer has no fast form (tokenizer.json), without which text cannot be masked")
    state = json.loads(backend.to_str()) | {"post_processor": None, "padding": None, "truncation": None}
    nonce = secrets.token_hex(8)  # nobody can type what no source shows
    tokens = [token for token in state["added_tokens"] if token["content"].strip(_BLANKS)]
    names = {token["content"]: f"\ue000{nonce}{token['id']}\ue001" for token in tokens}
    for token in tokens:
        token["content"] = names[token["content"]]
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): index for piece, index in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):
        pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [[a, b] for a, b in pairs if not {a, b, a + b} & names.keys()]
    whole = json.dumps(state)
    inner = json.dumps(state | {key: _no_blank_before(state[key]) for key in ("normalizer", "pre_tokenizer")})
    first = Tokenizer.from_str(whole)
    return _Masked(
        names,
        re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"),
        first,
        first if inner == whole else Tokenizer.from_str(inner),
    )


def _no_blank_before(step: Any) -> Any:
    if isinstance(step, list):
        return [_no_blank_before(part) for part in step]
    if isinstance(step, dict):
        return {key: _NO_BLANK_BEFORE.get(key, _no_blank_before(value)) for key, value in step.items()}
    return step


def whole_characters(text: str) -> str:
    """The text with U+FFFD for each half of a character: JSON may hold one, and no tokenizer takes it."""
    return _SURROGATES.sub("\ufffd", text)


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Text as it stands inside a longer one; what looks like an added token stays ordinary characters."""
    inner = _masked(tokenizer, len(tokenizer)).inner
    return list(inner.encode(whole_characters(text), add_special_tokens=False).ids)


def encode_whole(tokenizer: Any, text: str) -> list[int]:
    """As `encode_text`, of a text that nothing stands before."""
    return _encode_rendered(tokenizer, ["", text])


def _encode_rendered(tokenizer: Any, parts: Sequence[str]) -> list[int]:
    """In one go, so that a tokenizer joins text over the border of template and content as it always does."""
    masked = _masked(tokenizer, len(tokenizer))
    named = [
        whole_characters(part) if n % 2 else masked.added.sub(lambda found: masked.names[found[0]], part)
        for n, part in enumerate(parts)
    ]
    return list(masked.whole.encode("".join(named), add_special_tokens=False).ids)


def _chat(facts: TemplateFacts, messages: Sequence[Message], contents: Iterable[str]) -> list[dict[str, Any]]:
    forms = (text if facts.content == "text" else [{"type": "text", "text": text}] for text in contents)
    return [{"role": m.role, "content": form} for m, form in zip(messages, forms, strict=True)]


def render(
    tokenizer: Any, facts: TemplateFacts, messages: Sequence[Message], add_generation_prompt: bool = True
) -> list[str]:
    """[template, content, template, ..., template]: what the template writes around each message's content.

    Blanks around a content are the template's to keep or to cut. Raises MethodError, in the template's words,
    where it refuses the messages, and where it does not write each of them once and in order.
    """
    cores = [message.content.strip() for message in messages]
    marks = [f"\ue000{index}\ue001" for index in range(len(messages))]
    marked = (m.content.replace(core, mark, 1) for m, core, mark in zip(messages, cores, marks, strict=True))
    try:
        rendered = tokenizer.apply_chat_template(
            _chat(facts, messages, marked), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # a template may fail in any way
        raise MethodError(f"its chat template cannot write these messages ({first_line(error)})") from error
    parts = re.split(f"({'|'.join(marks)})", rendered)
    if parts[1::2] != marks:
        raise MethodError("its chat template does not write each message once and in order")
    parts[1::2] = cores
    return parts


def first_line(error: Exception) -> str:
    """Of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def placed(facts: TemplateFacts, messages: Sequence[Message]) -> list[Message]:
    """The messages as the template takes them: a system message stands in the first user turn where it must."""
    if facts.system_turn == "the template's" or messages[0].role != "system":
        return list(messages)
    system, *rest = messages
    if not rest or rest[0].role != "user":
        return [Message("user", system.content), *rest]
    return [Message("user", f"{system.content}\n\n{rest[0].content}"), *rest[1:]]


def prompt_ids(tokenizer: Any, facts: TemplateFacts, messages: Sequence[Message]) -> list[int]:
    """Ids of the template over the messages up to the assistant's header; a think that it opens is left out."""
    parts = render(tokenizer, facts, placed(facts, messages))
    parts[-1] = parts[-1].removesuffix(facts.opened_think)
    return _encode_rendered(tokenizer, parts)


def _freeze_date(tokenizer: Any) -> str:
    """Puts one day for good into a template that prints today's; -> that day, "" where none is printed."""
    template = str(tokenizer.get_chat_template())
    frozen = _DATE_CALL.sub(lambda call: f"'{TODAY.strftime(call[2])}'", template)
    if "strftime_now(" in frozen:
        raise MethodError("its chat template prints today's date in a way that cannot be held still")
    if frozen == template:
        return ""
    tokenizer.chat_template = frozen
    return TODAY.isoformat()


def read_template(tokenizer: Any) -> TemplateFacts:
    """Raises MethodError for a template that is broken, or whose ids cannot be had with contents masked."""
    date = _freeze_date(tokenizer)
    kinds = [
        TemplateFacts(system, form, date=date) for form in get_args(Content) for system in get_args(SystemTurn)
    ]
    problems = []
    for facts in kinds:
        try:
            for messages in (_ASKED, _WENT_ON):
                parts = render(tokenizer, facts, placed(facts, (_SYSTEM, *messages)))
            break
        except MethodError as error:
            problems.append(error)
    else:
        raise problems[1]  # of plain text without a system turn
    opened = _OPENED.search(parts[-1])
    facts = replace(facts, opened_think=opened[0] if opened else "")
    said = placed(facts, (_SYSTEM, *_WENT_ON))
    chat = _chat(facts, said, (message.content for message in said))
    own = list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))
    left_out = _encode_rendered(tokenizer, [facts.opened_think])
    if [*prompt_ids(tokenizer, facts, said), *left_out] != own:
        raise MethodError("its tokenizer gives other ids for a chat whose contents are masked than for the chat")
    return facts


def template_tokens(tokenizer: Any, facts: TemplateFacts) -> frozenset[int]:
    """Ids of the added tokens that the template writes around messages, flagged special or not."""
    added = _masked(tokenizer, len(tokenizer)).added
    parts = render(tokenizer, facts, placed(facts, (_SYSTEM, *_WENT_ON)))[::2]
    return frozenset(int(tokenizer.convert_tokens_to_ids(name)) for part in parts for name in added.findall(part))


def turn_end(tokenizer: Any, facts: TemplateFacts, stop_ids: Sequence[int]) -> int | None:
    """The id of the added token that the template writes behind an assistant turn; None where it writes none.

    A token that opens the next turn ends this one where the model stops at it (GLM's `<|user|>`).
    """
    for messages, at in ((_ANSWERED, -1), (_WENT_ON, 4)):  # the last turn, and one that others follow
        behind = render(tokenizer, facts, messages, add_generation_prompt=False)[at].lstrip()
        found = _masked(tokenizer, len(tokenizer)).added.match(behind)
        end = int(tokenizer.convert_tokens_to_ids(found[0])) if found else None
        if end is not None and (at == -1 or end in stop_ids):
            return end
    return None
