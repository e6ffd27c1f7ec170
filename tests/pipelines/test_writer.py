"""A model here answers chats a line at a time; what cannot be answered is said in a line too."""

from __future__ import annotations

import json

from pipelines.writer import replies


def line(content: str, max_new_tokens: int) -> str:
    return json.dumps({"messages": [{"role": "user", "content": content}], "max_new_tokens": max_new_tokens})


def test_each_line_is_answered() -> None:
    short, long, same = replies([line("Hello?", 3), line("x" * 9000, 3), line("Hello?", 3)], "tiny")
    assert short == same and 0 < short["new_tokens"] <= 3 and short["prompt_tokens"] > 6
    assert "<" not in short["text"]
    assert "its window" in long["error"]


def test_an_unknown_model_is_one_line() -> None:
    (said,) = replies([line("Hello?", 3)], "/no/such/model")
    assert said["error"].startswith("model=/no/such/model: ") and "\n" not in said["error"]
