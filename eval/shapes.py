"""The sizes of a model that its FLOPs follow from: kept in records, they are computed without the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

_PLAIN_ATTENTION = {"full_attention", "sliding_attention"}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True)
class TransformerShape:
    """A dense transformer, as far as its matrix products go."""

    block_weights: int  # entries of all weight matrices that every token passes through
    once_weights: int  # of those that one token a pass goes through: lm_head, or an encoder's pooler
    attention_width: int  # heads x head size, summed over the layers
    hidden_size: int


@dataclass(frozen=True)
class Shapes:
    """The models that a method's answer runs through; None where there is none, or where it is not dense."""

    model: TransformerShape | None
    encoder: TransformerShape | None = None  # embeds the question for the look-up


@runtime_checkable
class HasModels(Protocol):
    """A method that names what its answers run through."""

    def models(self) -> tuple[Any, Any]:
        """The language model, and the transformer that embeds the question for the look-up, or None."""


def shapes_of(method: object) -> Shapes | None:
    """None where the method does not name its models."""
    if not isinstance(method, HasModels):
        return None
    model, encoder = method.models()
    return Shapes(shape_of(model), None if encoder is None else shape_of(encoder))


def shape_of(model: Any) -> TransformerShape | None:
    """Sizes of a transformers model, from its weight matrices and its config.

    None for a mixture of experts and for layers without plain attention: there tokens and matrices do not
    simply multiply.
    """
    config = model.config.get_text_config()
    if any(getattr(config, name, None) for name in _EXPERTS):
        return None
    if not set(getattr(config, "layer_types", None) or ()) <= _PLAIN_ATTENTION:
        return None
    once = [model.get_output_embeddings(), getattr(getattr(model, "pooler", None), "dense", None)]
    matrices = {
        module: module.weight.numel()
        for module in model.modules()
        if not hasattr(module, "num_embeddings") and getattr(getattr(module, "weight", None), "ndim", 0) == 2
    }
    once_weights = sum(matrices.pop(module, 0) for module in once if module is not None)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return TransformerShape(
        block_weights=sum(matrices.values()),
        once_weights=once_weights,
        attention_width=config.num_hidden_layers * config.num_attention_heads * head_size,
        hidden_size=config.hidden_size,
    )
