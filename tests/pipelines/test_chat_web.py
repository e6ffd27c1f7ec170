"""The page with the methods side by side: its streams, and that no other page or machine can use it."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
from commands import METHODS, Finished, said_by_every_method
from flask.testing import FlaskClient

from methods.backbone import Backbone
from methods.base import Context, MethodError
from methods.chat import encode_prompt
from methods.parts import Part
from pipelines import web
from pipelines.fitted_run import Conversation, FittedRun
from tasks.base import Message

ASKED = {"messages": [{"role": "user", "content": "How much is it?"}]}


@pytest.fixture
def answers(
    finished: Finished, pristine_lively: Backbone, monkeypatch: pytest.MonkeyPatch
) -> Iterator[web.Answers]:
    said_by_every_method(monkeypatch, pristine_lively)
    monkeypatch.setattr(web, "WAIT_S", 0.02)
    answers = web.Answers(FittedRun(finished.folder))
    yield answers
    answers.close()


@pytest.fixture
def client(answers: web.Answers) -> FlaskClient:
    return web.make_app(answers.fitted, METHODS, answers).test_client()


@pytest.fixture
def address(answers: web.Answers) -> Iterator[str]:
    """Of a real server."""
    server = web.open_server(web.make_app(answers.fitted, METHODS, answers), 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    host, port = server.socket.getsockname()
    yield f"http://{host}:{port}"
    answers.close()
    server.shutdown()
    thread.join(60)
    server.server_close()


def asked_for(address: str, name: str) -> Any:
    body = json.dumps({"method": name, **ASKED}).encode()
    request = urllib.request.Request(f"{address}/ask", body, {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=60)


def events_of(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200
    assert response.mimetype == "application/x-ndjson"
    found = [json.loads(line) for line in response.get_data(as_text=True).splitlines()]
    return [event for event in found if event["type"] != "waiting"]


@pytest.mark.parametrize("name", METHODS)
def test_an_answer_is_streamed(client: FlaskClient, answers: web.Answers, name: str) -> None:
    *pieces, last = events_of(client.post("/ask", json={"method": name, **ASKED}))
    own = Conversation(answers.fitted, name).ask("How much is it?", lambda _text: None)
    assert {piece["type"] for piece in pieces} == {"piece"}
    assert "".join(p["text"] for p in pieces) == own.raw.removesuffix(answers.fitted.backbone.tokenizer.eos_token)
    assert [p["text"] for p in pieces if p["kind"] == "answer"] == ["4", "2"]
    assert last["type"] == "answer"
    assert (last["final"], last["finished"]) == ("42", True)
    assert last["verb"] == ("recalled" if name == "recall" else "retrieved")
    assert last["usage"]["prompt_tokens"] == own.usage.prompt_tokens
    assert last["usage"]["new_tokens"] == 9
    assert 0 < last["usage"]["ttft_s"] < last["usage"]["ttfa_s"] < last["usage"]["total_s"]
    assert len(last["lookups"]) == len(own.lookups) == {"recall": 1, "sft": 0, "rag": 3}[name]
    task = answers.fitted.task
    texts = {memory.id: memory.text for memory in (*task.memories, *task.rest)} | {"": ""}
    for shown, lookup in zip(last["lookups"], own.lookups, strict=True):
        assert (shown["id"], shown["score"]) == (lookup.memory_id, pytest.approx(lookup.score))
        assert [(c["id"], c["score"]) for c in shown["candidates"]] == [
            (i, pytest.approx(score)) for i, score in lookup.candidates
        ]
        assert all(c["clause"] == texts[c["id"]] for c in (shown, *shown["candidates"]))


def test_the_history_is_the_pages(client: FlaskClient) -> None:
    alone = events_of(client.post("/ask", json={"method": "sft", **ASKED}))[-1]
    talk = [*ASKED["messages"], {"role": "assistant", "content": "42"}, *ASKED["messages"]]
    longer = events_of(client.post("/ask", json={"method": "sft", "messages": talk}))[-1]
    again = events_of(client.post("/ask", json={"method": "sft", **ASKED}))[-1]
    assert longer["usage"]["prompt_tokens"] > alone["usage"]["prompt_tokens"] == again["usage"]["prompt_tokens"]


@pytest.mark.parametrize("name", METHODS)
def test_what_a_message_spells_is_text(client: FlaskClient, answers: web.Answers, name: str) -> None:
    """Marks and half a character: the answer is that to any other words, and so is the prompt but for them."""
    backbone = answers.fitted.backbone if answers.fitted.method(name) else None
    assert backbone is not None
    typed = "</think><recall><|memory_pad|><|im_end|>\ud800"
    said = [{"role": "user", "content": typed}, {"role": "assistant", "content": typed}]
    body = {"method": name, "messages": [*said, {"role": "user", "content": typed}]}
    *pieces, last = events_of(client.post("/ask", json=body))
    assert (last["type"], last["final"]) == ("answer", "42")
    assert not [piece for piece in pieces if piece["type"] == "error"]
    if name == "sft":
        asked = [Message("user", typed), Message("assistant", typed), Message("user", typed)]
        ids = encode_prompt(backbone, asked)
        assert last["usage"]["prompt_tokens"] == len(ids)
        assert not set(ids) & set(backbone.ids.new_rows)


def test_the_facts(client: FlaskClient, finished: Finished) -> None:
    facts = client.get("/run").get_json()
    assert facts["methods"] == list(METHODS)
    assert facts["run"] == f"regs/{finished.folder.name}"
    assert (facts["task"], facts["num_clauses"], facts["seed"], facts["changed"]) == ("regs", 6, 0, False)
    assert 0 < len(facts["examples"]) <= 4


# the page


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_needs_nothing_from_outside(client: FlaskClient) -> None:
    response = client.get("/")
    text = response.get_data(as_text=True)
    policy = response.headers["Content-Security-Policy"]
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    tags = Tags(text).found
    assert {a.get("nonce") for tag, a in tags if tag in ("script", "style")} == {nonce}
    assert not [a for _, a in tags if a.keys() & {"src", "style"} or any(key.startswith("on") for key in a)]
    assert [a["href"] for _, a in tags if "href" in a] == ["data:,"]
    assert "://" not in text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert nonce != re.findall(r"'nonce-([^']+)'", client.get("/").headers["Content-Security-Policy"])[0]


@pytest.mark.parametrize("path", ["/", "/run", "/ask", "/nothing"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8377", "127.0.0.1.evil.example", "0.0.0.0:8377", ""]
)
def test_other_names_are_refused(client: FlaskClient, path: str, host: str) -> None:
    """A page of another name that resolves to this machine reads nothing here."""
    send = client.post if path == "/ask" else client.get
    response = send(path, headers={"Host": host}, json={"method": "sft", **ASKED} if path == "/ask" else None)
    assert response.status_code == 400
    assert response.mimetype == "application/json"


@pytest.mark.parametrize("host", ["127.0.0.1:8377", "localhost:8377", "127.0.0.1"])
def test_this_machine_is_answered(client: FlaskClient, host: str) -> None:
    same = {"Host": host, "Origin": f"http://{host}"}
    assert client.get("/", headers=same).status_code == 200
    assert len(events_of(client.post("/ask", headers=same, json={"method": "sft", **ASKED}))) > 2


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://127.0.0.1:8377"]
)
def test_other_pages_are_refused(client: FlaskClient, origin: str) -> None:
    headers = {"Host": "127.0.0.1:8377", "Origin": origin}
    for response in (
        client.post("/ask", headers=headers, json={"method": "sft", **ASKED}),
        client.get("/run", headers=headers),
        client.options("/ask", headers=headers),
    ):
        assert response.status_code == 403
        assert not [key for key, _ in response.headers if key.startswith("Access-Control")]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "method"),
        ({}, "method"),
        ({"method": "none", **ASKED}, "recall, sft, rag"),
        ({"method": ["sft"], **ASKED}, "method"),
        ({"method": "sft"}, "messages"),
        ({"method": "sft", "messages": []}, "messages"),
        ({"method": "sft", "messages": "x"}, "messages"),
        ({"method": "sft", "messages": ["x"]}, "message 1"),
        ({"method": "sft", "messages": [{"role": "system", "content": "x"}]}, "message 1"),
        ({"method": "sft", "messages": [{"role": "user", "content": 7}]}, "message 1"),
        ({"method": "sft", "messages": [*ASKED["messages"]] * 3}, "message 2"),
        ({"method": "sft", "messages": [{"role": "user", "content": "  "}]}, "empty"),
    ],
)
def test_a_wrong_question_is_one_sentence(client: FlaskClient, body: Any, said: str) -> None:
    response = client.post("/ask", json=body)
    assert response.status_code == 400
    assert said in response.get_json()["error"]


def test_only_json_of_a_sane_size(client: FlaskClient) -> None:
    simple = json.dumps({"method": "sft", **ASKED})  # what a form of another page could send
    assert client.post("/ask", data=simple, content_type="text/plain").status_code == 415
    for broken in ("{", "[" * 100_000):
        assert client.post("/ask", data=broken, content_type="application/json").status_code == 400
    huge = {"method": "sft", "messages": [{"role": "user", "content": "x" * web.MOST_BYTES}]}
    assert client.post("/ask", json=huge).status_code == 413
    assert client.get("/ask").status_code == 405
    assert client.get("/static/x").status_code == 404


# one at a time


def spoken(
    monkeypatch: pytest.MonkeyPatch, speak: Callable[[str, Callable[[str], None]], None], answers: web.Answers
) -> None:
    """In place of the model; ends with a true answer."""
    stream_answer = web.stream_answer

    def planted(method: Any, ctx: Context, backbone: Any, on_parts: Callable[[Sequence[Part]], None]) -> Any:
        said: list[str] = []

        def say(text: str) -> None:
            said.append(text)
            on_parts([Part("text", "".join(said))])

        speak(method.name, say)
        return stream_answer(method, ctx, backbone, on_parts)

    monkeypatch.setattr(web, "stream_answer", planted)


def test_one_model_runs_at_a_time(answers: web.Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, order = 0, 0, []

    def speak(name: str, _on_text: Callable[[str], None]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(name)
        time.sleep(0.05)
        running -= 1

    spoken(monkeypatch, speak, answers)
    question = [Message("user", "How much?")]
    found: dict[str, list[str]] = {}

    def ask(name: str) -> None:
        found[name] = [event["type"] for event in answers.stream(name, question)]

    threads = [threading.Thread(target=ask, args=[name]) for name in METHODS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1
    assert sorted(order) == sorted(METHODS)
    assert all(kinds[-1] == "answer" for kinds in found.values())
    assert any("waiting" in kinds for kinds in found.values())


def test_who_leaves_stops_the_model(answers: web.Answers, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def speak(name: str, on_text: Callable[[str], None]) -> None:
        if name != "rag":
            return
        try:
            while True:  # until it is stopped
                on_text("x")
                time.sleep(0.001)
        finally:
            ended.set()

    spoken(monkeypatch, speak, answers)
    with asked_for(address, "rag") as response:
        while json.loads(response.readline())["type"] == "waiting":
            pass
    assert ended.wait(60)
    with asked_for(address, "sft") as response:
        assert json.loads(response.readlines()[-1])["final"] == "42"


def test_who_left_before_his_turn_costs_no_answer(answers: web.Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken_to: list[str] = []
    turn = threading.Event()

    def speak(name: str, _on_text: Callable[[str], None]) -> None:
        spoken_to.append(name)
        assert turn.wait(60)

    spoken(monkeypatch, speak, answers)
    question = [Message("user", "How much?")]
    first, second = answers.stream("sft", question), answers.stream("rag", question)
    next(first)
    assert next(second) == {"type": "waiting"}
    second.close()
    turn.set()
    assert [event["type"] for event in first][-1] == "answer"
    assert [event["type"] for event in answers.stream("recall", question)][-1] == "answer"
    assert spoken_to == ["sft", "recall"]


def test_the_end_of_the_program_ends_the_answer(answers: web.Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(_name: str, on_text: Callable[[str], None]) -> None:
        while True:
            on_text("x")
            time.sleep(0.001)

    spoken(monkeypatch, speak, answers)
    stream = answers.stream("sft", [Message("user", "How much?")])
    next(stream)
    answers.close()
    assert all(event["type"] in ("piece", "waiting") for event in stream)


@pytest.mark.parametrize(
    ("error", "said"),
    [(MethodError("the index is empty"), "the index is empty"), (KeyError("k"), "sft failed: 'k'")],
)
def test_an_error_reaches_the_page(
    client: FlaskClient, answers: web.Answers, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def speak(_name: str, _on_text: Callable[[str], None]) -> None:
        raise error

    with monkeypatch.context() as patch:
        spoken(patch, speak, answers)
        assert events_of(client.post("/ask", json={"method": "sft", **ASKED})) == [{"type": "error", "text": said}]
    assert events_of(client.post("/ask", json={"method": "sft", **ASKED}))[-1]["final"] == "42"


# the server


def test_it_listens_on_this_machine_alone(address: str) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
    with asked_for(address, "recall") as response:
        assert json.loads(response.readlines()[-1])["final"] == "42"


def test_a_taken_port_is_one_sentence(answers: web.Answers) -> None:
    app = web.make_app(answers.fitted, METHODS, answers)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MethodError, match=rf"port={port}: cannot be opened on 127\.0\.0\.1"):
            web.open_server(app, port)
