"""What the browser tests share: sizes and colours of a page, waiting for words, programs that serve pages."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parents[2]
START_S = 900.0  # a server's start; on a machine at work on something else, minutes
WAIT_S = 400.0  # a page, or what a click brings
Picture = Callable[[str], None]  # keeps what the page shows under a name


@dataclass(frozen=True)
class Shown:
    """The run whose pages are opened."""

    folder: Path
    mlflow_uri: str
    chat: tuple[str, ...]  # the program that serves its chat page
    real: bool  # --show-run: answers are the run's own, not scripted


def size_of(browser: Chrome, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def colours_of(browser: Chrome, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def visible_text(browser: Chrome) -> str:
    return str(browser.execute_script("return document.body.innerText"))


def wait_for(browser: Chrome, *texts: str, seconds: float = WAIT_S) -> None:
    """Until all of the texts can be read on the page."""
    missing: Sequence[str] = texts

    def all_there(_browser: Chrome) -> bool:
        nonlocal missing
        seen = visible_text(browser)
        missing = [text for text in texts if text not in seen]
        return not missing

    with contextlib.suppress(TimeoutException):
        WebDriverWait(browser, seconds, poll_frequency=0.2).until(all_there)
    assert missing == [], visible_text(browser)[:2000]


# The least contrast (WCAG 2.2, 1.4.3) of any text on the page: [ratio, the text]. Drawings have a white card.
_CONTRAST = """
const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = rgb => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
const parts = text => text.match(/[\\d.]+/g).map(Number);
let least = [21, ""];
for (const node of document.body.querySelectorAll("*")) {
  const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
  if (!own || node.closest("svg, [hidden], :disabled, script, style")) continue;
  let below = node, back = [0, 0, 0, 0];
  while (below && (back.length === 4 && back[3] === 0)) {
    back = parts(getComputedStyle(below).backgroundColor);
    below = below.parentElement;
  }
  if (back.length === 4 && back[3] === 0) back = [255, 255, 255];
  const [a, b] = [light(parts(getComputedStyle(node).color)), light(back)];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < least[0]) least = [ratio, node.tagName + " " + node.textContent.trim().slice(0, 60)];
}
return least;
"""


def least_contrast(browser: Chrome) -> tuple[float, str]:
    """The ratio of the text that is hardest to tell from its background, and that text."""
    ratio, text = browser.execute_script(_CONTRAST)
    return float(ratio), str(text)


def overflow(browser: Chrome) -> int:
    """Pixels by which the page is wider than the window."""
    root = "document.documentElement"
    return int(browser.execute_script(f"return {root}.scrollWidth - {root}.clientWidth"))


def scroll_to(browser: Chrome, selector: str) -> Any:
    """Brings an element to the top of the window, at once."""
    script = "document.querySelector(arguments[0]).scrollIntoView({behavior: 'instant', block: 'start'})"
    return browser.execute_script(script, selector)


@contextlib.contextmanager
def served(words: Sequence[str], folder: Path, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs until the end of the block, its output in `log`.

    It stays in the tests' process group: a signal that ends them all reaches it too.
    """
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "pipelines")))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **variables}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            family: list[psutil.Process] = []
            with contextlib.suppress(psutil.NoSuchProcess):
                own = psutil.Process(process.pid)
                family = [*own.children(recursive=True), own]
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.terminate()
            for member in psutil.wait_procs(family, timeout=20)[1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()


def until(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], str]) -> str:
    """What `ready` finds, asked until it finds something."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise AssertionError(f"{process.args!r} did not start: {log.read_text(errors='replace')[-3000:]}")
