"""Inside recall, and the notebooks' curves: figures by hand, from planted vectors and records."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from report_fixtures import METHODS, make_comparison, make_summary, make_turn, make_turns

from eval.records import RecordWriter
from methods.base import Lookup
from methods.recall.bank import MemoryBank
from reports import curves, inside, saved
from reports.base import Comparison, ReportError
from reports.figures import svg


def test_cosines_of_pairs_within_and_between_families() -> None:
    vectors = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    within, between = inside.pair_cosines(vectors, ["a", "a", "b"])
    assert within == pytest.approx([0.6])
    assert sorted(between) == pytest.approx([0.0, 0.8])


def test_principal_axes_of_points_on_a_line() -> None:
    line = np.outer([-3.0, -1.0, 1.0, 3.0], [0.6, 0.8, 0.0]) + 5.0
    places, shares = inside.principal_axes(line)
    assert shares == pytest.approx([1.0, 0.0], abs=1e-12)
    assert np.abs(places[:, 0]) == pytest.approx([3.0, 1.0, 1.0, 3.0])
    assert places[:, 1] == pytest.approx(np.zeros(4), abs=1e-9)


def test_distances_on_all_axes_are_those_of_the_vectors() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    places, shares = inside.principal_axes(vectors, 4)
    assert shares.sum() == pytest.approx(1.0) and (np.diff(shares) <= 0).all()
    for i in range(6):
        for j in range(6):
            assert np.linalg.norm(places[i] - places[j]) == pytest.approx(np.linalg.norm(vectors[i] - vectors[j]))


@pytest.mark.parametrize("num_memories", [1, 2])
def test_a_bank_of_one_or_two_can_be_drawn(num_memories: int) -> None:
    places, shares = inside.principal_axes(np.ones((num_memories, 3)))
    assert places.shape == (num_memories, 2) and (places == 0).all() and (shares == 0).all()
    assert "<svg" in svg(inside.map_figure(places, shares, ["$a"] * num_memories))


def test_a_saved_bank_is_read_as_it_was(tmp_path: Path) -> None:
    bank = MemoryBank(torch.zeros(3), 2.5, "f")
    bank.write(["a", "b"], ["A.", "B."], torch.randn(2, 3), list(torch.eye(3)[1:, None]))
    bank.save(tmp_path / "fits" / "bank")
    read = inside.read_bank(tmp_path / "fits")
    assert (read.ids, read.texts, read.gain) == (("a", "b"), ("A.", "B."), 2.5)
    assert read.keys_MD.tolist() == bank.keys_MD.tolist()
    assert read.fed_MF.tolist() == torch.cat(bank.fed).tolist()
    with pytest.raises(ReportError, match="no memory bank"):
        inside.read_bank(tmp_path)


def test_a_bank_of_another_version_is_refused(tmp_path: Path) -> None:
    bank = MemoryBank(torch.zeros(3), 2.5, "f")
    bank.write(["a"], ["A."], torch.ones(1, 3), [torch.ones(1, 3)])
    bank.save(tmp_path / "bank")
    body = json.loads((tmp_path / "bank" / "bank.json").read_text(encoding="utf-8"))
    del body["num_vectors"]
    (tmp_path / "bank" / "bank.json").write_text(json.dumps(body), encoding="utf-8")
    with pytest.raises(ReportError, match="another version"):
        inside.read_bank(tmp_path)


def test_all_that_is_fed_for_a_memory_is_read(tmp_path: Path) -> None:
    """Several vectors a memory, one after another; of a memory with more of them as many as the others have."""
    bank = MemoryBank(torch.zeros(3), 2.5, "f")
    fed = [torch.randn(2, 3), torch.randn(4, 3), torch.randn(2, 3)]
    bank.write(["a", "b", "c"], ["A.", "B.", "C."], torch.randn(3, 3), fed)
    bank.save(tmp_path / "bank")
    expected = torch.stack([fed_PD[:2].flatten() for fed_PD in fed])
    np.testing.assert_allclose(inside.read_bank(tmp_path).fed_MF, expected.numpy(), rtol=1e-6)


def test_a_bank_whose_texts_are_fed_has_no_vectors(tmp_path: Path) -> None:
    bank = MemoryBank(torch.zeros(3), 2.5, "f")
    bank.write(["a", "b"], ["A.", "B."], torch.eye(3)[1:], [torch.empty(0, 3)] * 2)
    bank.save(tmp_path / "bank")
    assert inside.read_bank(tmp_path).fed_MF.shape == (2, 0)


def test_each_recall_is_a_row_with_its_lead() -> None:
    right, wrong = make_turn("recall", "d0", 0, "40 euros"), make_turn("recall", "d0", 1, "35 euros")
    chosen = ("per-diem-lisbon", "per-diem-porto")
    ranked = ((("per-diem-lisbon", 0.9), ("per-diem-porto", 0.7), ("", 0.1)), (("per-diem-porto", 0.8),))
    turns = [
        dataclasses.replace(
            turn,
            answer=dataclasses.replace(
                turn.answer, lookups=(Lookup(memory_id, candidates[0][1], turn.memory_text, candidates),)
            ),
        )
        for turn, memory_id, candidates in zip((right, wrong), chosen, ranked, strict=True)
    ]
    frame = inside.recalls([*turns, make_turn("recall", "d0", 2, "x", looked_up=())])
    assert len(frame) == 2
    assert frame["right clause"].tolist() == [True, False] == frame["right answer"].tolist()
    assert frame["margin"][0] == pytest.approx(0.2) and frame["next"][0] == "per-diem-porto"
    assert frame["margin"].isna()[1] and frame["next"][1] == ""
    assert frame["word for word"].all()
    counts = inside.mistaken(frame, {"per-diem-lisbon": "per-diem", "per-diem-porto": "per-diem"})
    assert counts.to_dict() == {"a near-miss clause (same family)": 1}
    figure = inside.scores_figure(frame)
    assert figure is not None and "right clause (n=1)" in svg(figure)


def test_unanswerable_and_ordinary_turns_have_no_right_clause() -> None:
    turns = [
        make_turn("recall", "d0", 0, "Not covered.", kind="unanswerable", looked_up=("",)),
        make_turn("recall", "d0", 1, "Hello.", kind="ordinary"),
    ]
    frame = inside.recalls(turns)
    assert frame["gold"].tolist() == [inside.NO_CLAUSE, ""]
    assert frame["recalled"].tolist() == [inside.NO_CLAUSE, "per-diem-lisbon"]
    assert inside.scores_figure(frame) is None and inside.mistaken(frame, {}).empty


def test_the_recall_methods_of_a_run_are_named() -> None:
    turns = make_turns()
    assert inside.recall_methods(turns) == ["recall"]
    with pytest.raises(ReportError, match="no recall method among sft, rag"):
        inside.recall_methods([turn for turn in turns if turn.method != "recall"])


# ---------------------------------------------------------------------------------------- curves


def test_each_seed_has_its_row() -> None:
    turns = [
        dataclasses.replace(make_turn("rag", f"d{n}", 0, final), seed=seed)
        for seed, finals in ((0, ("40 euros", "35 euros")), (1, ("40 euros",)))
        for n, final in enumerate(finals)
    ]
    frame = curves.by_seed(turns)
    assert frame.loc[("rag", 0), "cued"] == 0.5 and frame.loc[("rag", 0), "n cued"] == 2
    assert frame.loc[("rag", 1), "cued"] == 1.0 and frame.loc[("rag", 1), "n uncued"] == 0
    figure = curves.seeds_by_turn(turns)
    assert figure is not None and "rag (2 seeds, n=3 turns)" in svg(figure)
    assert curves.seeds_by_turn([]) is None


def test_runs_stand_side_by_side() -> None:
    summaries = {"one": make_summary(("recall",)), "two": make_summary(METHODS)}
    frame = curves.across_runs(summaries, ["retention/accuracy", "ability/after"])
    assert len(frame) == 4
    assert frame.loc[("two", "rag"), "retention/accuracy"] == "0.84 [0.78, 0.88]"
    assert frame.loc[("one", "recall"), "ability/after"] == "—"
    figure = curves.runs_figure(summaries, "retention/accuracy", "right")
    assert figure is not None and "two" in svg(figure)
    assert curves.runs_figure(summaries, "ability/after", "ability") is None


def test_every_timed_answer_is_a_point(comparison: Comparison) -> None:
    assert len(curves.timed_answers(comparison.costs)) == len(comparison.costs)
    figure = curves.seconds_by_tokens(comparison.costs)
    assert figure is not None and "recall (n=4)" in svg(figure)
    assert curves.seconds_by_tokens([]) is None


# ----------------------------------------------------------------------------------------- saved


def kept(folder: Path) -> Comparison:
    comparison = make_comparison(folder)
    (comparison.run_dir / "summary.json").write_text(json.dumps(comparison.summary), encoding="utf-8")
    writer = RecordWriter(comparison.run_dir / "records.jsonl")
    writer.write([*comparison.turns, *comparison.costs])
    writer.close()
    return comparison


def test_a_run_is_read_as_it_was(tmp_path: Path) -> None:
    comparison = kept(tmp_path)
    read = saved.read_run(comparison.run_dir)
    assert read.summary == comparison.summary
    assert list(read.turns) == list(comparison.turns) and list(read.costs) == list(comparison.costs)
    assert saved.families(read) == {}


def test_neighbours_are_the_runs_on_the_same_task(tmp_path: Path) -> None:
    run = saved.read_run(kept(tmp_path).run_dir)
    for name, task in (("a", "regs"), ("b", "manual")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps({"task": task, "methods": {}}), encoding="utf-8")
    assert list(saved.neighbours(run, tmp_path)) == [run.run_dir.name, "a"]


def test_a_run_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    comparison = kept(tmp_path)
    with pytest.raises(ReportError, match=r"no such run; there are: .*ab12"):
        saved.read_run(comparison.run_dir.with_name("nothing"))
    (comparison.run_dir / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ReportError, match=r"config\.json: not valid JSON"):
        saved.read_run(comparison.run_dir)
