"""Writing without training: new memories for a fitted model, every weight frozen.

The value, what is injected and decoded, is optimised alone against the frozen model: Adam on the vectors,
cross-entropy on the memory's text (Memory Tokens, arXiv:2506.15001; Cramming, arXiv:2502.13063). It is exact
in a conversation once every token of the text leads there after the right prefix, which is what the greedy
decode needs; the conversations take turns until one value is exact in all of them, and it stays untouched
where nothing is wrong. Where reasoning and an answer follow the text in a conversation, the loss goes on over
them: vectors that only have to bring out the text may leave the model unfit to read it.

A value has several vectors, fed one after another, a few tokens of text to each. A small model does not get
a clause of 46 tokens out of one vector: 100 steps at any rate, with a free norm or a fixed one, from the text's
own vector, a sibling's or the mean, left at least 14 tokens wrong; 4 vectors were exact after 111 steps, 8 after
44. Capacity grows with the number of vectors. Their norms are kept near those of fitted vectors, which are what
the frozen model has learnt to read behind.

Values are optimised side by side, each with an optimiser and conversations of its own, so that none knows of the
others; one that is done makes room for the next. The outcome is that of one at a time, up to rounding.

Shapes: B rows, S fed positions, T target tokens, D hidden, P vectors of one memory, M memories in the bank, N new
ones, Q questions, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_pieces, recall_prompt
from methods.prefixes import Prefix, compute_prefixes, join_prefixes
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.embed import last_states
from methods.samples import recall_pieces, think_pieces
from tasks.base import Memory, Message
from tasks.examples import Example

LEARNING_RATE, WARMUP_STEPS = 0.1, 5  # of Adam
TOKENS_PER_VECTOR = 6
MARGIN = 0.5  # logits by which each token of the text must lead: reduced precision decides within less
BATCH_SIZE = 8  # values optimised side by side: what bounds the memory
# Of a vector, in gains of the bank, the norm of fitted vectors. Free ones came to 5 or 6 gains; at 2 two texts
# were exact after 58 and 59 steps, free after 43 and 51, at 1 after 61 steps neither.
MAX_NORM = 2.0
READ_STEPS = 40  # steps within which reasoning and answer must lead too; after them the text alone decides
WARM_START_COSINE = 0.7  # a memory with a key this near lends its value as the start


@dataclass(frozen=True)
class WriteConfig:
    """How values are optimised."""

    max_steps: int = 200  # of the optimiser, for one memory; 0: values stay where they start

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise MethodError(f"write.max_steps={self.max_steps} is below 0; choose 0 or more")


@dataclass(frozen=True)
class ValueJob:
    """A memory whose value is to be optimised."""

    memory: Memory
    examples: Sequence[Example]  # the conversations in which it must be decoded; with an answer, also be read
    start_PD: Tensor  # what is fed at first


@dataclass(frozen=True)
class WrittenValue:
    """What the optimisation came to."""

    fed_PD: Tensor
    exact: bool  # the text is decoded word for word in every conversation it was tried in
    steps: int
    forward_tokens: int


@dataclass(frozen=True)
class _Conversation:
    """Where a text must be decoded, and what follows it there: empty where nothing is known of that."""

    prefix: Prefix
    rest_T: Tensor


@dataclass
class _Lane:
    """One value on its way through the conversations, which take turns."""

    conversations: Sequence[_Conversation]
    text_T: Tensor  # with </recall>
    fed_PD: Tensor
    optimizer: torch.optim.Optimizer
    longest: float  # norm that a vector may have
    tokens: int
    place: int = 0  # of the conversation whose turn it is
    in_a_row: int = 0  # conversations passed since the last step
    steps: int = 0
    done: bool = False

    @property
    def conversation(self) -> _Conversation:
        return self.conversations[self.place]

    @property
    def target_T(self) -> Tensor:
        return torch.cat([self.text_T, self.conversation.rest_T])

    @property
    def exact(self) -> bool:
        return self.in_a_row == len(self.conversations)

    def judge(self, logits_TV: Tensor, max_steps: int) -> Tensor | None:
        """The loss that calls for a step, or None where none is needed or left; the turn passes on."""
        target_T, length = self.target_T, len(self.text_T)
        self.tokens += len(self.fed_PD) + len(target_T) - 1
        self.place = (self.place + 1) % len(self.conversations)
        lead_T = leads(logits_TV.detach(), target_T)
        must_read = self.steps < min(READ_STEPS, max_steps)
        if bool((lead_T[:length] > MARGIN).all()) and (not must_read or bool((lead_T[length:] > 0).all())):
            self.in_a_row += 1
            self.done = self.exact
            return None
        self.in_a_row = 0
        self.done = self.steps >= max_steps
        return None if self.done else F.cross_entropy(logits_TV, target_T)

    def step(self, gradient_PD: Tensor) -> None:
        self.fed_PD.grad = gradient_PD
        self.steps += 1
        self.optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, self.steps / WARMUP_STEPS)
        self.optimizer.step()
        with torch.no_grad():
            self.fed_PD.copy_(within_norm(self.fed_PD, self.longest))


def leads(logits_TV: Tensor, target_T: Tensor) -> Tensor:
    """(T,): by how much each target token's logit exceeds the best other's; above 0 the greedy decode agrees."""
    target_logit_T = logits_TV.gather(1, target_T[:, None])[:, 0]
    others_TV = logits_TV.scatter(1, target_T[:, None], float("-inf"))
    return target_logit_T - others_TV.amax(dim=-1)


def within_norm(fed_PD: Tensor, longest: float) -> Tensor:
    """The vectors, those longer than `longest` scaled down to it."""
    norm_P1 = fed_PD.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return fed_PD * (longest / norm_P1).clamp(max=1.0)


def spread_start(start_PD: Tensor, count: int, seed: int = 0) -> Tensor:
    """(count, D): the start's vectors, cut, or with copies of the first one apart from each other."""
    if len(start_PD) >= count:
        return start_PD[:count].clone()
    generator = torch.Generator().manual_seed(seed)
    noise_D = torch.randn(count - len(start_PD), start_PD.shape[1], generator=generator).to(start_PD)
    norm = start_PD[0].norm()
    copies = F.normalize(start_PD[0] + 0.5 * norm * F.normalize(noise_D, dim=-1), dim=-1) * norm
    return torch.cat([start_PD, copies])


def plan_starts(bank: MemoryBank, keys_ND: Tensor) -> list[Tensor]:
    """(P, D) where each new memory's value starts: the value of the bank's memory with the nearest key, if near.

    Where no key is, at the memory's own key, at the size of fitted values.
    """
    cosine_NM = F.normalize(keys_ND, dim=-1) @ F.normalize(bank.keys_MD, dim=-1).T
    if NULL_ID in bank:
        cosine_NM[:, bank.index(NULL_ID)] = -1.0
    nearest_N = cosine_NM.argmax(dim=1).tolist() if len(bank) else [-1] * len(keys_ND)
    return [
        bank.memory_embeddings(row) if row >= 0 and cosine_M[row] >= WARM_START_COSINE else key_D[None] * bank.gain
        for row, cosine_M, key_D in zip(nearest_N, cosine_NM, keys_ND, strict=True)
    ]


def _rest(backbone: Backbone, example: Example) -> list[int]:
    """What follows the recalled text in the answer format: reasoning, </think>, answer; [] without an answer."""
    pieces = think_pieces(backbone, recall_pieces(backbone, example.clause), example)
    return encode_pieces(backbone.tokenizer, pieces[pieces.index(backbone.ids.recall_end) + 1 :])


def target_logits(
    backbone: Backbone, prefixes: Sequence[Prefix], fed: Sequence[Tensor], targets: Sequence[Tensor]
) -> list[Tensor]:
    """(T, V) of each row: the logits for each target token behind the vectors (P, D) and the targets before it."""
    device = backbone.device
    cache = join_prefixes(backbone.model, prefixes)
    width = cache.get_seq_length()
    embed = backbone.model.get_input_embeddings()
    rows = []
    for fed_PD, target_T in zip(fed, targets, strict=True):
        embeds_TD = embed(target_T[:-1])
        rows.append(torch.cat([fed_PD.to(embeds_TD), embeds_TD]))
    embeds_BSD = pad_sequence(rows, batch_first=True)
    num_fed = embeds_BSD.shape[1]
    start_B = torch.tensor([len(prefix) for prefix in prefixes], device=device)
    length_B = torch.tensor([len(row) for row in rows], device=device)
    place_K = torch.arange(width + num_fed, device=device)  # in the cache with what is fed
    mask_BK = (place_K >= width - start_B[:, None]) & (place_K < width + length_B[:, None])
    hidden_BSD = backbone.model.base_model(
        inputs_embeds=embeds_BSD,
        attention_mask=mask_BK.long(),
        position_ids=start_B[:, None] + torch.arange(num_fed, device=device),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    said = [
        hidden_SD[len(fed_PD) - 1 : len(fed_PD) - 1 + len(target_T)]
        for hidden_SD, fed_PD, target_T in zip(hidden_BSD, fed, targets, strict=True)
    ]
    logits: Tensor = backbone.model.get_output_embeddings()(torch.cat(said)).float()
    return list(logits.split([len(target_T) for target_T in targets]))


def _lane(backbone: Backbone, job: ValueJob, longest: float, seed: int) -> _Lane:
    device = backbone.device
    text = encode_pieces(backbone.tokenizer, [job.memory.text, backbone.ids.recall_end])
    count = -(-len(text) // TOKENS_PER_VECTOR)
    start_PD = spread_start(job.start_PD.detach().float().to(device), count, seed)
    fed_PD = torch.nn.Parameter(within_norm(start_PD, longest))
    # Nothing that is optimised stands before the vectors: what leads to them is computed once.
    prefixes = compute_prefixes(backbone.model, [recall_prompt(backbone, e.messages) for e in job.examples])
    rests = [torch.tensor(_rest(backbone, e), dtype=torch.long, device=device) for e in job.examples]
    return _Lane(
        conversations=[_Conversation(prefix, rest) for prefix, rest in zip(prefixes, rests, strict=True)],
        text_T=torch.tensor(text, device=device),
        fed_PD=fed_PD,
        optimizer=torch.optim.Adam([fed_PD], lr=LEARNING_RATE),
        longest=longest,
        tokens=sum(map(len, prefixes)),
    )


def _turn(backbone: Backbone, lanes: Sequence[_Lane], max_steps: int) -> None:
    """One forward over all lanes, each in its conversation; those that need it take a step."""
    rows = target_logits(
        backbone,
        [lane.conversation.prefix for lane in lanes],
        [lane.fed_PD for lane in lanes],
        [lane.target_T for lane in lanes],
    )
    losses = [lane.judge(logits_TV, max_steps) for lane, logits_TV in zip(lanes, rows, strict=True)]
    learning = [lane for lane, loss in zip(lanes, losses, strict=True) if loss is not None]
    if learning:
        called = [loss for loss in losses if loss is not None]
        gradients = torch.autograd.grad(called, [lane.fed_PD for lane in learning])
        for lane, gradient_PD in zip(learning, gradients, strict=True):
            lane.step(gradient_PD)


def optimise_values(
    backbone: Backbone,
    jobs: Sequence[ValueJob],
    max_steps: int,
    gain: float,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[WrittenValue]:
    """For each job the vectors from which the frozen model decodes the memory's text in its conversations.

    At most BATCH_SIZE jobs run side by side, and one that is done leaves its place to the next. Vectors missing at
    the start are copies of its first one, spread. Nothing but the vectors is changed, and no gradient is left
    behind. gain: of the bank, which MAX_NORM counts in. progress is told how many of how many are done, from none
    on.
    """
    waiting = iter(range(len(jobs)))
    lanes: dict[int, _Lane] = {}
    written: dict[int, WrittenValue] = {}
    if jobs and progress is not None:
        progress(0, len(jobs))
    while len(written) < len(jobs):
        for number in itertools.islice(waiting, BATCH_SIZE - len(lanes)):
            lanes[number] = _lane(backbone, jobs[number], MAX_NORM * gain, seed)
        _turn(backbone, list(lanes.values()), max_steps)
        for number in [number for number, lane in lanes.items() if lane.done]:
            lane = lanes.pop(number)
            written[number] = WrittenValue(lane.fed_PD.detach(), lane.exact, lane.steps, lane.tokens)
            if progress is not None:
                progress(len(written), len(jobs))
    return [written[number] for number in range(len(jobs))]


@torch.no_grad()
def query_states(
    backbone: Backbone,
    questions: Sequence[Sequence[Message]],
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """(Q, D): unit states at <recall> behind each conversation, as the memory head sees them."""
    sequences = [recall_prompt(backbone, messages) for messages in questions]
    return F.normalize(last_states(backbone, sequences, progress).float(), dim=-1)
