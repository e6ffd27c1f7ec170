"""Messages -> token ids, safe against control tokens.

Every method writes and reads one format:

    <think>\\n[what was recalled or quoted]\\nREASONING\\n</think>\\nANSWER<eos>

Contents are encoded as plain text (methods.template), so a user who types `<recall>` or `<|im_end|>` gets those
characters and never the control token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from methods.backbone import Backbone
from methods.base import MethodError
from methods.template import encode_text, prompt_ids
from tasks.base import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PASSAGE_ROOM = 512  # tokens of the window that no history takes, so that passages fit beside it
SYSTEM = "You are a helpful assistant."
Piece = str | int  # plain text, or one control token's id


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


def recall_prompt(backbone: Backbone, messages: Sequence[Message]) -> list[int]:
    """Ids of a conversation whose answer has just begun with a recall."""
    ids = backbone.ids
    return encode_prompt(backbone, messages) + encode_pieces(backbone.tokenizer, [ids.think, "\n", ids.recall])


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
