"""Messages -> token ids, safe against control tokens.

Every method writes and reads one format:

    <think>\\n[what was recalled or quoted]\\nREASONING\\n</think>\\nANSWER<eos>

Contents are encoded as plain text (methods.template), so a user who types `<recall>` or `<|im_end|>` gets those
characters and never the control token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from methods.backbone import Backbone
from methods.base import MethodError
from methods.parts import THINK, THINK_END
from methods.template import encode_text, prompt_ids
from tasks.base import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100  # label of a position without loss
PASSAGE_ROOM = 512  # tokens of the window that no history takes, so that passages fit beside it
SYSTEM = "You are a helpful assistant."
Piece = str | int  # plain text, or one control token's id

SampleKind = Literal["memory_front", "memory_full", "sft_only", "query"]


@dataclass(frozen=True)
class Sample:
    """One training sequence. Positions index `input_ids`."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]  # -100 where nothing is learnt; not shifted
    kind: SampleKind
    recall_position: int = -1  # of <recall>; its state is the query (-1: none)
    pad_position: int = -1  # of the first <|memory_pad|>; memory vectors are fed from there on (-1: none)
    memory_index: int = -1  # row of the bank that belongs here (-1: none)
    loss_weights: tuple[float, ...] = ()  # of each position's token loss; empty: 1 everywhere
    source: str = ""  # what it was drawn from, in a reader's words: counted in the fit's report

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def learnt(self) -> tuple[int, ...]:
        """Positions of the labelled tokens; a sample's first token is never predicted."""
        return tuple(n for n in range(1, len(self)) if self.labels[n] != IGNORE)

    @property
    def asks(self) -> bool:
        """Whether it is a question with a memory to find."""
        return self.recall_position >= 0 and self.memory_index >= 0


def encode_pieces(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> list[int]:
    ids: list[int] = []
    for piece in pieces:
        ids += [piece] if isinstance(piece, int) else encode_text(tokenizer, piece)
    return ids


def encode_prompt(backbone: Backbone, messages: Sequence[Message]) -> list[int]:
    """Ids of the chat template over the messages, up to and including the assistant header.

    They are the template's own, with contents as plain text; a think that it opens itself is left to the answer.
    Raises MethodError for messages that the template refuses.
    """
    chat = [Message("system", SYSTEM), *messages] if messages[0].role != "system" else messages
    try:
        return prompt_ids(backbone.tokenizer, backbone.facts.template, chat)
    except MethodError as error:
        raise MethodError(f"model={backbone.name}: {error}") from error


def split_think(content: str) -> tuple[str, str]:
    """`<think>\\nA\\n</think>\\nB` -> (A, B); text without a think -> ("", text). A and B may spell the marks.

    The inverse of `tasks.base.assistant_content`: each mark stands on a line of its own.
    """
    opening, closing = f"{THINK}\n", f"\n{THINK_END}\n"
    if not content.startswith(opening) or closing not in content:
        return "", content.strip()
    think, answer = content[len(opening) :].split(closing, 1)
    return think.strip(), answer.strip()


def answer_pieces(backbone: Backbone, think: Sequence[Piece], answer: str) -> list[Piece]:
    """The one answer format. `think` pieces stand between `<think>\\n` and `\\n</think>`."""
    ids = backbone.ids
    return [ids.think, "\n", *think, "\n", ids.think_end, "\n" + answer, ids.eos]


def supervised(
    prompt: Sequence[int],
    target: Sequence[int],
    kind: SampleKind,
    *,
    recall: int | None = None,
    pad: int | None = None,
    num_pads: int = 1,
    memory_index: int = -1,
    target_loss_from: int = 0,
    source: str = "",
) -> Sample:
    """Prompt without loss, target with loss. recall, pad: offsets of <recall> and the first pad in the target."""
    labels = [IGNORE] * (len(prompt) + target_loss_from) + list(target[target_loss_from:])
    if pad is not None:
        start = len(prompt) + pad  # overwritten by the memory's vectors, never predicted
        labels[start : start + num_pads] = [IGNORE] * num_pads
    return Sample(
        input_ids=(*prompt, *target),
        labels=tuple(labels),
        kind=kind,
        recall_position=-1 if recall is None else len(prompt) + recall,
        pad_position=-1 if pad is None else len(prompt) + pad,
        memory_index=memory_index,
        source=source,
    )


def history_room(context_length: int, max_new_tokens: int) -> int:
    """Tokens that a prompt without passages may have: the same for every method, whether it shows passages or not.

    Of what the answer leaves of the context window, PASSAGE_ROOM is kept for passages, a quarter at most.
    """
    window = context_length - max_new_tokens
    return window - min(PASSAGE_ROOM, window // 4)


def fit_history(backbone: Backbone, messages: Sequence[Message], max_prompt_tokens: int) -> tuple[list[int], int]:
    """Prompt ids of at most so many tokens: the oldest exchanges are cut first, the same for every method.

    messages: as the user sees them, before any passage is added. Returns the ids and the number of messages
    cut. The user's last message is never cut.
    """
    kept = list(messages)
    cut = 0
    ids = encode_prompt(backbone, kept)
    while len(ids) > max_prompt_tokens and len(kept) > 1:
        drop = 2 if len(kept) > 2 else 1
        kept, cut = kept[drop:], cut + drop
        ids = encode_prompt(backbone, kept)
    return ids, cut
