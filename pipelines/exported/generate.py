"""Recall generation for a model folder that carries its own memory bank. Needs transformers and safetensors.

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generate(**inputs, custom_generate=folder, trust_remote_code=True)

Where the model emits <recall>, the hidden state there is matched against the bank (one matmul over unit
vectors), <|memory_pad|> is forced as the next token, and the memory's vector is fed in place of its embedding.
A memory of several vectors takes as many pads. Everything else is the stock loop: logits processors, stopping
criteria, KV cache, sampling, streaming.

Shapes: B batch, R rows that recall, D hidden, M memories.
"""

import inspect
import json
import weakref
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.utils import cached_file

VALUES_SAMPLED = 16  # of each weight tensor
ROUNDING = 2**-7  # relative: weights of the export that were cast to bf16 or fp16 are still its own

_banks = weakref.WeakKeyDictionary()  # model -> (where its bank was read from, the bank)


def sample_weights(model):
    """(N,) fp32 on the CPU: a few values of every weight tensor, evenly apart, in the order of their names."""
    parts = []
    for _name, weight in sorted(model.named_parameters()):
        values = weight.detach().flatten()
        parts.append(values[:: max(1, len(values) // VALUES_SAMPLED)][:VALUES_SAMPLED].float().cpu())
    return torch.cat(parts)


class MemoryBank:
    """ids, texts, keys, what is fed for each memory (one vector or more), and how a memory is chosen."""

    def __init__(self, folder, device):
        meta, self.settings = _read_json(folder, "bank.json"), _read_json(folder, "recall.json")
        tensors = load_file(cached_file(folder, "bank.safetensors"))
        self.ids, self.texts = meta["ids"], meta["texts"]
        self.recall_id, self.pad_id = meta["recall_token_id"], meta["memory_pad_token_id"]
        self.weights = tensors["weights"]
        self.keys = tensors["keys"].to(device)
        self.embeddings = tensors["fed"].to(device).split(meta["num_vectors"])

    def belongs_to(self, model):
        """Has the model the weights that the bank was exported with?"""
        here = sample_weights(model)
        return here.shape == self.weights.shape and torch.allclose(here, self.weights, rtol=ROUNDING, atol=1e-6)

    def memory_head(self, query_RD):
        """(R, D) states of <recall> -> (R, M) cosines."""
        cosine_RM = torch.nn.functional.normalize(query_RD.float(), dim=-1) @ self.keys.T
        return cosine_RM + (1.0 - self.keys.square().sum(dim=-1)) / 2  # 0 for keys of unit length


def _read_json(folder, name):
    try:
        path = cached_file(folder, name)
    except OSError as error:
        raise ValueError(
            f"{folder}: holds no {name}, so it is no exported recall model; load the model from the exported "
            "folder, or name that with bank_folder=..."
        ) from error
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def bank_of(model, folder):
    """The folder's bank, read and checked once. Raises ValueError for a model with other weights."""
    try:
        written = Path(cached_file(folder, "bank.json")).stat().st_mtime_ns
    except OSError:
        written = None
    where = (str(folder), written, model.device)
    if model not in _banks or _banks[model][0] != where:
        bank = MemoryBank(folder, model.device)
        if not bank.belongs_to(model):
            raise ValueError(
                f"{folder}: its memories were exported with other weights than this model has, and would be read "
                "wrongly; load the model from that folder, not quantised"
            )
        _banks[model] = where, bank
    return _banks[model][1]


def memory_processors(settings):
    """Penalty and warpers of memory logits: the library's own, in the order in which it applies them to tokens."""
    processors = LogitsProcessorList()
    if settings["repetition_penalty"] != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"]))
    if settings["autorecall_use_sampling"]:
        processors.append(TemperatureLogitsWarper(settings["temperature"]))
        processors.append(TopKLogitsWarper(settings["top_k"]))
        processors.append(TopPLogitsWarper(settings["top_p"]))
    return processors


def choose(cosine_M, chosen, processors, settings):
    """The memory's place in the bank: drawn, or the best. chosen: those that this row recalled before."""
    before = torch.tensor([chosen], dtype=torch.long, device=cosine_M.device)
    scores = processors(before, cosine_M[None] * settings["logit_scale"])
    if settings["autorecall_use_sampling"]:
        return int(torch.multinomial(scores.softmax(dim=-1), num_samples=1))
    return int(scores.argmax(dim=-1))


@torch.no_grad()
def recall_loop(
    model,
    input_ids,
    logits_processor,
    stopping_criteria,
    generation_config,
    bank,
    settings,
    recalled,
    streamer,
    **kwargs,
):
    """The stock loop with two seats: the pad is forced after <recall>, and its embedding is the memory.

    recalled: a list that receives a list for every row, of what it recalled. streamer: every token is put as it
    comes, the pads too, as in the stock loop; `skip_special_tokens=True` leaves them out of its text.
    """
    if generation_config.num_beams > 1:
        raise ValueError(f"num_beams={generation_config.num_beams}: recall decodes without beams; leave it at 1")
    seen = {}
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _module, args: seen.update(hidden=args[0][:, -1, :])
    )
    batch_size = input_ids.shape[0]  # here it counts num_return_sequences too
    processors = memory_processors(settings)
    chosen = [[] for _ in range(batch_size)]
    waiting = [[] for _ in range(batch_size)]  # vectors of a memory that is being fed, one pad each
    recalled.extend([] for _ in range(batch_size))
    unfinished = torch.ones(batch_size, dtype=torch.long, device=input_ids.device)
    has_eos = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    cache, mask = kwargs["past_key_values"], kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask
    takes = inspect.signature(model.forward).parameters
    inputs = {"input_ids": input_ids[:, cache.get_seq_length() :]}
    try:
        while True:
            width = next(iter(inputs.values())).shape[1]
            if "position_ids" in takes:
                inputs["position_ids"] = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -width:]
            if "logits_to_keep" in takes:
                inputs["logits_to_keep"] = 1
            outputs = model(**inputs, attention_mask=mask, past_key_values=cache, use_cache=True, return_dict=True)
            logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
            scores = logits_processor(input_ids, logits)
            if generation_config.do_sample:
                next_tokens = torch.multinomial(scores.softmax(dim=-1), num_samples=1).squeeze(1)
            else:
                next_tokens = scores.argmax(dim=-1)
            rows = (input_ids[:, -1] == bank.recall_id).nonzero().flatten().tolist()
            if rows and settings["enabled"] and bank.ids:
                for row, cosine_M in zip(rows, bank.memory_head(seen["hidden"][rows]), strict=True):
                    memory = choose(cosine_M, chosen[row], processors, settings)
                    chosen[row].append(memory)
                    event = {"id": bank.ids[memory], "cosine": float(cosine_M[memory]), "text": bank.texts[memory]}
                    recalled[row].append(event)
                    waiting[row] = list(bank.embeddings[memory])
            override = {}
            for row, vectors in enumerate(waiting):
                if vectors:
                    override[row] = vectors.pop(0)
                    next_tokens[row] = bank.pad_id
            if has_eos:
                next_tokens = next_tokens * unfinished + generation_config._pad_token_tensor * (1 - unfinished)
            input_ids = torch.cat([input_ids, next_tokens[:, None]], dim=-1)
            if streamer is not None:
                streamer.put(next_tokens.cpu())
            unfinished = unfinished & ~stopping_criteria(input_ids, None)
            if unfinished.max() == 0:
                return input_ids
            mask = torch.cat([mask, mask.new_ones(batch_size, 1)], dim=1)
            inputs = {"input_ids": input_ids[:, -1:]}
            if override:
                embeds = model.get_input_embeddings()(input_ids[:, -1:]).clone()
                for row, vector in override.items():
                    if int(input_ids[row, -1]) == bank.pad_id:  # a finished row holds padding instead
                        embeds[row, 0] = vector.to(embeds)
                inputs = {"inputs_embeds": embeds}
    finally:
        hook.remove()


def generate(
    *inputs,
    model,
    custom_generate=None,
    trust_remote_code=None,
    bank_folder=None,
    recall=None,
    recalled=None,
    streamer=None,
    **kwargs,
):
    """Like `model.generate`, with the memories of the folder that the model was loaded from.

    bank_folder: that folder, where the model does not know it. recall: settings in place of those in recall.json,
    e.g. {"enabled": False}. recalled: a list that receives, for every row, what it recalled.
    Raises ValueError for a folder without memories, a model with other weights, or an unknown setting.
    """
    try:
        bank = bank_of(model, bank_folder or custom_generate or model.config._name_or_path)
        unknown = set(recall or {}) - set(bank.settings)
        if unknown:
            raise ValueError(f"recall: {min(unknown)!r} is no setting; choose from: {', '.join(bank.settings)}")
        settings = bank.settings | (recall or {})
        given = kwargs.get("generation_config") or model.generation_config
        suppressed = kwargs.pop("suppress_tokens", None) or given.suppress_tokens or []
        kwargs["suppress_tokens"] = [*suppressed, bank.pad_id]  # it stands where it is forced and nowhere else
        memories = []

        def loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
            model_kwargs.pop("synced_gpus", None)
            stock = logits_processor, stopping_criteria, generation_config
            return recall_loop(model, input_ids, *stock, bank, settings, memories, streamer, **model_kwargs)

        # The streamer gets the prompt there; the steps it gets in the loop, to which it is not handed on.
        output = type(model).generate(model, *inputs, custom_generate=loop, streamer=streamer, **kwargs)
    finally:
        if streamer is not None:
            streamer.end()  # after an error too, or its reader would wait for ever
    if recalled is not None:
        recalled.extend(memories)
    return output
