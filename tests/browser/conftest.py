"""A headless Chromium, and what it opens: a finished run's report, `mlflow ui` on its store, its chat page.

    python -m pytest tests/browser --screenshots docs/img [--show-run runs/latest]

writes the pictures that the README shows, of the tests' own small run or of a real one.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import ROOT, WAIT_S, Picture, Shown, colours_of, served, size_of, until
from commands import Finished
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing outside this machine is reached
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)


# What MLflow's pages log with any run: they ask for accounts that are off, and call their table in old words.
MLFLOWS_OWN = ("/mlflow/users/current", "AG Grid: since", "ResizeObserver loop completed")


@pytest.fixture(scope="session")
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = request.config.getoption("--show-run")
    if folder is None:
        finished: Finished = request.getfixturevalue("finished")
        program = (str(Path(__file__).with_name("speaking_chat.py")),)
        return Shown(finished.folder, finished.mlflow_uri, program, False)
    from reports.mlflow_log import log_comparison
    from reports.saved import read_run

    folder = Path(folder).resolve()
    uri = f"sqlite:///{tmp_path_factory.mktemp('store').as_posix()}/mlflow.db"
    log_comparison(read_run(folder), tracking_uri=uri)
    return Shown(folder, uri, ("-m", "pipelines.chat"), True)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests; skips them where there is none."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip(
            "no browser: tests/browser needs chromium and chromedriver (Debian: chromium, chromium-driver)"
        )
    options = ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setenv("SE_OFFLINE", "true")  # selenium looks for no driver of its own
        chrome = Chrome(options, Service(executable_path=driver))
        chrome.set_page_load_timeout(WAIT_S)
        yield chrome
        chrome.quit()


@pytest.fixture
def page(browser: Chrome) -> Iterator[Chrome]:
    """The browser on an empty tab of a laptop's size, in light colours; afterwards its console must be clean."""
    browser.get("about:blank")
    browser.get_log("browser")  # of the page before
    size_of(browser, 1280, 900)
    colours_of(browser, "light")
    yield browser
    logged = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert [text for text in logged if not any(known in text for known in MLFLOWS_OWN)] == []


@pytest.fixture
def picture(request: pytest.FixtureRequest, browser: Chrome) -> Picture:
    """Keeps what the page shows as <name>.png, at most 256 colours; does nothing without --screenshots."""
    folder = request.config.getoption("--screenshots")

    def keep(name: str) -> None:
        if folder is None:
            return
        image = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB").quantize(256)
        Path(folder).mkdir(parents=True, exist_ok=True)
        image.save(Path(folder) / f"{name}.png", optimize=True)

    return keep


@pytest.fixture(scope="session")
def mlflow_ui(shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address: the command that a finished run prints, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("ui")
    words = ["-m", "mlflow", "ui", "--workers", "1", "--port", str(port), "--backend-store-uri", shown.mlflow_uri]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    address, log = f"http://127.0.0.1:{port}", folder / "log"

    def ready() -> str:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5) as response:
                return address if response.status == 200 else ""
        except OSError:
            return ""

    with served(words, folder, log, **quiet) as process:
        yield until(process, log, ready)


@pytest.fixture(scope="session")
def chat_page(browser: Chrome, shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that `python -m pipelines.chat --web` prints. browser: skips before anything is started."""
    folder = tmp_path_factory.mktemp("chat")
    log = folder / "log"
    words = [*shown.chat, "--web", f"run={shown.folder}", "port=0", "device=cpu"]

    def ready() -> str:
        found = re.search(r"http://127\.0\.0\.1:\d+/", log.read_text(errors="replace"))
        return found.group() if found else ""

    with served(words, ROOT, log) as process:
        yield until(process, log, ready)
