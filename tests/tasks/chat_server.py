"""A small server on loopback that speaks OpenAI's chat completions protocol, and can misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answers = Callable[[str], str]  # a prompt -> what the model says


class ChatServer:
    """faults: what happens to the next requests, one each: a status, "slow", "cut", "nonsense", "no choices"."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.faults: list[int | str] = []
        self.always: int | str | None = None
        self.prompts: list[str] = []
        self.keys: list[str | None] = []
        self.models = ["small"]
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                return

            def do_GET(self) -> None:
                self.send(200, json.dumps({"data": [{"id": name} for name in server.models]}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.keys.append(self.headers.get("Authorization"))
                fault = server.faults.pop(0) if server.faults else server.always
                if isinstance(fault, int):
                    self.send(fault, f"no: {self.headers.get('Authorization')}")  # some servers repeat the key
                elif fault == "slow":
                    time.sleep(1.5)
                    self.send(200, "{}")
                elif fault == "nonsense":
                    self.send(200, "<html>welcome</html>")
                elif fault == "no choices":
                    self.send(200, json.dumps({"choices": []}))
                else:
                    prompt = body["messages"][-1]["content"]
                    server.prompts.append(prompt)
                    said = {"choices": [{"message": {"role": "assistant", "content": server.answers(prompt)}}]}
                    self.send(
                        200, json.dumps(said | {"usage": {"prompt_tokens": 100, "completion_tokens": 10}}), fault
                    )

            def send(self, status: int, text: str, fault: Any = None) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                whole = text.encode()
                try:
                    self.wfile.write(whole[: len(whole) // 2] if fault == "cut" else whole)
                except OSError:
                    return
                self.close_connection = True

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


@contextmanager
def serving(answers: Answers) -> Iterator[ChatServer]:
    server = ChatServer(answers)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
