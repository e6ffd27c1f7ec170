"""A cache of fixed size says what a growing one says, token for token, whatever is drafted, fed or stops."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from model_script import random_bank, says, scripted
from tiny_families import FAMILIES, save_family

from methods import decode, fixed_cache
from methods.backbone import Backbone, load_backbone
from methods.decode import Generated, Sampling, generate, quoting, serially
from methods.fixed_cache import FixedModel, last_hidden_states, power_of_four, release
from methods.prefixes import Prefixes, new_cache, reusing
from methods.recall.generation import AutoregressiveRecall, RecallMechanism

NEW = 24
PROMPTS = [[3, 4, 5], [6], [100, 9, 33, 7, 8, 41, 90], list(range(20, 60)), [12, 13]]


def tokens(outputs: Sequence[Generated]) -> list[tuple[int, ...]]:
    return [output.token_ids for output in outputs]


class Fixed:
    """Generation goes the way of a card, on the CPU, where nothing is recorded; sizes: of the caches made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.sizes: list[tuple[int, int]] = []
        made = fixed_cache._Buffers.__init__

        def noted(buffers: Any, model: Any, like: Any, rows: int, length: int, pool: Any) -> None:
            self.sizes.append((rows, length))
            made(buffers, model, like, rows, length, pool)

        monkeypatch.setattr(fixed_cache._Buffers, "__init__", noted)

    def generate(self, *args: Any, **kwargs: Any) -> list[Generated]:
        with self._patch.context() as patch:
            patch.setattr(decode, "recordable", lambda _device: True)
            return generate(*args, **kwargs)


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Fixed:
    release()
    return Fixed(monkeypatch)


def test_a_batch_says_the_same(lively: Backbone, fixed: Fixed) -> None:
    plain = generate(lively, PROMPTS, [NEW, 3, 9, NEW, 1])
    found = fixed.generate(lively, PROMPTS, [NEW, 3, 9, NEW, 1])
    assert tokens(found) == tokens(plain)
    assert [output.forwards for output in found] == [output.forwards for output in plain]
    assert fixed.sizes == [(16, 256), (4, 256)]  # rows that have stopped are computed no more


def test_one_row_says_the_same_and_holds_as_many_bytes(lively: Backbone, fixed: Fixed) -> None:
    for prompt in PROMPTS:
        (plain,), (found,) = generate(lively, [prompt], NEW), fixed.generate(lively, [prompt], NEW)
        assert (found.token_ids, found.kv_bytes) == (plain.token_ids, plain.kv_bytes)
    assert fixed.sizes == [(1, 256)]  # one cache, used again: what an answer left is not seen by the next


@pytest.mark.parametrize("together", [True, False])
def test_drafts_right_and_wrong_say_the_same(lively: Backbone, fixed: Fixed, together: bool) -> None:
    said = tokens(generate(lively, PROMPTS, NEW))
    drafts = [[said[0][:11]], [[7] * 9], [(*said[2][:3], 5, 5, 5)], [said[3]], [[]]]
    drafters = [quoting([], texts) for texts in drafts]
    if together:
        found = fixed.generate(lively, PROMPTS, NEW, drafters=drafters)
        assert tokens(found) == said
        assert found[0].drafted > 0
        return
    for row, prompt in enumerate(PROMPTS):
        (plain,) = generate(lively, [prompt], NEW, drafters=[drafters[row]])
        (found_alone,) = fixed.generate(lively, [prompt], NEW, drafters=[drafters[row]])
        assert found_alone.token_ids == said[row]
        assert (found_alone.kv_bytes, found_alone.forwards) == (plain.kv_bytes, plain.forwards)


def test_drafted_equals_serial(lively: Backbone, fixed: Fixed) -> None:
    said = tokens(generate(lively, PROMPTS, NEW))
    drafters = [quoting([], [row[:15]]) for row in said]
    with serially():
        serial = fixed.generate(lively, PROMPTS, NEW, drafters=drafters)
    assert tokens(serial) == tokens(fixed.generate(lively, PROMPTS, NEW, drafters=drafters)) == said


def test_a_longer_answer_moves_into_a_longer_cache(
    lively: Backbone, fixed: Fixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixed_cache, "SMALLEST", 8)
    monkeypatch.setattr(decode, "FIXED_ROOM", -NEW)
    assert tokens(fixed.generate(lively, PROMPTS[:3], NEW)) == tokens(generate(lively, PROMPTS[:3], NEW))
    assert [length for _, length in fixed.sizes] == [8, 12, 16, 24, 32]


def mechanism(backbone: Backbone) -> RecallMechanism:
    return RecallMechanism(random_bank(backbone, num_vectors=3), backbone, AutoregressiveRecall())


def test_vectors_are_fed_as_into_a_growing_cache(lively: Backbone, fixed: Fixed) -> None:
    script = {**says(lively, lively.ids.think), (1, 1): lively.ids.recall, (3, 4): lively.ids.recall}
    runs = []
    for made in (generate, fixed.generate):
        recall = mechanism(lively)
        with scripted(lively, script):
            runs.append((tokens(made(lively, PROMPTS, NEW, mechanism=recall)), recall.events))
    assert runs[0][0] == runs[1][0]
    for plain, found in zip(runs[0][1], runs[1][1], strict=True):
        assert [event.memory_index for event in plain] == [event.memory_index for event in found]
        assert [event.score for event in plain] == pytest.approx([event.score for event in found], abs=1e-5)
    assert [len(events) for events in runs[1][1]] == [0, 1, 0, 1, 0]


def test_sampling_says_the_same(lively: Backbone, fixed: Fixed) -> None:
    runs = []
    for made in (generate, fixed.generate):
        torch.manual_seed(3)
        runs.append(tokens(made(lively, PROMPTS[:4], NEW, sampling=Sampling(do_sample=True))))
    assert runs[0] == runs[1]


def test_another_thread_at_work_or_too_little_room_takes_the_growing_cache(
    lively: Backbone, fixed: Fixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tokens(generate(lively, PROMPTS, NEW))
    with fixed_cache._kept_of(lively.model).lock:
        assert tokens(fixed.generate(lively, PROMPTS, NEW)) == plain
    monkeypatch.setattr(fixed_cache, "KEPT_ON_HOST", 100)
    assert tokens(fixed.generate(lively, PROMPTS, NEW)) == plain
    assert fixed.sizes == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_the_same(family: str, fixed: Fixed, tmp_path: Path) -> None:
    """Those whose cache forgets, or whose attention takes no mask of ours, keep the growing one."""
    backbone = load_backbone(str(save_family(family, tmp_path / family)), device="cpu", dtype="float32")
    prompts = [[20 + n for n in prompt] for prompt in PROMPTS]
    said = tokens(generate(backbone, prompts, NEW))
    drafters = [quoting([], [row[:9]]) for row in said]
    assert tokens(fixed.generate(backbone, prompts, NEW, drafters=drafters)) == said
    assert bool(fixed.sizes) == (family != "gemma3_text")


def test_changed_weights_are_read_where_they_lie(lively: Backbone, fixed: Fixed) -> None:
    fixed.generate(lively, PROMPTS, NEW)
    kept = fixed_cache._kept_of(lively.model)
    assert fixed_cache._kept_of(lively.model) is kept
    weight = lively.model.model.layers[0].mlp.up_proj.weight
    weight.data = weight.data * 1.5  # elsewhere now
    assert fixed_cache._kept_of(lively.model) is not kept
    assert tokens(fixed.generate(lively, PROMPTS, NEW)) == tokens(generate(lively, PROMPTS, NEW))


def test_a_model_goes_with_what_it_keeps(pristine_lively: Backbone, fixed: Fixed) -> None:
    backbone = pristine_lively.clone()
    fixed.generate(backbone, PROMPTS, NEW)
    model = weakref.ref(backbone.model)
    del backbone
    gc.collect()
    assert model() is None
    assert not fixed_cache._kept


def test_a_step_takes_nothing_from_another_device(pristine_lively: Backbone) -> None:
    """On `meta`, a device of its own: an operation with a tensor of the CPU is an error there."""
    model = pristine_lively.clone().model
    cache = new_cache(model)
    with torch.no_grad():
        model(input_ids=torch.tensor([PROMPTS[0]]), past_key_values=cache, use_cache=True)
        layers = [(layer.keys.to("meta"), layer.values.to("meta")) for layer in cache.layers]
        model.to("meta")
        buffers = fixed_cache._Buffers(model, layers, 2, 16, None)
        _inputs, step = buffers.step(4)
        logits_RSV, hidden_RSD = step()
    assert logits_RSV.shape[:2] == (2, 4)
    assert hidden_RSD.shape == (2, 4, pristine_lively.facts.hidden_size)
    assert logits_RSV.device.type == hidden_RSD.device.type == "meta"


def test_a_card_computes_prompts_anew(lively: Backbone, fixed: Fixed) -> None:
    prefixes = Prefixes()
    with reusing(prefixes):
        found = fixed.generate(lively, PROMPTS[2:4], 4)
        assert not prefixes._kept
        assert tokens(generate(lively, PROMPTS[2:4], 4)) == tokens(found)
    assert prefixes._kept  # elsewhere they are kept


def test_a_choice_takes_nothing_from_another_device() -> None:
    """A token that is never chosen is known where the scores are: to fetch it would be to wait, at every step."""
    card = torch.device("meta")
    (suppress,) = Sampling().processors([7], card)
    assert suppress.suppress_tokens.device == card


def test_no_cache_is_fixed_for_a_model_that_forgets(
    pristine_lively: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixed_cache, "packs", lambda _model: False)
    model = pristine_lively.model
    cache = new_cache(model)
    with torch.no_grad(), last_hidden_states(model):
        model(input_ids=torch.tensor([PROMPTS[0]]), past_key_values=cache, use_cache=True)
    assert FixedModel.behind(model, cache, torch.ones(1, 3, dtype=torch.long), 10, 1) is None


@pytest.mark.parametrize(("size", "expected"), [(1, 1), (2, 4), (4, 4), (5, 16), (16, 16), (17, 64), (256, 256)])
def test_powers_of_four(size: int, expected: int) -> None:
    assert power_of_four(size) == expected
