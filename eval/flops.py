"""FLOPs of an answer, from its token counts and the sizes of the model: nothing is run.

A multiplication and an addition are two FLOPs. Counted are the matrix products: the weights of every layer, the
output head, and attention over the growing cache. Embedding look-ups, norms, rotary angles and softmax are left
out, as in torch.utils.flop_counter, with whose totals these agree. As there, attention of a prompt counts every
query with every key, also those that the causal mask hides.
"""

from __future__ import annotations

from eval.records import CostRecord
from eval.shapes import TransformerShape
from methods.base import Usage


def forward_flops(shape: TransformerShape, num_tokens: int, num_keys: int) -> int:
    """One pass of num_tokens new tokens that attend to num_keys keys, their own among them.

    Queries times keys and weights times values are 2 x heads x head size a pair and layer each.
    """
    weights = shape.block_weights * num_tokens + shape.once_weights
    return 2 * weights + 4 * shape.attention_width * num_tokens * num_keys


def generation_flops(shape: TransformerShape, prompt_tokens: int, new_tokens: int) -> int:
    """The prompt in one pass, then each new token but the last, which is never fed, in a pass of its own.

    Several tokens in one pass cost the same; drafts that were refused are not counted.
    """
    fed = new_tokens - 1
    num_keys = fed * prompt_tokens + fed * (fed + 1) // 2
    decoding = 2 * fed * (shape.block_weights + shape.once_weights) + 4 * shape.attention_width * num_keys
    return forward_flops(shape, prompt_tokens, prompt_tokens) + decoding


def memory_head_flops(shape: TransformerShape, usage: Usage) -> int:
    """Queries times the keys of the memory bank, over all recalls of an answer."""
    return 2 * shape.hidden_size * usage.searched_vectors


def lookup_flops(record: CostRecord) -> int | None:
    """Finding memories: the memory head, or the encoder's pass over the question. None: sizes not known.

    The search in RAG's index is no matrix product and is not counted; its time is a stage.
    """
    shapes = record.shapes
    if shapes is None or shapes.model is None or (record.usage.encoder_tokens and shapes.encoder is None):
        return None
    flops = memory_head_flops(shapes.model, record.usage)
    if shapes.encoder is not None and record.usage.encoder_tokens:
        flops += forward_flops(shapes.encoder, record.usage.encoder_tokens, record.usage.encoder_tokens)
    return flops


def answer_flops(record: CostRecord) -> int | None:
    """The whole answer: generation and look-up. None: sizes not known."""
    lookup = lookup_flops(record)
    if lookup is None or record.shapes is None or record.shapes.model is None:
        return None
    usage = record.usage
    return lookup + generation_flops(record.shapes.model, usage.prompt_tokens, usage.new_tokens)
