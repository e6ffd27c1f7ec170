"""Who writes and answers questions: a server that speaks OpenAI's chat completions protocol, or a model here.

The key of a server comes from the environment variable OPENAI_API_KEY. It is sent in one header and stands nowhere
else: in no file, no line that is shown and no error. A model of this machine runs in a process of its own, since
tasks know no models: `python -m pipelines.writer` answers a line of JSON with a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import httpx

from tasks.base import Message, TaskError

KEY_VARIABLE = "OPENAI_API_KEY"
TRIES = 4
WAIT_S = 2.0  # before the second try; doubled before each further one
MOST_WAIT_S = 60.0  # whatever a server asks for
TIMEOUT_S = 120.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Reply(NamedTuple):
    text: str
    prompt_tokens: int
    new_tokens: int


class Away(TaskError):
    """The writer cannot be reached, or does not speak the protocol: what was done is kept."""


class Writer(Protocol):
    """Something that goes on from messages."""

    name: str  # of the model, as the files that it wrote bear it

    def reply(self, messages: Sequence[Message], max_new_tokens: int) -> Reply:
        """Raises Away where no reply can be had."""
        ...

    def close(self) -> None: ...


def is_address(model: str) -> bool:
    return model.startswith(("http://", "https://"))


def writer_for(model: str, name: str = "") -> Writer:
    """The writer that a person names: an address, or a model as the other commands take it."""
    return Server(model, name) if is_address(model) else Process(model)


class Server:
    """A server that speaks OpenAI's protocol, e.g. llama.cpp's, vLLM's, Ollama's, or a company's."""

    def __init__(self, address: str, name: str = "") -> None:
        """address: with /v1 where the server has it. name: of the model; "": the one that the server lists.

        Raises TaskError for an address that is none, Away for a server that does not answer.
        """
        try:
            parts = urlsplit(address)
            self.host = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
        except ValueError as error:
            raise TaskError("model=: this is no address; write http(s)://host:port/v1") from error
        if not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
            raise TaskError(
                f"model=: an address is http(s)://host:port/v1 and no more; a key goes into {KEY_VARIABLE}"
            )
        key = os.environ.get(KEY_VARIABLE, "").strip()
        safe = parts.scheme == "https" or parts.hostname in _LOOPBACK
        if key and not (key.isascii() and key.isprintable()):
            raise TaskError(f"{KEY_VARIABLE} holds something that is no key; set it again")
        self._key_kept_back = bool(key) and not safe
        path = parts.path.rstrip("/").removesuffix("/chat/completions")
        self._client = httpx.Client(
            base_url=f"{parts.scheme}://{parts.netloc}{path}/",
            headers={"Authorization": f"Bearer {key}"} if key and safe else {},
            timeout=TIMEOUT_S,
            trust_env=parts.hostname not in _LOOPBACK,
        )
        self.name = name or self._only_model()

    def _only_model(self) -> str:
        body = self._asked("GET", "models")
        listed = body.get("data") if isinstance(body, dict) else None
        names = [str(one["id"]) for one in listed or () if isinstance(one, dict) and one.get("id")]
        if len(names) == 1:
            return names[0]
        choice = f"it has {', '.join(names[:8])}" if names else "it lists none"
        raise TaskError(f"say which model of {self.host} is meant with name=...; {choice}")

    def reply(self, messages: Sequence[Message], max_new_tokens: int) -> Reply:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        body = self._asked(
            "POST",
            "chat/completions",
            {"model": self.name, "messages": chat, "max_tokens": max_new_tokens, "temperature": 0},
        )
        try:
            text = body["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise Away(f"{self.host} answers, but not as OpenAI's protocol says; check the address (.../v1)")
        used = body.get("usage")
        counts = used if isinstance(used, dict) else {}
        asked, said = counts.get("prompt_tokens"), counts.get("completion_tokens")
        return Reply(
            text,
            asked if isinstance(asked, int) else sum(len(m.content) for m in messages) // 4,
            said if isinstance(said, int) else len(text) // 4,
        )

    def _asked(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of a reply; tries again where that may help. No error repeats what the server said."""
        said = ""
        for attempt in range(TRIES):
            wait = WAIT_S * 2**attempt
            try:
                response = self._client.request(method, path, json=body)
                if response.status_code == 200:
                    return response.json()
                said = f"answered with status {response.status_code}"
                if response.status_code not in (408, 409, 425, 429) and response.status_code < 500:
                    break
                asked = response.headers.get("retry-after", "")
                wait = max(wait, float(asked)) if asked.isdigit() else wait
            except httpx.TimeoutException:
                said = f"did not answer within {TIMEOUT_S:g} s"
            except httpx.InvalidURL:
                raise TaskError("model=: this is no address; write http(s)://host:port/v1") from None
            except httpx.HTTPError as error:
                said = f"cannot be reached or broke off ({type(error).__name__})"
            except ValueError:
                said = "answered with something that is no JSON"
            if attempt + 1 < TRIES:
                time.sleep(min(wait, MOST_WAIT_S))
        hints = {
            "401": f"; set {KEY_VARIABLE}",
            "403": f"; set {KEY_VARIABLE}",
            "404": "; check the address (.../v1) and name=...",
        }
        hint = hints.get(said[-3:], "")
        if hint and self._key_kept_back:
            hint = "; a key is sent over https only"
        raise Away(f"{self.host} {said}{hint}")

    def close(self) -> None:
        self._client.close()


class Process:
    """A model of this machine, in a process of its own."""

    def __init__(self, model: str, command: Sequence[str] = ()) -> None:
        self.name = model
        self._process = subprocess.Popen(
            [*(command or (sys.executable, "-m", "pipelines.writer")), f"model={model}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def reply(self, messages: Sequence[Message], max_new_tokens: int) -> Reply:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"messages": chat, "max_new_tokens": max_new_tokens}) + "\n")
            self._process.stdin.flush()
            body = json.loads(self._process.stdout.readline())
            if "error" in body:
                raise Away(str(body["error"]))
            return Reply(str(body["text"]), int(body["prompt_tokens"]), int(body["new_tokens"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, TaskError):
                raise
            raise Away(f"model={self.name}: its process ended (status {self._process.poll()})") from error

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
