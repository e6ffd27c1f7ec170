"""The chat in a terminal, driven line by line on a finished run; and what is wrong costs one sentence."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from commands import METHODS, Finished, said_by_every_method

from methods.backbone import Backbone
from methods.base import MethodError, WriteReport
from methods.recall.method import RecallMethod
from pipelines import chat
from pipelines.ablation_rows import ALL
from pipelines.fitted_run import Conversation, FittedRun

ROOT = Path(__file__).resolve().parents[2]
SKATES = "Skates are returned to desk eleven by noon."


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch, pristine_lively: Backbone) -> None:
    said_by_every_method(monkeypatch, pristine_lively)


@pytest.fixture
def fitted(finished: Finished) -> FittedRun:
    return FittedRun(finished.folder)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A run that a test may change."""
    return Path(shutil.copytree(finished.folder, tmp_path / "runs" / "regs" / finished.folder.name))


class Watched(io.StringIO):
    """A terminal, as far as output goes."""

    def isatty(self) -> bool:
        return True


def talk(fitted: FittedRun, *lines: str, name: str = "recall", output: io.StringIO | None = None) -> str:
    """What a person sees who types the lines and then leaves."""
    output = output or io.StringIO()
    left = list(lines)

    def read(_prompt: str) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    chat.Terminal(Conversation(fitted, name), output, read).loop()
    assert not left or "/quit" in lines
    return output.getvalue()


def command(patch: pytest.MonkeyPatch, *words: str, typed: str = "") -> None:
    patch.setattr(sys, "argv", ["chat", *words])
    patch.setattr(sys, "stdin", io.StringIO(typed))
    chat.main()


# answers


def test_the_command_answers_what_is_piped_in(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "method=recall", f"run={finished.folder}", typed="How much is it?\n/quit\nnever read\n")
    seen = capsys.readouterr()
    assert "recall> How much is it?\n<think><recall><|memory_pad|>R</recall></think>42\n  recalled " in seen.out
    assert "+ 9 new tokens, first token " in seen.out
    assert "\x1b" not in seen.out
    assert "never read" not in seen.out
    assert seen.err == ""


@pytest.mark.parametrize("word", ["latest", "{id}", "regs/{id}", "{folder}"])
def test_a_run_is_found_by_its_name(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    folder = finished.folder
    run = word.format(id=folder.name, folder=folder)
    command(monkeypatch, f"run={run}", f"runs_dir={folder.parent.parent}", "method=sft")
    assert f"sft of {folder.parent.parent}" in capsys.readouterr().out


def test_below_an_answer_stands_what_was_looked_up(fitted: FittedRun) -> None:
    conversation = Conversation(fitted, "recall")
    answer = conversation.ask("How much?", lambda _text: None)
    (lookup,) = answer.lookups
    others = chat.alternatives(answer, lookup)
    assert [i for i, _ in others] == [i for i, _ in lookup.candidates if i != lookup.memory_id]
    shown = talk(fitted, "How much?")
    best = ", ".join(f"{chat.name_of(i)} {score:.2f}" for i, score in others[:3])
    assert f"  recalled {chat.name_of(lookup.memory_id)} {lookup.score:.2f}; next: {best}\n" in shown
    assert talk(fitted, "How much?", name="rag").count("\n  retrieved ") == 3
    assert "recalled" not in talk(fitted, "How much?", name="sft")


def test_why_shows_every_candidate_and_the_clauses(fitted: FittedRun) -> None:
    conversation = Conversation(fitted, "recall")
    (lookup,) = conversation.ask("How much?", lambda _text: None).lookups
    shown = talk(fitted, "/why", "How much?", "/why")
    assert "no question has been answered yet" in shown
    for rank, (memory_id, score) in enumerate(lookup.candidates, start=1):
        assert f"{rank:>4}. {score:6.3f}  {chat.name_of(memory_id)}" in shown
    shown = talk(fitted, "How much?", "/why", name="rag")
    for lookup in Conversation(fitted, "rag").ask("How much?", lambda _text: None).lookups:
        assert f"  clause:  {lookup.text}" in shown
    assert shown.count("candidates:") == 1  # one retrieval found them all
    assert "it read" not in shown
    assert "sft looked nothing up" in talk(fitted, "How much?", "/why", name="sft")


def test_on_a_terminal_the_think_is_dim(fitted: FittedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = talk(fitted, "How much?", output=Watched())
    assert "\x1b[2m<think>" in shown
    assert "\x1b[2m</think>\x1b[0m42" in shown.replace("\x1b[0m\x1b[0m", "\x1b[0m")


def test_what_a_model_says_cannot_drive_the_terminal() -> None:
    shown = chat._printable("a\x1b[31m\r\x85\u202eb \n c\t[bold]")
    assert shown == "a⟨U+001B⟩[31m  ⟨U+202E⟩b \n c [bold]"


# the conversation


def test_the_history_holds_final_answers_and_goes_with_a_switch(fitted: FittedRun) -> None:
    conversation = Conversation(fitted, "recall")
    first = conversation.ask("How much?", lambda _text: None)
    assert [(m.role, m.content) for m in conversation.history] == [("user", "How much?"), ("assistant", "42")]
    second = conversation.ask("How much?", lambda _text: None)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    assert conversation.switch("sft") == ""
    third = conversation.ask("How much?", lambda _text: None)
    assert len(conversation.history) == 6
    conversation.clear()
    assert conversation.history == []
    assert conversation.last is None
    again = conversation.ask("How much?", lambda _text: None)
    assert again.usage.prompt_tokens == first.usage.prompt_tokens < third.usage.prompt_tokens


def test_ctrl_c_stops_the_answer_and_not_the_program(fitted: FittedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    printable, calls = chat._printable, 0

    def pressed(piece: str) -> str:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return printable(piece)

    monkeypatch.setattr(chat, "_printable", pressed)
    shown = talk(fitted, "First?", "Second?", "/why")
    assert "recall> First?\n<think><recall>\n(stopped; Ctrl-D leaves)\n" in shown
    assert "recall> Second?\n<think><recall><|memory_pad|>R</recall></think>42\n" in shown
    alone = talk(fitted, "Second?")
    tokens = [line for line in shown.splitlines() if "prompt +" in line]
    assert [line.split(",")[0] for line in tokens] == [
        line.split(",")[0] for line in alone.splitlines() if "prompt +" in line
    ]  # of the stopped question nothing is left in the prompt


def test_a_written_clause_is_found_until_it_is_forgotten(fitted: FittedRun) -> None:
    ask = "Skates are returned to which desk by noon?"
    shown = talk(
        fitted, f"/write Skates, Oulu: {SKATES}", ask, "/why", "/forget skates-oulu", ask, "/why", name="rag"
    )
    before, after = shown.split("forgot skates-oulu")
    assert "wrote skates-oulu in " in before
    assert (
        f"retrieved skates-oulu, score 0.{before.split('skates-oulu, score 0.')[1][:3]}\n  clause:  {SKATES}"
        in before
    )
    assert "skates-oulu" not in after.replace(ask, "")


def test_recall_finds_what_was_written_among_its_candidates(fitted: FittedRun) -> None:
    conversation = Conversation(fitted, "recall")
    conversation.write("Skates", SKATES)
    (lookup,) = conversation.ask("Skates?", lambda _text: None).lookups
    assert "skates" in [i for i, _ in lookup.candidates]
    conversation.forget("skates")
    (lookup,) = conversation.ask("Skates?", lambda _text: None).lookups
    assert "skates" not in [i for i, _ in lookup.candidates]


@pytest.mark.parametrize(
    ("exact", "inexact", "told"),
    [
        (("skates",), (), "in 2.00 s, 70 tokens of training; its text comes back word for word"),
        ((), ("skates",), "; its text does not come back word for word: write it in shorter clauses"),
        ((), (), "in 2.00 s, 70 tokens of training"),
    ],
)
def test_a_write_says_whether_the_text_comes_back(
    fitted: FittedRun,
    monkeypatch: pytest.MonkeyPatch,
    exact: tuple[str, ...],
    inexact: tuple[str, ...],
    told: str,
) -> None:
    conversation = Conversation(fitted, "rag")
    report = WriteReport(2.0, 1, 70, 100, exact, inexact)
    monkeypatch.setattr(conversation.method, "write", lambda _memories: report)
    assert conversation.write("Skates", SKATES).endswith(told)


def test_a_title_or_an_id_replaces_its_clause(fitted: FittedRun) -> None:
    known = fitted.task.memories[0]
    conversation = Conversation(fitted, "rag")
    assert conversation.write(known.id, SKATES).startswith(f"replaced {known.id} ")
    assert conversation.write("Skates", "One.").startswith("wrote skates ")
    assert conversation.write("sKATES", "Two.").startswith("replaced skates ")
    assert conversation.write("Skates!", "Three.").startswith("wrote skates-2 ")
    assert conversation.clauses[known.id].text == SKATES
    assert len(conversation.clauses) == len(fitted.task.memories) + len(fitted.task.rest) + 2


def test_changes_go_along_where_a_method_can_learn_them(fitted: FittedRun) -> None:
    ask = "Skates are returned to which desk by noon?"
    shown = talk(fitted, f"/write Skates: {SKATES}", "/method sft", "/method rag", ask)
    assert "sft keeps its knowledge in weights: it does not know this chat's changes (1)" in shown
    assert "retrieved skates 0." in shown


def test_sft_cannot_be_written_to(fitted: FittedRun) -> None:
    conversation = Conversation(fitted, "sft")
    shown = talk(fitted, f"/write Skates: {SKATES}", "How much?", name="sft")
    assert "sft: knowledge in weights cannot be written without training" in shown
    assert "42" in shown  # and goes on
    with pytest.raises(MethodError):
        conversation.write("Skates", SKATES)
    assert "skates" not in conversation.clauses
    assert conversation.switch("rag") == ""


def test_a_question_over_the_window_is_refused(fitted: FittedRun) -> None:
    shown = talk(fitted, "x" * 3000, "How much?")
    assert "the question has 3000 tokens, and 1974 fit the model's window; ask in fewer" in shown
    assert "42" in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/bogus", ("/bogus: no such command", "/write", "/quit")),
        ("/write no colon", ("/write <title>: <text>",)),
        ("/write : text", ("/write <title>: <text>",)),
        ("/forget", ("/forget <id>",)),
        ("/forget nope", ("'nope'", "the nearest are: ")),
        ("/method nope", ("method=nope", *METHODS)),
        ("/method", ("method=", *METHODS)),
    ],
)
def test_a_wrong_command_is_one_sentence(fitted: FittedRun, line: str, said: tuple[str, ...]) -> None:
    shown = talk(fitted, line, "How much?")
    (sentence,) = [row for row in shown.split(line, 1)[1].split("recall> How much?")[0].splitlines() if row]
    assert all(part in sentence for part in said)
    assert "42" in shown


def test_help_names_every_command(fitted: FittedRun) -> None:
    shown = talk(fitted, "/help", "/clear", "", "/quit")
    for name in (*chat.Terminal(Conversation(fitted, "sft"), io.StringIO(), input)._commands, "/quit", *METHODS):
        assert name in shown


# runs


def test_a_run_is_never_changed(finished: Finished, fitted: FittedRun) -> None:
    def files() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(finished.folder.rglob("*")) if p.is_file()}

    before = files()
    talk(fitted, f"/write Skates: {SKATES}", "How much?", "/method rag", "How much?", "/forget skates")
    assert files() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run=nope",), ("run=nope", "the nearest are: ", "{id}")),
        (("method=nope",), ("method=nope", *METHODS)),
        (("method=none",), ("method=none", *METHODS)),
        (("seed=7",), ("seed=7", "seed 0 only")),
        (("seed=x",), ("seed=x", "whole number")),
        (("nonsense=1",), ("nonsense=1", "method=...", "run=...")),
        (("method",), ("method", "value is missing")),
        (("device=abacus",), ("device=abacus", "cpu")),
        (("--web=maybe",), ("--web=maybe", "true nor false")),
        (("--web", "port=99999"), ("port=99999",)),
        (("--web", "method=rag,rag"), ("method=rag,rag", "different")),
        (("--web", "method=rag,nope"), ("method=nope", *METHODS)),
    ],
)
def test_a_wrong_word_is_one_sentence(
    finished: Finished,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: tuple[str, ...],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, f"runs_dir={finished.folder.parent.parent}", *words, typed="How much?\n")
    assert stopped.value.code == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    (line,) = seen.err.splitlines()
    assert line.startswith("error: ")
    assert all(part.format(id=finished.folder.name) in line for part in said), line


def test_a_run_without_fits_says_so(copied: Path) -> None:
    shutil.rmtree(copied / "fits")
    with pytest.raises(MethodError, match=r"no fitted method is saved .* pipelines\.compare"):
        FittedRun(copied)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("adapters/step1/adapter_model.safetensors", "recall"),
        ("adapters/step2", "recall"),
        ("bank/bank.json", "recall"),
        ("bank/bank.safetensors", "recall"),
        ("adapters/sft", "sft"),
        ("index.json", "rag"),
    ],
)
@pytest.mark.parametrize("cut", [True, False])
def test_a_broken_fit_is_named(copied: Path, file: str, name: str, cut: bool) -> None:
    path = copied / "fits" / "0" / name / file
    if path.is_dir():
        shutil.rmtree(path)
    elif cut:
        path.write_bytes(path.read_bytes()[:20])
    else:
        path.unlink()
    with pytest.raises(
        MethodError, match=rf"fits/0/{name}(: the saved fit of {name} cannot be read|.* holds no adapter)"
    ):
        FittedRun(copied).method(name)


def edited(folder: Path, **changes: Any) -> FittedRun:
    file = folder / "config.json"
    body = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({k: v for k, v in body.items() if v is not None}), encoding="utf-8")
    return FittedRun(folder)


def test_a_run_of_another_version(copied: Path) -> None:
    """Younger settings take their defaults; a setting that is gone is named."""
    assert edited(copied, sampling=None).config.sampling.do_sample is False
    assert edited(copied, data_version="older").changed
    with pytest.raises(MethodError, match=r"config\.json: was written by another version .*bygone"):
        edited(copied, bygone=1)


def test_the_commands_list_what_there_is_to_choose(capsys: pytest.CaptureFixture[str]) -> None:
    from eval.arms import NAMES
    from methods.backbone import PACKAGED_LM
    from pipelines.cli import show_help
    from tasks.registry import TASKS

    show_help("compare")
    for shown in (chat.help_text(), capsys.readouterr().out):
        for name in (*TASKS, *NAMES, PACKAGED_LM, "smoke", "laptop", "full"):
            assert name in shown


def test_the_help_lists_runs_of_tasks_with_a_slash_in_their_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, fits in (("regs/1-a", ["sft", "rag"]), ("hub/obliqa/2-b", [])):
        folder = tmp_path / "runs" / name
        for fit in fits:
            (folder / "fits" / "0" / fit).mkdir(parents=True)
            (folder / "fits" / "0" / fit / "fit.json").touch()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").touch()
    listed = "Runs in runs/ and their fits:\n  hub/obliqa/2-b  no fit\n  regs/1-a  rag, sft\n"
    assert listed in chat.help_text()


@pytest.mark.slow
def test_help_in_a_process_of_its_own(finished: Finished) -> None:
    words = [sys.executable, "-m", "pipelines.chat", "--help"]
    folder = finished.folder.parent.parent.parent
    result = subprocess.run(
        words, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert f"regs/{finished.folder.name}  rag, recall, sft" in result.stdout


@pytest.fixture
def ablation(copied: Path) -> Path:
    """The run's recall as the fits of an ablation's rows, one below another's folder and one shared."""
    rows = [
        asdict(row) for row in ALL if row.name in ("recall", "recall/sampled", "recall/no_step1", "recall_quoted")
    ]
    config = json.loads((copied / "config.json").read_text(encoding="utf-8")) | {"ablation": rows}
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    fits = copied / "fits" / "0"
    for name in ("sft", "rag"):
        shutil.rmtree(fits / name)
    shutil.copytree(fits / "recall", copied / "one")
    (copied / "one").rename(fits / "recall" / "no_step1")
    return copied


def test_an_ablations_rows_are_talked_to_under_their_own_settings(ablation: Path) -> None:
    fitted = FittedRun(ablation)
    assert fitted.names == ("recall", "recall/sampled", "recall/no_step1")  # recall_quoted was not fitted yet
    methods = [fitted.method(name) for name in fitted.names]
    plain, sampled, without = methods
    assert [method.name for method in methods] == list(fitted.names)
    assert isinstance(plain, RecallMethod) and isinstance(sampled, RecallMethod)
    assert isinstance(without, RecallMethod)
    assert [method.setup.sampling.do_sample for method in (plain, sampled)] == [False, True]
    assert [method.config.step1_share for method in (plain, without)] == [0.2, 0.0]
    shown = talk(fitted, "How much?", "/method recall/sampled", name="recall/no_step1")
    assert "recall/no_step1 of " in shown
    assert "  recalled " in shown
    with pytest.raises(MethodError, match=r"method=sft: .* choose from: recall, recall/sampled, recall/no_step1"):
        fitted.method("sft")
    assert chat._fits(ablation) == ["recall", "recall/no_step1"]
