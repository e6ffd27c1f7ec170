"""A local page with the methods side by side on the same question: `python -m pipelines.chat --web`.

It binds to 127.0.0.1 alone and answers only to that name (DNS rebinding); no other page may call it. One model
runs at a time. An answer is a stream of JSON lines:

    {"type": "waiting"}                            every second in which nothing else comes
    {"type": "piece", "kind": ..., "text": ...}    kind: think, recalled, answer or control
    {"type": "answer", ...}                        the whole answer, its lookups and what it cost
    {"type": "error", "text": ...}
"""

from __future__ import annotations

import json
import logging
import queue
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, make_server

from methods.answering import stream_answer
from methods.base import Answer, MethodError
from methods.parts import Part
from pipelines.answer_pieces import AnswerPieces, verb
from pipelines.fitted_run import FittedRun
from reports.text import visible
from tasks.base import Message

HOST = "127.0.0.1"
MOST_COLUMNS = 3
MOST_BYTES = 256 * 1024  # of a request
NUM_EXAMPLES = 4
WAIT_S = 1.0

log = logging.getLogger(__name__)
Event = dict[str, Any]


class BadRequest(ValueError):
    """What the page asked for cannot be answered: one sentence."""


class Stopped(Exception):
    """Nobody waits for this answer any more."""


class Answers:
    """Runs one generation at a time, in the order asked, and hands out its events."""

    def __init__(self, fitted: FittedRun) -> None:
        self.fitted = fitted
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers")
        self._closed = threading.Event()

    def close(self) -> None:
        """Ends the running answer and drops those that wait."""
        self._closed.set()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def stream(self, name: str, messages: Sequence[Message]) -> Generator[Event, None, None]:
        """Ends the generation when the caller stops reading."""
        events: queue.Queue[Event | None] = queue.Queue()
        left = threading.Event()

        def work() -> None:
            try:
                events.put(self._answer(name, messages, events.put, left))
            except Stopped:
                pass
            except MethodError as error:
                events.put({"type": "error", "text": str(error)})
            except Exception as error:  # the page must not wait for ever; the log has the traceback
                log.exception("answering failed")
                events.put({"type": "error", "text": f"{name} failed: {error}"})
            finally:
                events.put(None)

        self._worker.submit(work)
        try:
            while not self._closed.is_set():
                try:
                    event = events.get(timeout=WAIT_S)
                except queue.Empty:
                    yield {"type": "waiting"}
                    continue
                if event is None:
                    return
                yield event
        finally:
            left.set()

    def _answer(
        self, name: str, messages: Sequence[Message], send: Callable[[Event], None], left: threading.Event
    ) -> Event:
        method = self.fitted.method(name)

        def add(parts: Sequence[Part]) -> None:
            if left.is_set() or self._closed.is_set():
                raise Stopped
            pieces.add(parts)

        pieces = AnswerPieces(lambda kind, text: send({"type": "piece", "kind": kind, "text": text}))
        add(())
        answer = stream_answer(method, self.fitted.context(messages), self.fitted.backbone, add)
        return {"type": "answer", **as_event(answer, self.fitted), "verb": verb(answer)}


def as_event(answer: Answer, fitted: FittedRun) -> Event:
    """What the page shows of an answer beside its text."""
    clauses = {memory.id: memory for memory in (*fitted.task.memories, *fitted.task.rest)}

    def named(memory_id: str, score: float) -> Event:
        clause = clauses.get(memory_id)
        return {
            "id": memory_id,
            "title": clause.title if clause else "",
            "clause": visible(clause.text) if clause else "",
            "score": score,
        }

    usage = answer.usage
    return {
        "final": answer.final,
        "finished": answer.finished,
        "lookups": [
            {
                **named(lookup.memory_id, lookup.score),
                "text": visible(lookup.text),
                "candidates": [named(*candidate) for candidate in lookup.candidates],
            }
            for lookup in answer.lookups
        ],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "new_tokens": usage.new_tokens,
            "ttft_s": usage.ttft_s,
            "ttfa_s": usage.ttfa_s,
            "total_s": usage.total_s,
            "truncated_turns": usage.truncated_turns,
        },
    }


def _read_question(body: Any, names: Sequence[str]) -> tuple[str, list[Message]]:
    """method and messages of a request. Raises BadRequest."""
    if not isinstance(body, dict) or body.get("method") not in names:
        raise BadRequest(f"method must be one of: {', '.join(names)}")
    messages = body.get("messages")
    if not isinstance(messages, list) or not len(messages) % 2:
        raise BadRequest("messages must be a list that begins and ends with a user's message")
    read = []
    for number, message in enumerate(messages):
        role = "assistant" if number % 2 else "user"
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str) or message.get("role") != role:
            raise BadRequest(f"message {number + 1} must be a {role}'s, with a text as its content")
        read.append(Message("assistant" if number % 2 else "user", content))
    if not read[-1].content.strip():
        raise BadRequest("the question is empty")
    return str(body["method"]), read


def _lines(events: Generator[Event, None, None]) -> Iterator[str]:
    with closing(events):  # at once where the page has left
        for event in events:
            yield json.dumps(event) + "\n"


def make_app(fitted: FittedRun, names: Sequence[str], answers: Answers) -> Flask:
    """The page, the run's facts, and the answers."""
    app = Flask(__name__, static_folder=None)
    app.config.update(TRUSTED_HOSTS=[HOST, "localhost"], MAX_CONTENT_LENGTH=MOST_BYTES)

    @app.before_request
    def from_this_page_only() -> Any:
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{request.host}":
            return jsonify(error="another page may not ask here"), 403
        return None

    @app.after_request
    def closed_to_others(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response

    @app.errorhandler(HTTPException)
    def as_sentence(error: HTTPException) -> Any:
        return jsonify(error=error.description), error.code

    @app.get("/")
    def page() -> Response:
        nonce = secrets.token_urlsafe(16)
        response = Response(render_template("chat.html", nonce=nonce))
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return response

    @app.get("/run")
    def facts() -> Response:
        examples = [qa.question for qa in fitted.task.held_out("test")][:NUM_EXAMPLES]
        return jsonify(
            run=f"{fitted.folder.parent.name}/{fitted.folder.name}",
            task=fitted.task.name,
            num_clauses=len(fitted.task.memories),
            changed=fitted.changed,
            model=fitted.config.model,
            seed=fitted.seed,
            methods=list(names),
            examples=examples,
        )

    @app.post("/ask")
    def ask() -> Any:
        try:
            name, messages = _read_question(request.get_json(), names)
        except RecursionError:
            return jsonify(error="the request is nested too deeply"), 400
        except BadRequest as error:
            return jsonify(error=str(error)), 400
        return Response(_lines(answers.stream(name, messages)), mimetype="application/x-ndjson")

    return app


def check_columns(fitted: FittedRun, names: Sequence[str]) -> None:
    """Raises MethodError for a name without a fit, a name twice, or too many names."""
    for name in names:
        fitted.check(name)
    if len(set(names)) != len(names) or len(names) > MOST_COLUMNS:
        raise MethodError(f"method={','.join(names)}: name up to {MOST_COLUMNS} different methods for the page")


def open_server(app: Flask, port: int) -> BaseWSGIServer:
    """Listens on this machine alone; port 0: any that is free. Raises MethodError where that cannot be."""
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise MethodError(
            f"port={port}: cannot be opened on {HOST} ({error.strerror}); name another, or 0 for any that is free"
        ) from error
    with listener:  # the server has a copy of its own
        return make_server(HOST, port, app, threaded=True, fd=listener.fileno())


def serve(fitted: FittedRun, names: Sequence[str], port: int) -> None:
    """Until Ctrl-C. Every method is loaded before the page is announced."""
    check_columns(fitted, names)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    answers = Answers(fitted)
    server = open_server(make_app(fitted, names, answers), port)
    try:
        for name in names:
            sys.stderr.write(f"loading {name}\n")
            fitted.method(name)
        with suppress(KeyboardInterrupt):
            sys.stdout.write(f"http://{HOST}:{server.port}/ (Ctrl-C ends it)\n")
            sys.stdout.flush()
            server.serve_forever()
    finally:
        answers.close()
        server.server_close()
