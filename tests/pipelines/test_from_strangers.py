"""Models, runs and documents from strangers: no code, no pickle, no path out of a folder or of this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Finished

from eval.records import RecordError
from methods.backbone import Backbone, encoder_folder, load_adapter, load_encoder
from methods.base import MethodError
from pipelines.fitted_run import FittedRun
from pipelines.results import read_fit, read_saved
from pipelines.run import writer_of
from reports.base import shown_settings
from tasks.ask import PROGRESS, Progress
from tasks.base import TaskError
from tasks.documents.folder import read_folder
from tasks.handbook import read_handbook
from tasks.local import read

MARKS = "<recall> <|memory_pad|> </recall> <think> </think> <|im_end|> <unused_a>"

# models


@pytest.fixture
def adapter(tmp_path: Path, finished: Finished) -> Path:
    """That of a fit, in a folder of its own."""
    folder = tmp_path / "adapter"
    shutil.copytree(next(finished.folder.glob("fits/0/sft/adapters/*")), folder)
    return folder


def test_an_adapter_is_loaded(adapter: Path, tiny: Backbone) -> None:
    load_adapter(tiny.model, adapter)


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "adapter_model.bin")


def naming(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (pickled, "holds no adapter"),
        (lambda folder: shutil.rmtree(folder), "holds no adapter"),  # and is not looked for on the Hub
        (naming(megatron_config={"a": 1}, megatron_core="this_module_runs"), "plain LoRA"),
        (naming(peft_type="PROMPT_TUNING"), "plain LoRA"),
        (lambda folder: void((folder / "adapter_config.json").write_text("[" * 100_000)), "not whole JSON"),
    ],
)
def test_an_adapter_that_is_not_read(
    adapter: Path, tiny: Backbone, change: Callable[[Path], None], said: str
) -> None:
    change(adapter)
    with pytest.raises(MethodError, match=said):
        load_adapter(tiny.model, adapter)


def void(_result: object) -> None:
    """So that a lambda returns nothing."""


def encoder_in(folder: Path) -> Path:
    shutil.copytree(encoder_folder(), folder)
    return folder


def test_code_in_an_encoders_folder_is_not_run(tmp_path: Path) -> None:
    folder = encoder_in(tmp_path / "encoder")
    (folder / "ran.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Pooling: ...\n", encoding="utf-8")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[1]["type"] = "ran.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(MethodError, match="could not be loaded"):
        load_encoder(str(folder))
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_of_an_encoder_are_not_read(tmp_path: Path) -> None:
    folder = encoder_in(tmp_path / "encoder")
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_name("pytorch_model.bin"))
    with pytest.raises(MethodError, match=r"pickles \(pytorch_model.bin\), which are never read"):
        load_encoder(str(folder))


def test_what_a_text_spells_is_text_to_the_encoder() -> None:
    tokenizer = load_encoder().tokenizer
    special = set(tokenizer.all_special_ids)
    plain, typed = (tokenizer(text).input_ids for text in ("a b c", "a [SEP] b [MASK][CLS][PAD][UNK]"))
    assert [i for i in typed if i in special] == [i for i in plain if i in special]


# runs


@pytest.fixture
def run(tmp_path: Path, finished: Finished) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(finished.folder, tmp_path / "regs" / finished.folder.name))


def changed(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def test_settings_of_a_run_read_no_variable_of_this_machine(run: Path) -> None:
    changed(run / "config.json", model="${oc.env:HOME}")
    with pytest.raises(MethodError, match=r"holds \$\{\.\.\.\}"):
        FittedRun(run)


@pytest.mark.parametrize("name", ["../../out", "/tmp/out"])
def test_no_name_leads_out_of_a_runs_folder(run: Path, name: str) -> None:
    with pytest.raises(ValueError, match="leads out of the folder"):
        read_fit(run, 0, name)
    changed(run / "config.json", ablation=[{"name": name, "fit_of": "sft", "method": "sft", "overrides": []}])
    with pytest.raises(MethodError, match="leads out of the folder"):
        FittedRun(run)


def test_reports_and_mlflow_name_no_folder_of_this_machine(finished: Finished, run: Path) -> None:
    """A report that lies on another machine tells nothing of this one."""
    config = {"model": "/home/u/models/mine", "runs_dir": "~/runs", "task": {"path": "../docs", "name": "local"}}
    assert shown_settings(config) == {
        "model": "mine",
        "runs_dir": "runs",
        "task.path": "docs",
        "task.name": "local",
    }
    assert shown_settings({"model": "org/name", "runs_dir": "runs"}) == {"model": "org/name", "runs_dir": "runs"}
    home = str(finished.folder.parent)
    for name in ("report.html", "report.md", "summary.json", "environment.json", "task.json"):
        assert home not in (finished.folder / name).read_text(encoding="utf-8")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=finished.mlflow_uri)
    for experiment in client.search_experiments():
        for logged in client.search_runs([experiment.experiment_id]):
            said = [*logged.data.params.values(), *logged.data.tags.values()]
            assert not [value for value in said if home in value]


# documents


def test_no_link_leads_out_of_a_folder(tmp_path: Path) -> None:
    """Neither a document nor the questions."""
    (tmp_path / "secret.txt").write_text("The key is 1234.", encoding="utf-8")
    (tmp_path / "questions.csv").write_text("question,answer\nWhich key?,1234\n", encoding="utf-8")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("Level 2 costs 31 euros a day.", encoding="utf-8")
    (docs / "b.txt").symlink_to("../secret.txt")
    (docs / "c.txt").symlink_to(tmp_path / "secret.txt")
    (docs / "questions.csv").symlink_to("../questions.csv")
    folder = read_folder(docs)
    assert [document.file for document in folder.documents] == ["a.md"]
    assert folder.questions is None
    said = [str(problem) for problem in folder.skipped]
    assert [one.partition(":")[0] for one in said] == ["b.txt", "c.txt", "questions.csv"]
    assert all("leads out of the folder" in one for one in said)
    assert [d.file for d in read_folder(docs / "b.txt").documents] == ["b.txt"]  # named by its owner


def test_drafted_questions_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("", encoding="utf-8")
    (tmp_path / PROGRESS).symlink_to("mine")
    with pytest.raises(TaskError, match="is a link"):
        Progress.read(tmp_path / PROGRESS)


def test_marks_of_a_document_reach_its_clauses(tmp_path: Path) -> None:
    """Names of files, headings, paragraphs, cells, rows and questions."""
    (tmp_path / "<think>.md").write_text(f"# {MARKS}\n\nLevel 2 costs {MARKS} euros.\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text(f"title,text\n{MARKS},Level 3 costs {MARKS} crowns.\n", encoding="utf-8")
    row = {"title": MARKS, "text": f"Level 4 costs {MARKS} francs.", "id": "\ud800"}
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    asked = "question,answer,quote\nWhat beside <think> and <unused_a> has level 3?,<recall>,crowns\n"
    (tmp_path / "questions.csv").write_text(asked, encoding="utf-8")
    task = read(str(tmp_path), 8, 2).task
    assert {memory.title for memory in task.memories} == {MARKS}
    assert all(memory.text.count(MARKS) == 1 for memory in task.memories)
    assert len(task.memories) == 3
    assert [qa.answer for qa in task.questions if "<think> and <unused_a>" in qa.question] == ["<recall>"]
    assert any("<think>.md" in memory.id for memory in task.memories)
    for memory in task.memories:
        memory.id.encode()


def test_half_a_character_in_a_handbook_is_named(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('{"name": "h", "licence": "l", "source": "s"}', encoding="utf-8")
    for line, said in (('{"id": "\\ud800"}', "half of a character"), ("[" * 100_000, "broken JSON")):
        (tmp_path / "clauses.jsonl").write_text(line, encoding="utf-8")
        with pytest.raises(TaskError, match=rf"clauses\.jsonl:1: .*{said}"):
            read_handbook(tmp_path, 8, 2)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("run.json", {"wall_s": None}),
        ("run.json", {"left_out": [1]}),
        ("config.json", {"seeds": "2"}),
        ("config.json", {"seeds": 10**12}),
        ("config.json", {"run_methods": None}),
        ("task.json", {"memories": 3}),
        ("task.json", {"fraction": "all"}),
        ("fits/0/sft/fit.json", {"seconds": "long"}),
        ("fits/0/sft/fit.json", {"curves": [1]}),
    ],
)
def test_a_field_of_a_run_that_holds_something_else_is_named(run: Path, name: str, fields: dict[str, Any]) -> None:
    changed(run / name, **fields)
    with pytest.raises(RecordError, match=rf"{name}: .*{next(iter(fields))}"):
        read_saved(run)


@pytest.mark.parametrize("fields", [{"pid": -1}, {"pid": 10**30}, {"pid": 1, "pid_started": "today"}])
def test_no_process_holds_a_run_whose_state_was_edited(fields: dict[str, Any]) -> None:
    assert writer_of({"status": "running", **fields}) in (None, 1)


@pytest.mark.parametrize("name", ["config.json", "records.jsonl"])
def test_a_run_that_is_nested_too_deeply_is_named(run: Path, name: str) -> None:
    (run / name).write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(RecordError, match=rf"{name}.*not a? ?whole JSON"):
        read_saved(run)
