"""lm-eval on the live model: no weights are written, no network is used, the one decode loop generates.

Local tasks are handed over as datasets in memory. Two views of a backbone: `ChatLM` takes a context as a
user's message and encodes it as every method does; `PlainLM` is for lm-eval's own tasks and leaves their
prompts as they are.

Shapes: B batch, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from eval.ability import Item, matches
from methods.backbone import Backbone
from methods.chat import encode_prompt, encode_text
from methods.decode import generate
from methods.template import encode_whole
from tasks.base import Message, TaskError

if TYPE_CHECKING:
    from methods.recall.bank import MemoryBank

SCORES = ("acc", "exact_match")  # of lm-eval tasks by name; the first that a task has


@dataclass(frozen=True, eq=False)
class Injection:
    """What is fed in place of the pads' embeddings: P vectors, one after another."""

    memory_id: str  # "" for random directions
    vectors_PD: Tensor


def memory_injections(bank: MemoryBank, questions: Sequence[str], seed: int) -> dict[str, Injection]:
    """For each question the vectors of a random memory, the null memory aside, as recall would feed it."""
    rows = [row for row, memory_id in enumerate(bank.ids) if memory_id]
    drawn = {question: random.Random(f"ability/memory/{seed}/{question}").choice(rows) for question in questions}
    return {q: Injection(bank.ids[row], bank.memory_embeddings(row)) for q, row in drawn.items()}


def random_injections(bank: MemoryBank, questions: Sequence[str], seed: int) -> dict[str, Injection]:
    """For each question random directions, as many and as long as the vectors that `memory_injections` draws."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Injection] = {}
    for question, drawn in memory_injections(bank, questions, seed).items():
        lengths_P1 = drawn.vectors_PD.norm(dim=-1, keepdim=True)
        directions_PD = torch.randn(drawn.vectors_PD.shape, generator=generator).to(lengths_P1)
        found[question] = Injection("", torch.nn.functional.normalize(directions_PD, dim=-1) * lengths_P1)
    return found


class PlainLM(HFLM):
    """lm-eval's view of a live backbone; it generates through the one decode loop, greedily.

    Stop strings of a task cut the text afterwards. Settings for sampling are ignored. A prompt is text alone.
    """

    def __init__(self, backbone: Backbone, batch_size: int) -> None:
        self.backbone_ = backbone
        with quiet():
            super().__init__(
                pretrained=backbone.model,
                tokenizer=backbone.tokenizer,
                batch_size=batch_size,
                max_length=backbone.facts.context_length,
            )

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> list[str]:
        found: list[str] = super().generate_until(requests, disable_tqdm=True)
        return found

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **_settings: Any,
    ) -> list[int]:
        begun = super().tok_encode("", add_special_tokens=add_special_tokens)  # a tokenizer's own beginning
        ids = [*begun, *encode_whole(self.tokenizer, string)]
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def tok_batch_encode(
        self, strings: Sequence[str], *_args: Any, left_truncate_len: int | None = None, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """-> (B, T) prompt ids and attention mask, padded left."""
        prompts = [self.tok_encode(string, left_truncate_len=left_truncate_len) for string in strings]
        width, pad = max(map(len, prompts)), int(self.tokenizer.pad_token_id)
        input_ids_BT = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
        mask_BT = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        return input_ids_BT, mask_BT

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], attention_mask: Tensor, **_sampling: Any
    ) -> Tensor:
        """context: (B, T), padded left -> (B, T + new), padded right."""
        prompts = [row[mask.bool()].tolist() for row, mask in zip(context, attention_mask, strict=True)]
        outputs = generate(self.backbone_, prompts, max_length - context.shape[1])
        width = max(len(output.token_ids) for output in outputs)
        pad = int(self.tokenizer.pad_token_id)
        new = [[*output.token_ids, *[pad] * (width - len(output.token_ids))] for output in outputs]
        return torch.cat([context, torch.tensor(new, device=context.device)], dim=1)


class ChatLM(PlainLM):
    """Contexts are user messages, in the chat template and safe against control tokens.

    injections: user message -> vector. The answer then stands behind `<recall><|memory_pad|></recall>`, and
    the vector is fed in place of the pad's embedding.
    """

    def __init__(
        self, backbone: Backbone, batch_size: int, injections: Mapping[str, Injection] | None = None
    ) -> None:
        super().__init__(backbone, batch_size)
        self._injections = injections

    def tok_encode(self, string: str, *_args: Any, **_kwargs: Any) -> list[int]:
        return encode_prompt(self.backbone_, (Message("user", string),))

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Prompt ids, and ids of the answer with the stop token: else "13" would win over "131" by length."""
        prompt, ids = self.tok_encode(context), self.backbone_.ids
        if self._injections is not None:
            pads = [ids.memory_pad] * len(self._injections[context].vectors_PD)
            prompt += [ids.recall, *pads, ids.recall_end, *encode_text(self.tokenizer, "\n")]
        return prompt, [*encode_text(self.tokenizer, continuation), ids.eos]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], *_args: Any, **_kwargs: Any
    ) -> list[tuple[float, bool]]:
        """As lm-eval's, but a prompt is computed once for all its answers: three times faster with four."""
        rows_by_user: dict[str, list[int]] = {}
        for row, ((user, _), _, _) in enumerate(requests):
            rows_by_user.setdefault(user, []).append(row)
        found: dict[int, tuple[float, bool]] = {}
        for user, rows in rows_by_user.items():
            answers = [requests[row][2] for row in rows]
            found |= zip(rows, self._answers(user, requests[rows[0]][1], answers), strict=True)
        return [found[row] for row in range(len(requests))]

    @torch.no_grad()
    def _answers(
        self, user: str, prompt: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each answer behind the prompt, and whether it is the greedy one. B answers."""
        ids_1T = torch.tensor([list(prompt)], device=self.device)
        embeds_1TD = self.model.get_input_embeddings()(ids_1T).clone()
        if self._injections is not None:
            pad = list(prompt).index(self.backbone_.ids.memory_pad)
            vectors_PD = self._injections[user].vectors_PD.to(embeds_1TD)
            embeds_1TD[0, pad : pad + len(vectors_PD)] = vectors_PD
        first = self.model(inputs_embeds=embeds_1TD, use_cache=True, logits_to_keep=1)
        cache = first.past_key_values
        cache.batch_repeat_interleave(len(answers))
        width = max(map(len, answers))
        filler = int(self.tokenizer.pad_token_id)  # behind the answers, where nothing reads it
        ids_BT = torch.tensor([[*a, *[filler] * (width - len(a))] for a in answers], device=self.device)
        rest = self.model(input_ids=ids_BT[:, :-1], past_key_values=cache, use_cache=True)
        logits_BTV = torch.cat([first.logits.expand(len(answers), -1, -1), rest.logits], dim=1).float()
        chosen_BT = logits_BTV.log_softmax(dim=-1).gather(2, ids_BT[:, :, None]).squeeze(2)
        greedy_BT = logits_BTV.argmax(dim=-1) == ids_BT
        return [
            (float(chosen_BT[row, : len(a)].sum()), bool(greedy_BT[row, : len(a)].all()))
            for row, a in enumerate(answers)
        ]

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = False) -> str:
        """With control tokens: `</think>` tells the answer from the reasoning."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False))


# --- running tasks ------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """lm-eval warns of what is meant here, such as a model that is loaded already."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _without_bar(build: Callable[..., None]) -> Callable[..., None]:
    """`Task.build_all_requests` draws a progress bar that cannot be switched off."""

    @functools.wraps(build)
    def silent(*args: Any, **kwargs: Any) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            build(*args, **kwargs)

    return silent


def evaluate_task(lm: Any, name: str, task: Any, seed: int = 0, limit: int | None = None) -> dict[str, Any]:
    """Runs one task through lm-eval, without its bootstrap. -> {"samples": per item, "results": its scores}

    lm: any lm-eval model. The seed decides few-shot examples, where a task has some; nothing else is drawn.
    """
    from lm_eval.evaluator import evaluate

    with quiet():
        task.set_fewshot_seed(seed=seed)
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.build_all_requests = _without_bar(task.build_all_requests)
        try:
            found = evaluate(lm, {"tasks": {name: task}, "groups": {}}, limit=limit, bootstrap_iters=0)
        finally:
            del task.build_all_requests
    samples = found["samples"][name]
    first = samples[0]["filter"]  # of several filters over the same outputs the first
    return {
        "samples": sorted((s for s in samples if s["filter"] == first), key=lambda s: s["doc_id"]),
        "results": found["results"][name],
    }


def local_task(name: str, docs: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
    """A zero-shot lm-eval task over documents in memory; nothing is read from disk or from the Hub."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    def dataset(**_kwargs: Any) -> dict[str, Dataset]:
        return {"test": Dataset.from_list([dict(doc) for doc in docs])}

    config = {
        "task": name,
        "custom_dataset": dataset,
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "question",
        "target_delimiter": "",
        "metadata": {"version": 1},
        **settings,
    }
    with quiet():
        return ConfigurableTask(config=config)


def rank_choices(lm: Any, items: Sequence[Item]) -> list[tuple[float, ...]]:
    """Log-likelihood, in nats, of every choice of every item."""
    docs = [{"question": i.question, "choices": list(i.choices), "label": i.choices.index(i.gold)} for i in items]
    task = local_task(
        "recallbench_multiple_choice",
        docs,
        output_type="multiple_choice",
        doc_to_choice="choices",
        doc_to_target="label",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )
    found = evaluate_task(lm, "recallbench_multiple_choice", task)
    return [tuple(float(r[0]) for r in sample["filtered_resps"]) for sample in found["samples"]]


def answer_freely(lm: Any, items: Sequence[Item], max_new_tokens: int) -> list[str]:
    """The generated text of every item, up to the stop token."""
    task = local_task(
        "recallbench_generation",
        [{"question": i.question, "answer": i.gold} for i in items],
        output_type="generate_until",
        doc_to_target="answer",
        generation_kwargs={"until": [], "max_gen_toks": max_new_tokens, "do_sample": False},
        process_results=lambda doc, results: {"exact_match": float(matches(results[0], doc["answer"]))},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )
    found = evaluate_task(lm, "recallbench_generation", task)
    return [str(sample["filtered_resps"][0]) for sample in found["samples"]]


# --- lm-eval's own tasks ------------------------------------------------------------------------


@functools.cache
def load_named_tasks(names: tuple[str, ...]) -> dict[str, Any]:
    """lm-eval tasks by name, their data from the Hub or its cache; a group gives all its tasks.

    To call before anything is fitted, so that a wrong name costs nothing. Raises TaskError for an unknown name,
    for one whose data cannot be reached, and for one without a score from 0 to 1 for each item.
    """
    if not names:
        return {}
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    loaded: dict[str, Any] = {}
    for name in names:
        if name not in manager.all_tasks:
            raise TaskError(
                f"evaluation.ability_tasks: lm-eval has no task called {name!r}; `lm-eval ls tasks` lists them"
            )
        try:
            with quiet():
                loaded |= manager.load([name])["tasks"]
        except Exception as error:  # every loader has errors of its own, all of them mean the data
            raise TaskError(
                f"evaluation.ability_tasks: the data of {name!r} is neither cached nor within reach of this "
                f"machine; go online once, or leave the task out ({_first_line(error)})"
            ) from error
    for name, task in loaded.items():
        _score_of(name, task)
    return loaded


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _score_of(name: str, task: Any) -> str:
    metrics = task.aggregation()
    for score in SCORES:
        if score in metrics:
            return score
    raise TaskError(
        f"evaluation.ability_tasks: {name!r} has no score of each item from 0 to 1 (it has "
        f"{', '.join(metrics)}); choose a task that is scored by {' or '.join(SCORES)}"
    )


def num_docs(task: Any, num_items: int) -> int:
    return min(num_items, len(task.eval_docs))


def score_named(lm: Any, name: str, task: Any, seed: int, num_items: int) -> list[tuple[Item, float]]:
    """The first `num_items` documents of a task, with lm-eval's own score of each."""
    score = _score_of(name, task)
    found = evaluate_task(lm, name, task, seed, num_docs(task, num_items))
    return [
        (
            Item(f"{name}/{s['doc_id']}", name, str(s["arguments"][0][0]), str(s["target"])),
            float(s[score]),
        )
        for s in found["samples"]
    ]
