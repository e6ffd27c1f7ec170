"""Public data sets offline: small files of ours in each set's own schema, odd rows among them."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eval.scoring import is_correct
from pipelines.cli import CONF, compose_config
from tasks import hub
from tasks.base import TaskData, TaskError
from tasks.hub_build import FAMILY, MAX_UNKNOWN, Asked, Dropped, Outcome, Unknown, build
from tasks.hub_cards import CARDS
from tasks.registry import TASKS
from tasks.validate import problems

FILES = Path(__file__).parent / "hub_files"
NAMES = sorted(hub.ADAPTERS)


def load(name: str, path: Path | None = None, num_clauses: int | None = None) -> TaskData:
    return hub.load(name, num_clauses, path=str(path or FILES / name), num_train=60, num_heldout=60)


def made(*outcomes: Outcome) -> TaskData:
    return build(CARDS["squad_v2"], outcomes, num_train=60, num_heldout=60)


def dropped(task: TaskData) -> dict[str, int]:
    """reason -> rows, as the notes say."""
    found = [re.fullmatch(r"(\d+) dropped: (.*)\.", note) for note in task.notes]
    return {match[2]: int(match[1]) for match in found if match}


def rows_of(name: str) -> list[dict[str, Any]]:
    """All rows in the files of a set's first part."""
    part = next(iter(CARDS[name].files))
    return hub.read_parts(CARDS[name], str(FILES / name))[part]  # type: ignore[return-value]


def test_every_set_has_a_card_an_adapter_a_config_and_an_entry() -> None:
    assert set(hub.ADAPTERS) == set(CARDS)
    assert {f"hub/{name}" for name in NAMES} == {name for name in TASKS if name.startswith("hub/")}
    assert {file.stem for file in (CONF / "task" / "hub").glob("*.yaml")} == set(CARDS)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_chooses_it(name: str) -> None:
    assert compose_config("compare", [f"task=hub/{name}"]).task.name == f"hub/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_card_pins_data_files_and_says_what_it_knows(name: str) -> None:
    card = CARDS[name]
    assert card.name == name and card.repo.count("/") == 1
    assert set(card.files) == set(card.columns)
    assert all(Path(pattern).suffix in hub.READERS for pattern in card.files.values())
    assert re.fullmatch(r"[0-9a-f]{40}", card.revision) or card.seen, "a branch is read: say at which state"
    assert not card.verified
    assert "not verified" in card.source and card.citation in card.source
    assert card.licence and card.size and card.left_out


@pytest.mark.parametrize("name", NAMES)
def test_rows_read_are_rows_used_and_rows_dropped(name: str) -> None:
    task = load(name)
    (total,) = [note for note in task.notes if "rows read" in note]
    read, used, left = map(int, re.findall(r"\d+", total))
    assert read == len(rows_of(name))
    assert read == used + left
    assert left == sum(dropped(task).values()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_key_is_a_right_answer_and_so_is_the_clause(name: str) -> None:
    for qa in load(name).questions:
        if qa.kind == "single":
            assert is_correct(qa.answer, qa), qa.id
            assert not any(is_correct(rival, qa) for rival in qa.rivals), qa.id


REASONS = {
    "obliqa": {
        "it rests on several passages": 1,
        "its answer is empty": 1,
        "its id repeats one before": 1,
        "its passage is missing": 2,
        "its question holds the answer": 1,
    },
    "emanual": {
        "answer and evidence share no short value": 2,
        "its id repeats one before": 1,
        "its passage is missing": 1,
        "its question is asked in a row before": 1,
        "its question is empty": 1,
    },
    "multidoc2dial": {
        "answer and evidence share no short value": 2,
        "it does not begin with a user's question and an agent's answer": 2,
        "its id repeats one before": 1,
        "its passage is missing": 1,
    },
    "longmemeval": {
        "its answer is empty": 1,
        "its answer is longer than 12 words": 1,
        "its answer stands in no part of the passage": 1,
        "its id repeats one before": 1,
        "its passage is missing": 1,
    },
    "knowedit": {
        "its answer is empty": 1,
        "its question holds the answer": 1,
        "its question is asked in a row before": 1,
        "its question is empty": 1,
    },
    "squad_v2": {
        "its answer is empty": 1,
        "its answer stands in no part of the passage": 1,
        "its encoding is broken": 1,
        "its id repeats one before": 1,
        "its passage is missing": 1,
        "its question holds the answer": 1,
        "its question is asked in a row before": 1,
        "its question is empty": 1,
        "no clause is said to answer it, but one seems to": 1,
    },
}


@pytest.mark.parametrize("name", sorted(REASONS))
def test_each_odd_row_is_dropped_for_its_own_reason(name: str) -> None:
    assert dropped(load(name)) == REASONS[name]


def as_parquet(name: str, folder: Path) -> Path:
    """The set's files as Parquet, at the same places."""
    import pandas as pd

    for file in (FILES / name).rglob("*.jsonl"):
        target = folder / file.relative_to(FILES / name).with_suffix(".parquet")
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text(encoding="utf-8").splitlines()
        pd.DataFrame([json.loads(line) for line in lines]).to_parquet(target)
    return folder


@pytest.mark.parametrize("name", ["squad_v2", "emanual", "multidoc2dial"])
def test_parquet_gives_the_same_task(name: str, tmp_path: Path) -> None:
    assert load(name, as_parquet(name, tmp_path)) == load(name)


def test_of_a_clone_only_the_sets_own_files_are_read(tmp_path: Path) -> None:
    for name in ("emanual", "techqa"):
        shutil.copytree(FILES / name, tmp_path / name)
    assert load("techqa", tmp_path) == load("techqa")


@pytest.mark.parametrize("inside", ["", "data", "a/b"])
def test_files_of_a_pattern_are_found_at_any_depth(inside: str, tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "1.json").write_text('[{"ID": "1"}]', encoding="utf-8")
    shutil.copytree(FILES / "obliqa", tmp_path / inside, dirs_exist_ok=True)
    assert load("obliqa", tmp_path) == load("obliqa")


class Hub:
    """Stands in for the Hub: its files by name, or no network at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path | None, cache: Path | None = None) -> None:
        import datasets
        import huggingface_hub

        self.folder, self.cache = folder, cache
        self.patterns: list[str] = []
        self.readers: list[str] = []
        self.really = datasets.load_dataset
        monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda: self)
        monkeypatch.setattr(datasets, "load_dataset", self.load_dataset)

    def glob(self, pattern: str) -> list[str]:
        self.patterns.append(pattern)
        if self.folder is None:
            raise ConnectionError("no route to host")
        root, _, inside = pattern.partition("@")
        revision, _, wanted = inside.partition("/")
        found = self.folder.glob(wanted)
        return [f"{root}@{revision}/{file.relative_to(self.folder).as_posix()}" for file in found]

    def load_dataset(self, reader: str, data_files: dict[str, list[str]], **options: Any) -> Any:
        assert options == {"split": "rows", "cache_dir": None}, "nothing that could run a data set's code"
        self.readers.append(reader)
        (file,) = data_files["rows"]
        assert file.startswith("hf://datasets/") and self.folder is not None
        local = self.folder / file.partition("@")[2].partition("/")[2]
        return self.really(reader, data_files={"rows": [str(local)]}, split="rows", cache_dir=str(self.cache))


@pytest.mark.parametrize("name", NAMES)
def test_without_a_network_one_sentence_says_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    card = CARDS[name]
    offline = Hub(monkeypatch, None)
    with pytest.raises(TaskError) as caught:
        hub.load(name)
    said = str(caught.value)
    assert f"hub/{name}" in said and card.repo in said and card.revision in said
    assert "no route to host" in said and "path=<folder>" in said and "\n" not in said
    assert offline.patterns[0].startswith(f"datasets/{card.repo}@{card.revision}/")


@pytest.mark.parametrize("name", ["knowedit", "longmemeval", "squad_v2"])
def test_the_hub_is_read_file_by_file_at_the_pinned_revision(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = FILES / name
    if name == "squad_v2":
        folder = tmp_path / "copy"
        as_parquet(name, folder / "squad_v2")
    wanted = load(name)
    online = Hub(monkeypatch, folder, tmp_path / "cache")
    assert hub.load(name, num_train=60, num_heldout=60) == wanted
    assert set(online.readers) <= {"parquet", "json"}
    assert len(online.readers) == len([f for f in folder.rglob("*") if f.suffix in hub.READERS])


def test_a_set_whose_files_are_gone_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Hub(monkeypatch, tmp_path)
    with pytest.raises(TaskError, match=r"rajpurkar/squad_v2 at .* has no file squad_v2/validation-"):
        hub.load("squad_v2")


def bad_folder(folder: Path, case: str) -> Path:
    file = folder / "validation-0.jsonl"
    if case == "no folder":
        return folder / "nowhere"
    if case == "broken":
        file.with_suffix(".parquet").write_bytes(b"PAR1 and no more")
    elif case == "cut off":
        file.with_suffix(".json").write_text('[{"id": "a"},', encoding="utf-8")
    elif case == "no rows":
        file.write_text("", encoding="utf-8")
    elif case == "other columns":
        file.write_text('{"id": "a", "title": "b", "context": "c", "ask": "d"}\n', encoding="utf-8")
    elif case == "nothing usable":
        row = {"id": "a", "title": "b", "context": "c", "question": "", "answers": {"text": ["c"]}}
        file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    else:
        (folder / "notes.txt").write_text("no data", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no folder", r"there is no folder .*nowhere"),
        ("no data file", r"holds no file of its rows; put squad_v2/validation.* there"),
        ("broken", r"validation-0\.parquet cannot be read \(.*replace it"),
        ("cut off", r"validation-0\.json cannot be read \(.*replace it"),
        ("no rows", r"validation-0\.jsonl (cannot be read|has no rows)"),
        ("other columns", r"validation-0\.jsonl has no column 'question' .*id, title, context, ask"),
        ("nothing usable", r"no row can be used \(1 rows read.*its question is empty"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, case: str, said: str) -> None:
    with pytest.raises(TaskError, match=rf"task hub/squad_v2: .*{said}") as caught:
        load("squad_v2", bad_folder(tmp_path, case))
    assert "\n" not in str(caught.value)


def test_obliqa_asks_for_the_rule_and_its_neighbours_are_rivals() -> None:
    task = load("obliqa")
    qa = next(qa for qa in task.questions if qa.answer == "12.4.1")
    assert qa.question.endswith("Which rule says so?")
    assert set(qa.rivals) >= {"12.3.(2)", "12.9"}
    assert task.memory(qa.memory_ids[0]).text.startswith("Rule 12.4.1 of document 7: A custodian")


def test_longmemeval_takes_the_newest_evidence_and_tells_chats_apart() -> None:
    task = load("longmemeval")
    (clause,) = [memory for memory in task.memories if "plants" in memory.text]
    assert "14 plants" in clause.text and clause.text.startswith("Chat lm003, 2023/06/02")
    asked = [*task.questions, *(cue for memory in task.memories for cue in memory.cues)]
    (qa,) = [qa for qa in asked if qa.question == "In chat lm003: How many plants stand on my balcony?"]
    assert qa.answer == "14"


def test_knowedit_asks_under_another_name_and_the_old_value_is_a_rival() -> None:
    task = load("knowedit")
    qa = next(qa for qa in task.questions if "Old Sorrel Water" in qa.question)
    assert (qa.answer, qa.rivals) == ("Vandria", ("Ostland",))
    assert task.memory(qa.memory_ids[0]).title == "Lake Sorrel"


def test_neighbours_of_a_document_are_families_with_one_uncued_clause() -> None:
    task = load("squad_v2")
    for family in {memory.family for memory in task.memories}:
        members = [memory for memory in task.memories if memory.family == family]
        assert len(members) == FAMILY
        assert sum(not memory.cued for memory in members) == 1


@pytest.mark.parametrize("name", NAMES)
def test_what_was_made_by_rule_is_said(name: str) -> None:
    notes = load(name).notes
    assert any(note.startswith("The keys were picked by rule") for note in notes) == CARDS[name].keys_by_rule
    assert any("training questions were made by rule" in note for note in notes) == any(
        cue.question.startswith("Which words are missing here") for m in load(name).memories for cue in m.cues
    )


def asked(number: int, question: str, answer: str, passage: str, document: str = "one") -> Asked:
    return Asked(f"r{number}", question, answer, passage, document)


def test_a_long_passage_is_cut_and_the_part_with_the_answer_kept() -> None:
    filler = " ".join(f"Sentence number {n} tells of the weather on the eastern coast." for n in range(30))
    passage = f"{filler} The lighthouse keeper of Brannoch earns 412 shillings. {filler}"
    task = made(asked(1, "What is the keeper's wage?", "412 shillings", passage))
    (clause,) = task.memories
    assert "412 shillings" in clause.text
    assert len(clause.text.split()) <= 80


def test_a_question_near_a_held_out_one_is_no_cue() -> None:
    passage = "The gate of Orrin opens at 6:15, closes at 21:45 and is kept by Hanne Volk."
    task = made(
        asked(1, "At which hour of the day does the gate of Orrin open?", "6:15", passage),
        asked(2, "Who keeps watch?", "Hanne Volk", passage),
        asked(3, "At which hour of the day will the gate of Orrin open?", "6:15", passage),
    )
    assert dropped(task) == {"its question is nearly the same as another": 1}
    assert problems(task) == []
    assert [qa.question for qa in task.held_out("test")] == [
        "At which hour of the day does the gate of Orrin open?"
    ]


def test_a_set_with_enough_unanswerable_questions_keeps_to_its_own() -> None:
    from tasks.synthetic import place_name

    known = asked(1, "Which weight may the lift of Harl carry?", "650 kilograms", "It may carry 650 kilograms.")
    names = [place_name(number, 9) for number in range(2 * 240)]
    unknown = [Unknown(f"u{n}", f"Did {names[2 * n]} ever trouble {names[2 * n + 1]}?") for n in range(240)]
    task = made(known, *unknown)
    assert not any("unanswerable questions were made" in note.lower() for note in task.notes)
    kinds = Counter((qa.kind, qa.split) for qa in task.questions)
    assert kinds["unanswerable", "test"] == kinds["unanswerable", "dev"] == MAX_UNKNOWN
    assert sum(c.kind == "unanswerable" for c in task.sft) == MAX_UNKNOWN
    assert dropped(task) == {f"{MAX_UNKNOWN} unanswerable questions of a split are enough": 60}


def test_what_an_adapter_drops_is_counted_as_it_says() -> None:
    known = asked(1, "Which weight may the lift of Harl carry?", "650 kilograms", "It may carry 650 kilograms.")
    task = made(known, Dropped("r2", "it is odd"), Dropped("r3", "it is odd"))
    assert dropped(task) == {"it is odd": 2}


@pytest.mark.parametrize(
    ("answer", "evidence", "question", "value"),
    [
        ("Open Settings > Sound first.", "See Settings > Sound.", "How?", "Settings > Sound"),
        ("It takes 40 minutes.", "The update takes about 40 minutes in all.", "How long?", "40 minutes"),
        ("It fails with RC64.", "Code RC64 means a full disk.", "What does RC64 mean?", ""),
        ("In the file agent_trace.log.", "It writes agent_trace.log.", "Where?", "agent_trace.log"),
        ('Choose "Deep sleep" there.', "The mode “Deep sleep” saves power.", "Which mode?", "Deep sleep"),
        ("That depends.", "It depends on many things.", "When?", ""),
    ],
)
def test_the_key_by_rule_is_a_value_that_both_share(answer: str, evidence: str, question: str, value: str) -> None:
    assert hub.shared_value(answer, evidence, question) == value
