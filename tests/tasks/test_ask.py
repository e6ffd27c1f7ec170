"""A model drafts questions over HTTP: what passes is sound, what was done is kept, and the key stands nowhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer, serving

from tasks import ask, writers
from tasks.base import TaskError
from tasks.documents.cutting import cut
from tasks.documents.folder import read_folder
from tasks.drafts import TRIAL, Drafting, drafts_in
from tasks.local import read
from tasks.validate import problems
from tasks.values import stands_in

TEXT = """# Meal allowance, Lisbon

Staff in Lisbon receive 31 euros a day for meals. Claims go to Rui Matos by the fifth working day.

# Meal allowance, Cork

Staff in Cork receive 27 euros a day for meals. Claims go to Nora Daly by the fifth working day.

# Parking

Visitors park on level 2 for at most 5 hours. The barrier opens with code KH-204.
"""
GOOD = {
    "Lisbon": [
        ("What is paid for food in Lisbon each day?", "31 euros"),
        ("Who takes care of Lisbon's receipts?", "Rui Matos"),
    ],
    "Cork": [
        ("How much for food does one get in Cork?", "27 euros"),
        ("Who sorts out Cork's papers?", "Nora Daly"),
    ],
    "Parking": [("How long may a guest leave the car?", "5 hours"), ("What lifts the barrier?", "KH-204")],
}
BAD = [
    ("Is it KH-204 that opens the barrier?", "KH-204"),  # gives its answer away
    ("Who is the porter?", "Zanzibar"),  # stands nowhere
    (
        "How soon must it be done?",
        "fifth working day",
    ),  # asks for what two clauses say: its quote is in one, though
]
KEY = "sk-secret-4711"


def model(prompt: str) -> str:
    """Answers as a good model would, with some drafts that must not pass."""
    if "Answer with a few words" in prompt:
        asked = re.search(r"Question: (.*)", prompt)
        known = {q: a for rows in GOOD.values() for q, a in rows} | {q: a for _, q, a in TRIAL}
        known["What lifts the barrier today?"] = "KH-204"
        return known.get(asked[1] if asked else "", "") or "The text does not say."
    heading = re.search(r'heading "(.*?)"', prompt)
    title = heading[1].split()[-1] if heading else ""
    if "another matter" in prompt:
        return (
            '{"question": "Which choir sings here at Christmas?"}\n{"question": "What lifts the barrier today?"}'
        )
    rows = [] if "similar text" in prompt else [*GOOD[title], *BAD]
    said = "\n".join(json.dumps({"question": q, "answer": a}) for q, a in rows)
    return f"<think>{{not this}}</think>Here you are:\n```\n{said}\n```\n" + '{"question": "It is cut o'


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(model) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(writers.KEY_VARIABLE, raising=False)
    monkeypatch.setattr(writers, "WAIT_S", 0.0)
    monkeypatch.setattr(writers, "TIMEOUT_S", 0.5)
    path = tmp_path / "docs"
    path.mkdir()
    (path / "a.md").write_text(TEXT, encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], folder: Path, model: str, *more: str) -> tuple[int, str, str]:
    status = ask.main([f"path={folder}", f"model={model}", *more])
    seen = capsys.readouterr()
    return status, seen.out, seen.err


def test_what_is_written_is_sound_and_can_be_compared(
    folder: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, folder, server.address)
    assert status == 0, err
    found = read(str(folder), num_train=9, num_heldout=9)
    assert found.questions.refused == [] and problems(found.task) == []
    assert sorted(path.name for path in folder.iterdir()) == ["a.md", "questions.csv"]
    asked = [qa for qa in found.questions.used if not qa.id.startswith("uncovered")]
    assert {(qa.question, qa.answer) for qa in asked if qa.answer} == {
        row for rows in GOOD.values() for row in rows
    }
    assert [qa.question for qa in asked if not qa.answer] == ["Which choir sings here at Christmas?"]
    drafts, kept, refused, otherwise = map(int, re.findall(r"\d+", out.split("\n")[0]))
    assert drafts == kept + refused + otherwise and kept == len(asked)
    assert all(stands_in(qa.answer, found.task.memory(qa.memory_ids[0]).text) for qa in asked if qa.answer)
    assert "tokens read" in out


def test_a_draft_says_yes_or_no_where_a_sentence_does(folder: Path) -> None:
    (folder / "a.md").write_text("Dogs are not allowed in the yard. Cats are fed by Ida Lund at noon.")
    pieces = cut(read_folder(folder).sections)
    for answer, quote in (("no", "Dogs are not allowed in the yard."), ("yes", "")):
        quoted = Drafting(pieces, 1)._quote("Are dogs allowed in the yard?", answer, pieces.clauses[0])
        assert quoted == quote


def test_a_model_that_cannot_answer_is_not_asked_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda prompt: "pardon?" if "Answer with a few" in prompt else model(prompt)) as server:
        status, out, err = run(capsys, folder, server.address)
        assert sum("Answer with a few" in prompt for prompt in server.prompts) == 1
    assert status == 0 and "none asked back" in out and "not checked by asking it back" in err


@pytest.mark.parametrize("fault", [429, 500, 503, "slow", "cut", "nonsense"])
def test_a_fault_that_passes_is_waited_for(
    folder: Path, server: ChatServer, capsys: pytest.CaptureFixture[str], fault: int | str
) -> None:
    server.faults = [fault, fault]
    assert run(capsys, folder, server.address)[0] == 0
    assert (folder / ask.QUESTIONS).exists()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (401, "status 401; set OPENAI_API_KEY"),
        (404, "status 404; check the address"),
        (429, "status 429"),
        (500, "status 500"),
        ("slow", "did not answer within 0.5 s"),
        ("cut", "broke off"),
        ("nonsense", "no JSON"),
        ("no choices", "not as OpenAI's protocol says"),
    ],
)
def test_a_fault_that_stays_keeps_what_was_done_and_the_same_command_goes_on(
    folder: Path, server: ChatServer, capsys: pytest.CaptureFixture[str], fault: int | str, said: str
) -> None:
    assert run(capsys, folder, server.address, "clauses=1")[0] == 0
    before = (folder / ask.QUESTIONS).read_bytes()
    server.always = fault
    status, out, err = run(capsys, folder, server.address)
    assert (status, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: 127.0.0.1") and said in last
    assert last.endswith("1 of 3 clauses are done and kept; the same command goes on from there")
    assert (folder / ask.QUESTIONS).read_bytes() == before
    server.always, asked = None, len(server.prompts)
    assert run(capsys, folder, server.address)[0] == 0
    assert not any("heading \"Meal allowance, Lisbon\"" in p.split("A similar")[0] and "different questions" in p
                   for p in server.prompts[asked:])  # fmt: skip


def test_a_killed_run_ends_as_one_that_was_not(
    folder: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, folder, server.address)
    whole = (folder / ask.QUESTIONS).read_bytes()
    (folder / ask.QUESTIONS).unlink()
    for _ in range(2):
        run(capsys, folder, server.address, "clauses=1")
        with (folder / ask.PROGRESS).open("a") as handle:  # killed while it wrote a line
            handle.write('{"clause": "12')
    assert run(capsys, folder, server.address)[0] == 0
    assert (folder / ask.QUESTIONS).read_bytes() == whole


def test_the_key_is_sent_and_stands_nowhere(
    folder: Path, server: ChatServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(writers.KEY_VARIABLE, KEY)
    seen = ""
    for server.always in (None, 401, 500, "cut", "nonsense"):
        status, out, err = run(capsys, folder, server.address, "clauses=1")
        seen += out + err
        assert KEY not in seen and status == (0 if server.always is None else 2)
        assert not any(KEY.encode() in path.read_bytes() for path in folder.iterdir())
    assert set(server.keys) == {f"Bearer {KEY}"}
    writer = writers.Server(server.address)
    server.always = 500
    with pytest.raises(writers.Away) as caught:
        writer.reply([], 1)
    assert KEY not in repr(caught.value) + repr(writer) + repr(vars(writer))
    writer.close()


def test_no_key_goes_over_plain_http_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(writers.KEY_VARIABLE, KEY)
    for address, sent in (("http://a.example/v1", False), ("https://a.example/v1", True)):
        writer = writers.Server(address, "m")
        assert ("authorization" in writer._client.headers) is sent
        writer.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("path=x", "model=y", "size=1"), "size: no such setting"),
        (("path=x",), "are needed"),
        (("path=/no/such", "model=y"), "no such folder"),
        (("model=http://u:p@host/v1",), "a key goes into OPENAI_API_KEY"),
        (("model=http://",), "an address is"),
        (("model=http://[/v1",), "no address"),
        (("model=http://127.0.0.1:1/v1",), "cannot be reached or broke off"),
        (("model=m", "questions=0"), "no number that fits"),
    ],
)
def test_a_wrong_word_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], said: str
) -> None:
    given = given if any(word.startswith("path=") for word in given) else (f"path={folder}", *given)
    assert ask.main(given) == 2
    err = capsys.readouterr().err
    assert said in err and err.splitlines()[-1].startswith("error: ") and "Traceback" not in err


def test_a_persons_own_questions_are_never_overwritten(
    folder: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Questions.CSV").write_text("question\nMine?\n")
    status, _, err = run(capsys, folder, server.address)
    assert status == 2 and "is there already; rename it" in err
    (folder / "Questions.CSV").unlink()
    run(capsys, folder, server.address, "clauses=1")
    (folder / ask.QUESTIONS).write_text("question\nMine?\n")
    status, _, err = run(capsys, folder, server.address)
    assert status == 2 and "was changed since" in err
    assert (folder / ask.QUESTIONS).read_text() == "question\nMine?\n"


def test_several_models_have_to_be_told_apart(
    folder: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.models = ["one", "two"]
    assert "it has one, two" in run(capsys, folder, server.address)[2]
    assert run(capsys, folder, server.address, "name=two")[0] == 0


def test_a_model_that_writes_nonsense_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda _: "Certainly! { [ }") as server:
        status, _, err = run(capsys, folder, server.address)
    assert status == 2 and "wrote no question that can be used; take a larger model" in err
    assert [path.name for path in folder.iterdir()] == ["a.md"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"question": "a?", "answer": 5}, {"question": "b?"}]', [("a?", "5"), ("b?", "")]),
        ('{"question": null}{"x": {"question": "c?"}}', []),
        ('{"question": "d?", "answer": "e', []),
        ("{" * 3000, []),
    ],
)
def test_drafts_are_found_whatever_stands_around(text: str, found: list[tuple[str, str]]) -> None:
    assert list(drafts_in(text)) == found


def test_a_local_model_answers_from_a_process_of_its_own() -> None:
    echo = (
        "import sys, json\nfor line in sys.stdin:\n b = json.loads(line)\n print(json.dumps({'text': b['messages']"
    )
    echo += "[0]['content'][::-1], 'prompt_tokens': 3, 'new_tokens': b['max_new_tokens']}), flush=True)"
    process = writers.Process("m", (sys.executable, "-c", echo))
    assert process.reply([writers.Message("user", "ab")], 7) == ("ba", 3, 7)
    process.close()
    ended = writers.Process("m", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(TaskError, match="model=m: its process ended"):
        ended.reply([], 1)
    ended.close()
