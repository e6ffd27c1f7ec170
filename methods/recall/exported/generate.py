"""Recall generation for a model folder that carries its own memory bank. Needs transformers and safetensors.

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generate(**inputs, custom_generate=folder, trust_remote_code=True)

Where the model emits <recall>, the hidden state there is matched against the bank (one matmul over unit
vectors), <|memory_pad|> is forced as the next token, and the memory's vector is fed in place of its embedding.
A memory of several vectors takes as many pads. Everything else is the stock loop: logits processors, stopping
criteria, KV cache, sampling.
"""

import json

import torch
from safetensors.torch import load_file
from transformers.utils import cached_file


class MemoryBank:
    """ids, texts, unit keys (all memories' one after the other), and what is fed for each: one vector or more."""

    def __init__(self, folder, device):
        with open(cached_file(folder, "bank.json"), encoding="utf-8") as file:
            meta = json.load(file)
        tensors = load_file(cached_file(folder, "bank.safetensors"))
        self.ids, self.texts = meta["ids"], meta["texts"]
        self.recall_id, self.pad_id = meta["recall_token_id"], meta["memory_pad_token_id"]
        self.keys = tensors["keys"].flatten(0, -2).to(device)  # saved as (M, D), or as (M, keys a memory, D)
        self.embeddings = [(value * meta["gain"])[None].to(device) for value in tensors["values"]]
        counts = meta.get("several", {})
        if counts:
            for memory_id, vectors in zip(counts, tensors["several"].split(list(counts.values())), strict=True):
                self.embeddings[self.ids.index(memory_id)] = vectors.to(device)

    def nearest(self, query):
        """(D,) state of <recall> -> (row, cosine of its best key)."""
        cosines = self.keys @ torch.nn.functional.normalize(query.float(), dim=-1)
        cosines = cosines.unflatten(0, (len(self.ids), -1)).amax(dim=-1)
        row = int(cosines.argmax())
        return row, float(cosines[row])


@torch.no_grad()
def recall_loop(
    model, input_ids, logits_processor, stopping_criteria, generation_config, bank, recalled, **kwargs
):
    """The stock loop with two seats: the pad is forced after <recall>, and its embedding is the memory."""
    seen = {}
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _module, args: seen.update(hidden=args[0][:, -1, :])
    )
    batch_size = input_ids.shape[0]
    waiting = [[] for _ in range(batch_size)]  # vectors of a memory that is being fed, one pad each
    unfinished = torch.ones(batch_size, dtype=torch.long, device=input_ids.device)
    has_eos = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    try:
        outputs = model._prefill(input_ids, generation_config, kwargs)
        while True:
            kwargs = model._update_model_kwargs_for_generation(outputs, kwargs)
            logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
            scores = logits_processor(input_ids, logits)
            if generation_config.do_sample:
                next_tokens = torch.multinomial(scores.softmax(dim=-1), num_samples=1).squeeze(1)
            else:
                next_tokens = scores.argmax(dim=-1)
            override = {}
            for row in (input_ids[:, -1] == bank.recall_id).nonzero().flatten().tolist():
                memory, cosine = bank.nearest(seen["hidden"][row])
                recalled[row].append({"id": bank.ids[memory], "cosine": cosine, "text": bank.texts[memory]})
                waiting[row] = list(bank.embeddings[memory])
            for row, vectors in enumerate(waiting):
                if vectors:
                    override[row] = vectors.pop(0)
                    next_tokens[row] = bank.pad_id
            if has_eos:
                next_tokens = next_tokens * unfinished + generation_config._pad_token_tensor * (1 - unfinished)
            input_ids = torch.cat([input_ids, next_tokens[:, None]], dim=-1)
            unfinished = unfinished & ~stopping_criteria(input_ids, None)
            if unfinished.max() == 0:
                return input_ids
            step = dict(kwargs)
            if override:
                embeds = model.get_input_embeddings()(input_ids[:, -1:]).clone()
                for row, vector in override.items():
                    if int(input_ids[row, -1]) == bank.pad_id:
                        embeds[row, 0] = vector.to(embeds)
                step |= {"inputs_embeds": embeds, "is_first_iteration": True}
            inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **step)
            outputs = model(**inputs, return_dict=True)
    finally:
        hook.remove()


def generate(model, *args, custom_generate=None, trust_remote_code=None, recalled=None, **kwargs):
    """Like `model.generate`. recalled: a list that receives, for every row, what it recalled."""
    folder = custom_generate or model.config._name_or_path
    bank = MemoryBank(folder, model.device)
    rows = next(iter(args), kwargs.get("input_ids", kwargs.get("inputs"))).shape[0]
    memories = [[] for _ in range(rows)]
    suppressed = [*(kwargs.pop("suppress_tokens", None) or []), bank.pad_id]

    def loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
        model_kwargs.pop("synced_gpus", None)
        settings = logits_processor, stopping_criteria, generation_config
        return recall_loop(model, input_ids, *settings, bank, memories, **model_kwargs)

    output = type(model).generate(model, *args, custom_generate=loop, suppress_tokens=suppressed, **kwargs)
    if recalled is not None:
        recalled.extend(memories)
    return output
