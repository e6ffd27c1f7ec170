"""`python -m pipelines.chat` on a model that says, whatever it is asked: a think, one recall, the answer 42."""

from __future__ import annotations

import pytest
from commands import said_by_every_method
from lively import enlivened

from methods.backbone import load_backbone
from pipelines import chat

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        said_by_every_method(patch, enlivened(load_backbone("tiny", device="cpu", dtype="float32")))
        chat.main()
