"""What takes in bytes that a stranger wrote, each as a function of bytes that raises where something is wrong.

`test_fuzz.py` calls them with inputs that hypothesis draws, `run.py` with those of a coverage-guided fuzzer. An
error that a target documents is none; anything else that it raises is a fault.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eval.records import RecordError, RecordWriter, TurnRecord, read_all_records
from eval.scoring import (
    ScoringError,
    abstains,
    asserts_key,
    exact_match,
    held_values,
    is_abstention,
    is_correct,
    overlap_f1,
    recites,
    token_f1,
    verbatim,
)
from eval.structure import chain_kept, parse, sentences, structure_of
from methods.base import Answer, Lookup, MethodError, Usage
from methods.parts import CONTROL_TOKENS, Part, final_text, read, recalled_texts, thought
from tasks.base import QA, Message, TaskError
from tasks.documents.accounting import accounts
from tasks.documents.cutting import cut
from tasks.documents.folder import read_folder
from tasks.keys import key_problems

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ROOT / "tests" / "tasks" / "data" / "documents"
MOST_BYTES = 4096  # of one input


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], None]
    words: tuple[str, ...]  # what inputs of its kind are made of
    seeds: tuple[bytes, ...] = ()  # whole inputs to begin with


@functools.cache
def folder() -> Path:
    """In memory, where the machine has such a place."""
    shared = Path("/dev/shm")
    made = tempfile.mkdtemp(prefix="recallbench-fuzz-", dir=shared if shared.is_dir() else None)
    return Path(made)


def file(name: str, body: bytes) -> Path:
    """The one file of a folder of its own kind."""
    path = folder() / name.replace(".", "-") / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(body)
    return path


# ------------------------------------------------------------------------------------------ documents


def _document(name: str, body: bytes) -> None:
    """Read or skipped by name; nothing of what was read is lost unseen."""
    found = read_folder(file(name, body).parent)
    assert len(found.files) == len(found.documents) + len(found.skipped) + (found.questions is not None)
    pieces = cut(found.sections)
    list(accounts(found.documents, pieces))
    for clause in (*pieces.clauses, *pieces.too_short, *pieces.too_long):
        clause.text.encode()  # no half of a character


def text(body: bytes) -> None:
    _document("a.txt", body)


def markdown(body: bytes) -> None:
    _document("a.md", body)


def html(body: bytes) -> None:
    _document("a.html", body)


def csv_rows(body: bytes) -> None:
    _document("a.csv", body)


def jsonl_rows(body: bytes) -> None:
    _document("a.jsonl", body)


def pdf(body: bytes) -> None:
    _document("a.pdf", body)


def _zipped(name: str, seed: Path, part: str, body: bytes) -> None:
    """A seed's file with one part of it in other words; of 256 inputs one is the whole file itself."""
    if body[:1] == b"\0":
        _document(name, body[1:])
        return
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for other, content in _parts(seed).items():
            archive.writestr(other, body if other == part else content)
    _document(name, whole.getvalue())


@functools.cache
def _parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def docx(body: bytes) -> None:
    _zipped("a.docx", DOCUMENTS / "docx-auto-numbers" / "lease.docx", "word/document.xml", body)


@functools.cache
def workbook() -> Path:
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["text", "title"])
    book.active.append(["Level 2 costs 31 euros a day.", "Parking"])
    path = folder() / "seed.xlsx"
    book.save(path)
    return path


def xlsx(body: bytes) -> None:
    _zipped("a.xlsx", workbook(), "xl/worksheets/sheet1.xml", body)


# ------------------------------------------------------------------------------------------ questions


@functools.cache
def _reader() -> Any:
    from tasks.local import QuestionReader

    clauses = [
        f"## Parking {town}\n\nIn {town} the garage closes at {hour}:30 and a day costs {hour} euros.\n"
        for town, hour in (("Lisbon", 18), ("Oslo", 19), ("Graz", 20))
    ]
    path = file("clauses.md", "\n".join(clauses).encode())
    pieces = cut(read_folder(path.parent).sections)
    return lambda: QuestionReader("questions.csv", pieces)


def _questions(name: str, body: bytes) -> None:
    from tasks.local import _from_file

    path = file(name, body)
    with contextlib.suppress(TaskError):
        found = _from_file(path, _reader()())
        assert len(found.used) + found.num_refused <= found.num_found + len(found.refused)


def questions_csv(body: bytes) -> None:
    _questions("questions.csv", body)


def questions_jsonl(body: bytes) -> None:
    _questions("questions.jsonl", body)


def handbook(body: bytes) -> None:
    """clauses.jsonl of a handbook folder."""
    from tasks.handbook import read_handbook

    card = {"name": "h", "licence": "CC0", "source": "me"}
    path = file("clauses.jsonl", body)
    (path.parent / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with contextlib.suppress(TaskError):
        read_handbook(path.parent, 8, 2)


# --------------------------------------------------------------------------------- words of a command


def command_words(body: bytes) -> None:
    """`key=value` words of the commands that take no Hydra."""
    from pipelines import chat, report
    from pipelines.cli import one_run, options_of, spelled_out

    words = body.decode("utf-8", "surrogateescape").split("\n")
    for word in words:
        spelled_out(word)
    for call in (
        lambda: options_of(chat.Options, words),
        lambda: options_of(report.Options, words),
        lambda: one_run(words),
    ):
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
            call()


def config(body: bytes) -> None:
    """config.json of a run folder, as the chat reads it."""
    from omegaconf.errors import OmegaConfBaseException

    from pipelines.config import saved_config
    from pipelines.run import read_json

    path = file("config.json", body)
    with contextlib.suppress(TaskError, MethodError, RecordError, OmegaConfBaseException):
        read_json(path)
        saved_config(path.parent)


def hydra_words(body: bytes) -> None:
    """Words of `pipelines.compare`."""
    from pipelines.cli import compose_config, one_run
    from pipelines.config import resolve

    words = [word for word in body.decode("utf-8", "replace").split("\n") if word]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit, TaskError, MethodError):
        resolve(compose_config("compare", one_run(words)))


# ------------------------------------------------------------------------------------------ the model


@functools.cache
def _tokenizer() -> Any:
    from methods.backbone import _tiny
    from methods.template import read_template

    _model, tokenizer = _tiny()
    tokenizer.add_special_tokens({"additional_special_tokens": list(CONTROL_TOKENS)}, False)
    tokenizer.add_tokens(["<unused_a>", "<\uff5cUser\uff5c>"])
    added = frozenset(tokenizer.get_added_vocab().values())
    return tokenizer, read_template(tokenizer), added


def _said(body: bytes) -> str:
    """Half a character is let through, where nothing else is wrong."""
    try:
        return body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return body.decode("utf-8", "replace")


def chat_encoder(body: bytes) -> None:
    """Messages in any words: no added token but the template's own, and the words come back."""
    from methods.template import encode_text, prompt_ids, whole_characters

    tokenizer, facts, added = _tokenizer()
    said = _said(body)
    ids = encode_text(tokenizer, said)
    assert not added & set(ids)
    assert tokenizer.decode(ids) == whole_characters(said)
    roles = ("user", "assistant")
    chat = [Message(roles[n % 2], one) for n, one in enumerate(said.split("\n\n"))]  # type: ignore[arg-type]
    prompt = prompt_ids(tokenizer, facts, chat)
    assert sum(index in added for index in prompt) == 2 * len(chat) + 1  # a beginning and an end of each turn


def _parts_of(body: bytes) -> tuple[Part, ...]:
    """Lines are parts: `!` before one makes it a control token, `.` the one that ended the answer."""
    parts = []
    for line in body.decode("utf-8", "replace").split("\n"):
        kind = {"!": "control", ".": "stop"}.get(line[:1], "text")
        parts.append(Part(kind, line[1:] if kind != "text" else f"{line}\n"))  # type: ignore[arg-type]
    return tuple(parts)


def think_parser(body: bytes) -> None:
    from pipelines.answer_pieces import AnswerPieces

    parts = _parts_of(body)
    given = parts[0].text
    lookups = (Lookup("m", 0.5, given),)
    answer = Answer(parts, lookups, Usage(1, 1))
    assert answer.final in final_text(read(parts, given), given)
    ids = any(part.kind == "control" and part.text in ("<think>", "</think>") for part in parts)
    if ids:  # text is never control
        assert "".join(text for _, text in read(parts)) == "".join(p.text for p in parts if p.kind != "stop")
        ends = [n for n, part in enumerate(parts) if part.kind == "control" and part.text == "</think>"]
        assert ends or not answer.final or "`" in answer.raw
    assert len(recalled_texts(answer.pieces)) == sum(piece == ("control", "<recall>") for piece in answer.pieces)
    found = parse(parts, True, given)
    assert found.well_formed == (not found.faults)
    assert 0.0 <= chain_kept(found.steps, sentences(given) or ("x",)) <= 1.0
    structure_of(TurnRecord("m", 0, "d", 0, "ordinary", given, answer))
    streamed: list[str] = []
    pieces = AnswerPieces(lambda _kind, text: streamed.append(text))
    for n in range(len(parts)):
        pieces.add(parts[: n + 1])
    assert thought(answer.pieces) == answer.think


def scorer(body: bytes) -> None:
    """Lines: answer, key, alias, rival, another fact of the clause, question; the rest is the clause."""
    lines = body.decode("utf-8", "replace").split("\n")
    final, key, alias, rival, beside, asked, *rest = [*lines, *[""] * 6][: max(6, len(lines))]
    qa = QA(
        "q", asked, key, ("m",), (alias,) if alias else (), (rival,) if rival else (), (beside,) if beside else ()
    )
    key_problems(qa)
    for score in (is_correct, exact_match, token_f1, asserts_key, held_values, abstains):
        with contextlib.suppress(ScoringError):
            value = score(final, qa)  # type: ignore[operator]
            assert not isinstance(value, float) or 0.0 <= value <= 1.0
    is_correct(final, replace(qa, answer="", memory_ids=(), kind="unanswerable"))
    is_abstention(final)
    clause = "\n".join(rest)
    assert 0.0 <= overlap_f1(final, clause) <= 1.0
    for said_whole in (recites, verbatim):
        with contextlib.suppress(ScoringError):
            said_whole(final, clause)


# ------------------------------------------------------------------------------------- runs, and pages


def records(body: bytes) -> None:
    """What is read is written and read again as the same."""
    path = file("records.jsonl", body)
    try:
        found = read_all_records(path)
    except RecordError:
        return
    again = path.with_name("again.jsonl")
    again.unlink(missing_ok=True)
    writer = RecordWriter(again)
    writer.write(found)
    writer.close()
    assert repr(read_all_records(again)) == repr(found)  # not-a-number equals nothing


def _a_record() -> bytes:
    usage = Usage(3, 4, stage_s={"prefill": 0.5})
    answer = Answer(
        (Part("control", "<think>"), Part("text", "x")), (Lookup("m", 0.5, "t", (("m", 0.5),)),), usage
    )
    record = TurnRecord("rag", 0, "d", 0, "first_ask", "Q?", answer, QA("q", "Q?", "5", ("m",)), 0, "c", True, "t")
    return json.dumps({"schema": 3, "type": "TurnRecord", **asdict(record)}).encode()


@functools.cache
def _kept_run() -> dict[str, bytes]:
    """The smallest files of a measured run, and one of its records."""
    run = ROOT / "reports" / "results" / "regs-seed0"
    kept = {
        name: (run / name).read_bytes() for name in ("run.json", "config.json", "environment.json", "task.json")
    }
    state = json.loads(kept["run.json"]) | {"turns_recorded": 1, "timings_recorded": 0, "further_recorded": 0}
    fit = next(run.glob("fits/0/rag/fit.json")).read_bytes()
    setup = json.loads(kept["config.json"]) | {"run_methods": ["rag"]}
    whole = {**kept, "run.json": json.dumps(state).encode(), "config.json": json.dumps(setup).encode()}
    return {**whole, "records.jsonl": _a_record() + b"\n", "fits/0/rag/fit.json": fit}


PARTS_OF_RUN = ("run.json", "config.json", "environment.json", "task.json", "fits/0/rag/fit.json")


def run_folder(body: bytes) -> None:
    """A run's folder with one of its files in other words: the first byte says which."""
    from pipelines.report import check_finished
    from pipelines.results import read_saved

    path = folder() / "run"
    chosen = PARTS_OF_RUN[body[0] % len(PARTS_OF_RUN)] if body else ""
    for name, content in _kept_run().items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(body[1:] if name == chosen else content)
    with contextlib.suppress(RecordError):
        check_finished(path)
        read_saved(path)


@functools.cache
def _page() -> Any:
    from reports.html import _environment

    return _environment().from_string("<p title='{{ a.final }}'>{{ a.final }}{{ a.raw }}{{ q }}</p>")


def report(body: bytes) -> None:
    """Any words in a record: what pages, tables and MLflow make of them."""
    from html.parser import HTMLParser

    from reports.html import _answer
    from reports.mlflow_log import metric_name, storable
    from reports.text import latex, md, md_table, one_line, visible

    said = _said(body)
    for shown in (one_line(said), one_line(said, 20), visible(said), md(said), latex(said), storable(said, 40)):
        shown.encode()
        assert "\x1b" not in shown or shown == storable(said, 40)
    assert "\n" not in one_line(said) and "\n" not in md(said) and "\n" not in latex(said)
    assert "<" not in md(said) and "|" not in md(said)
    assert md_table([md(said)], [[md(said)]]).count("\n") == 2
    assert metric_name(said)
    answer = Answer(_parts_of(body), (Lookup(said, 0.5, said),), Usage(1, 1))
    record = TurnRecord("m", 0, said, 0, "first_ask", said, answer, QA("q", said, "5", (said,)), memory_text=said)
    whole = _page().render(a=_answer(record), q=said)
    whole.encode()
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(whole)
    assert tags == ["p"]


# --------------------------------------------------------------------------------------------- all

MARKS = (
    *CONTROL_TOKENS,
    "<|im_end|>",
    "<|im_start|>",
    "<thinking>",
    "<answer>",
    "</answer>",
    "User:",
    "[INST]",
    "`",
)
PROSE = (
    "Level 2",
    "costs",
    "31 euros",
    "18:30",
    ". ",
    "\n",
    "\n\n",
    "# ",
    "1. ",
    "(a) ",
    "- ",
    "|",
    " ",
    "€",
    "不",
    "\ufeff",
)
JSON = (
    "{",
    "}",
    "[",
    "]",
    '"',
    ":",
    ",",
    "null",
    "true",
    "1",
    "-1",
    "1e999",
    "NaN",
    "\\ud800",
    "\\u0000",
    '""',
    "[[[[",
)
QUESTION = (
    "question",
    "answer",
    "aliases",
    "quote",
    "split",
    "clause",
    "document",
    "id",
    "train",
    "What closes in Oslo?",
)
QUESTION += ("18:30", "18 euros", "Lisbon", "a.md", "sep=;", ",", ";", '"', "\n", "|", "\t")
SCORED = (
    "31 euros",
    "EUR 31",
    "no",
    "not",
    "or",
    "at least",
    "three",
    "1,500",
    "1.500",
    "IV",
    "18:30",
    "%",
    "\n",
    " ",
)
SCORED += (
    "The handbook does not say.",
    "2 May 2024",
    "half past nine",
    "C++",
    "minus",
    "-",
    "½",
    "三百",
    "上午",
    "/",
)


def _files(pattern: str, most: int = 6) -> tuple[bytes, ...]:
    found = (path.read_bytes() for path in sorted(DOCUMENTS.glob(f"**/{pattern}")))
    return tuple(body for body in found if len(body) <= 64 * MOST_BYTES)[:most]


def _tags(names: str) -> tuple[str, ...]:
    return tuple(tag for name in names.split() for tag in (f"<{name}>", f"</{name.split()[0]}>"))


HTML = _tags("html body table tr td th ul ol li p h1 h2 main nav a div span del sup script style dl dt dd pre br")
HTML += (
    '<td colspan="9999999">',
    '<td rowspan="3">',
    '<ol start="-5" type="i">',
    "&#xD800;",
    "&lt;",
    "<!--",
    "-->",
)
WORD = _tags("w:p w:r w:t w:tbl w:tr w:tc w:del w:ins w:sdt w:pPr w:rPr w:hyperlink m:oMath w:txbxContent")
WORD += ('<w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>', '<w:gridSpan w:val="3"/>', "<w:vMerge/>")
SHEET = ('<row r="1">', "</row>", '<c r="A1" t="inlineStr"><is><t>', "</t></is></c>", '<c r="B2"><v>', "</v></c>")
SHEET += ('t="s"', 't="d"', "_xD800_", "1e400", "<mergeCell ref='A1:B2'/>", "<sheetData>", "</sheetData>")

TARGETS: dict[str, Target] = {
    "text": Target(text, (*PROSE, *MARKS), _files("*.txt")),
    "markdown": Target(
        markdown, (*PROSE, *MARKS, "```", "| --- |", "> ", "[^1]", "[^1]: ", "![](x)"), _files("*.md")
    ),
    "html": Target(html, (*HTML, *PROSE, *MARKS), _files("*.htm*")),
    "csv": Target(
        csv_rows, (*QUESTION, "text", "title", "text\n", *MARKS), (b"text,title\nOne.,Two\n", *_files("*.csv"))
    ),
    "jsonl": Target(jsonl_rows, (*JSON, "text", "title", "id", *MARKS), (b'{"text": "One.", "title": "a"}\n',)),
    "docx": Target(
        docx, (*WORD, *PROSE), (_parts(DOCUMENTS / "docx-auto-numbers/lease.docx")["word/document.xml"],)
    ),
    "xlsx": Target(xlsx, (*SHEET, *PROSE), (_parts(workbook())["xl/worksheets/sheet1.xml"],)),
    "pdf": Target(
        pdf, ("obj", "endobj", "stream", "endstream", "/Type", "/Page", "BT", "ET", "Tj", "xref"), _files("*.pdf")
    ),
    "questions_csv": Target(
        questions_csv,
        QUESTION,
        (b"question,answer\nWhen does the garage in Oslo close?,19:30\n", *_files("questions.csv")),
    ),
    "questions_jsonl": Target(
        questions_jsonl, (*JSON, *QUESTION), (b'{"question": "When?", "answer": "19:30"}\n',)
    ),
    "handbook": Target(
        handbook,
        (*JSON, "id", "text", "slots", "cues", "questions", "split", "slot", "answer", "aliases", "family"),
        (b'{"id": "a", "text": "T 5.", "slots": {"s": {"answer": "5"}}, "cues": []}\n',),
    ),
    "command_words": Target(
        command_words, ("run=", "port=", "--web", "seed=", "path=", "'", "\\", "--multirun", "\n", "1")
    ),
    "config": Target(config, (*JSON, "task", "train", "${", "}", "methods", "rag"), (_kept_run()["config.json"],)),
    "hydra_words": Target(
        hydra_words,
        (
            "task=",
            "regs",
            "preset=",
            "seed=",
            "1",
            "null",
            "train.",
            "max_tokens",
            "hydra",
            *"=[]{}'$+~,@:/\\",
            "\n",
        ),
        (b"task=regs\nseed=1", b"preset=full\n~until", b"run_methods=[rag]\ntrain.max_tokens=1e3", b"task=2"),
    ),
    "chat_encoder": Target(
        chat_encoder, (*MARKS, "<unused_a>", "<\uff5cUser\uff5c>", "\ue0000\ue001", "\n\n", "\u2581")
    ),
    "think_parser": Target(
        think_parser, (*MARKS, *(f"\n!{mark}\n" for mark in CONTROL_TOKENS), "\n.", "So.", "\n")
    ),
    "scorer": Target(scorer, SCORED),
    "records": Target(records, (*JSON, "schema", "type", "TurnRecord", "CostRecord", "parts"), (_a_record(),)),
    "run_folder": Target(
        run_folder, JSON, tuple(bytes([n]) + _kept_run()[name] for n, name in enumerate(PARTS_OF_RUN))
    ),
    "report": Target(report, (*MARKS, *HTML, "$", "&", "\u202e", "\x1b[31m", "ש", "|", "\r\n", "\u2028")),
}
