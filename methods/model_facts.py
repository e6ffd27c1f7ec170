"""The facts of a model that methods depend on, read once at load from the model, its tokenizer and its template.

What cannot be used is refused here, in one sentence, before anything is trained.

Shapes: B batch, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import MethodError
from methods.template import TemplateFacts, first_line, read_template, turn_end

_FUSED = re.compile("qkv|query_key_value|c_attn|att_proj", re.IGNORECASE)
_QUERY_VALUE = re.compile(rf"^(q|v|kv|query|value|W[qv])(_|$)|{_FUSED.pattern}", re.IGNORECASE)
_POSITIONS = re.compile(r"wpe|pos")  # in the names of learned positions
_NEEDED = {
    "inputs_embeds": "way to be fed vectors",
    "attention_mask": "mask",
    "past_key_values": "key-value cache",
}


@dataclass(frozen=True)
class ModelFacts:
    """Part of a run's environment: `dataclasses.asdict` is what it shows."""

    kind: str  # config.model_type
    hidden_size: int
    context_length: int  # tokens
    learned_positions: bool  # a token behind the context length has no position at all
    embedding_norm: float  # mean L2 norm of what the decoder receives for a token: the size of a fed vector
    logit_scale: float  # logits are the head's output times this,
    logit_softcap: float  # and then squeezed between plus and minus this (0: they are not)
    trained_matrices: tuple[
        str, ...
    ]  # hold control tokens' rows: the embedding, and the head where it is not tied
    lora_targets: tuple[str, ...]  # all linear layers of the decoder, by the last part of their names
    query_value_targets: tuple[str, ...]  # of these; empty where the model has none
    fused_query_value: bool  # keys are adapted with them, since one layer computes them all
    unadapted: tuple[str, ...]  # the decoder's matrices that no LoRA reaches
    fan_in_fan_out: bool  # its linear layers keep their weights transposed
    turn_end: int  # what the template writes behind an assistant turn: learnt as the end
    stop_ids: tuple[int, ...]  # decoding stops at any: the turn's end first, the tokenizer's, generation_config's
    template: TemplateFacts

    def logits(self, head_output: Tensor) -> Tensor:
        """What the model makes of its head's output, fp32."""
        return _logits(head_output.float(), self.logit_scale, self.logit_softcap)


def _logits(head_output: Tensor, scale: float, softcap: float) -> Tensor:
    scaled = head_output if scale == 1 else head_output * scale
    return torch.tanh(scaled / softcap) * softcap if softcap else scaled


def _last(name: str) -> str:
    """Part of a module's name."""
    return name.rpartition(".")[2]


def _close(first: Tensor, second: Tensor) -> bool:
    """Equal up to rounding: of fp32, or of less where weights come so."""
    if first.dtype is torch.float32:
        return torch.allclose(first, second, rtol=1e-4, atol=1e-5)
    first, second = first.float(), second.float()
    return torch.allclose(first, second, rtol=0.0, atol=0.05 * float(second.std()))


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Raises MethodError for a token without a row that a text or a chat may hold.

    Spare marks, as for images, may lie above the rows (Gemma 3 1B); the embedding then grows.
    """
    num_rows = model.get_input_embeddings().weight.shape[0]
    added = tokenizer.added_tokens_decoder
    used = f"{tokenizer.chat_template}{list(tokenizer.special_tokens_map.values())}"
    above = {index: token for token, index in tokenizer.get_vocab().items() if index >= num_rows}
    if any(index not in added or not added[index].special or token in used for index, token in above.items()):
        raise MethodError(
            f"its tokenizer knows {max(above) + 1} tokens and its embedding has {num_rows} rows; take weights and "
            "tokenizer of one model"
        )


@torch.no_grad()
def read_facts(model: Any, tokenizer: Any) -> ModelFacts:
    """Of a model with the control tokens added. Raises MethodError for what no method can use."""
    config = model.config.get_text_config()
    template = read_template(tokenizer)
    own = model.generation_config.eos_token_id
    stops = [tokenizer.eos_token_id, *(own if isinstance(own, (list, tuple)) else [own])]
    stops = [int(token) for token in stops if token is not None]
    end = turn_end(tokenizer, template, stops)
    if end is None and not stops:
        raise MethodError("nothing ends an answer: neither its template, nor its tokenizer, nor its configuration")
    end = stops[0] if end is None else end
    scale, softcap = _read_logits(model, config)
    targets, unadapted = _linear_layers(model)
    query_value = tuple(name for name in targets if _QUERY_VALUE.search(_last(name)))
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    matrices = [embedding] if embedding.weight is head.weight else [embedding, head]
    context_length = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)
    return ModelFacts(
        kind=str(model.config.model_type),
        hidden_size=int(config.hidden_size),
        context_length=int(context_length or 2048),
        learned_positions=any(
            isinstance(module, nn.Embedding) and _POSITIONS.search(_last(name))
            for name, module in model.get_decoder().named_modules()
        ),
        embedding_norm=_embedding_norm(embedding, len(tokenizer)),
        logit_scale=scale,
        logit_softcap=softcap,
        trained_matrices=tuple(name for name, module in model.named_modules() if module in matrices),
        lora_targets=targets,
        query_value_targets=query_value,
        fused_query_value=any(_FUSED.search(name) for name in query_value),
        unadapted=unadapted,
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),
        turn_end=end,
        stop_ids=tuple(dict.fromkeys([end, *stops])),
        template=template,
    )


def _embedding_norm(embedding: nn.Module, num_tokens: int) -> float:
    """Some embeddings scale what they hold (Gemma: by sqrt(D)), so it is measured on what comes out of them."""
    parts = torch.arange(num_tokens, device=next(embedding.parameters()).device).split(8192)
    return sum(float(embedding(ids).float().norm(dim=-1).sum()) for ids in parts) / num_tokens


def _read_logits(model: Any, config: Any) -> tuple[float, float]:
    """(scale, softcap) between head and logits, from two short forwards that show that the model can be used."""
    head, decoder = model.get_output_embeddings(), getattr(model, model.base_model_prefix, None)
    parameters = inspect.signature(model.forward).parameters
    missing = [what for name, what in _NEEDED.items() if name not in parameters]
    unsupported = f"models of the kind {model.config.model_type} are not supported: "
    if missing or head is None or decoder is None:
        raise MethodError(
            f"{unsupported}they have no {(*missing, 'output head')[0]}; choose a decoder with attention"
        )
    ids_BT = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]], device=model.device)
    mask_BT = torch.ones_like(ids_BT)
    model.eval()
    try:
        fed = model(inputs_embeds=model.get_input_embeddings()(ids_BT), attention_mask=mask_BT, use_cache=True)
        raw_BTV = head(decoder(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state)
    except Exception as error:  # whatever a model of another kind trips over
        raise MethodError(f"{unsupported}a forward over embeddings fails ({first_line(error)})") from error
    softcap = float(getattr(config, "final_logit_softcapping", None) or 0)
    said_BTV, own_BTV = fed.logits.float(), raw_BTV.float()
    if softcap and raw_BTV.dtype is not torch.float32:  # rounded, a logit near the cap is at it
        said_BTV, own_BTV = (t * (said_BTV.abs() < 0.9 * softcap) for t in (said_BTV, own_BTV))
    inner_BTV = torch.atanh(said_BTV / softcap) * softcap if softcap else said_BTV
    scale = float(f"{float((inner_BTV * own_BTV).sum() / own_BTV.square().sum()):.6g}")
    if raw_BTV.dtype is not torch.float32 and abs(scale - 1) < 1e-3:  # rounding of the weights' type
        scale = 1.0
    faults = {
        "a token sees those behind it": not _close(fed.logits[0, :3], fed.logits[1, :3]),
        "they keep no key-value cache": fed.past_key_values is None,
        "vectors fed in place of tokens give other logits, or logits are not their head's output": not _close(
            _logits(raw_BTV, scale, softcap), fed.logits
        ),
    }
    for fault, found in faults.items():
        if found:
            raise MethodError(unsupported + fault)
    return scale, softcap


def _linear_layers(model: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the decoder's linear layers but the head, and of the matrices beside them.

    A name is the last part where it means the decoder's layers alone, else the whole path.
    """
    from transformers.pytorch_utils import Conv1D

    decoder, head = model.get_decoder(), model.get_output_embeddings()
    inside, everywhere = set(decoder.modules()) - {head}, dict(model.named_modules())
    layers = [
        n for n, module in everywhere.items() if isinstance(module, (nn.Linear, Conv1D)) and module in inside
    ]
    alike, mine = Counter(map(_last, everywhere)), Counter(map(_last, layers))
    targets = [_last(n) if alike[_last(n)] == mine[_last(n)] and not _last(n).isdigit() else n for n in layers]
    reached = {module.weight for module in inside if isinstance(module, (nn.Linear, Conv1D, nn.Embedding))}
    others = [name for name, weight in decoder.named_parameters() if weight.ndim > 1 and weight not in reached]
    rest = [_last(name.removesuffix(".weight")) for name in others]
    return tuple(dict.fromkeys(targets)), tuple(dict.fromkeys(rest))
