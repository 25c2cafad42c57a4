"""The page in a real browser, before the encoder that ships; every test also looks for trouble."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile as sf
import structlog
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from models.modelfile import PRETRAINED
from service.settings import Settings
from tests.service.conftest import serving
from tests.signals import tone

ROOT = Path(__file__).parents[2]
AXE = Path(__file__).with_name("axe.min.js")  # axe-core 4.14.1
SERIOUS = ("serious", "critical")
EXPECTED = "Failed to load resource"  # Chromium's line for every answer other than 2xx

Visit = Callable[..., Page]

expect.set_options(timeout=180_000)  # a machine may be busy


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    """Log lines go nowhere."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the default encoder and both classifiers, without those in eight bits."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("default", "sounds-10", "spoken-digits"):
        (folder / f"{name}.onnx").symlink_to(PRETRAINED / f"{name}.onnx")
    return folder


@pytest.fixture(scope="session")
def address(served: Path) -> Iterator[str]:
    with serving(Settings(models=served, threads=1)) as http:
        yield str(http.base_url)


@pytest.fixture(scope="session")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser takes for a microphone: a tone, again and again."""
    path = tmp_path_factory.mktemp("microphone") / "heard.wav"
    sf.write(path, tone(440, 3.0, rate=48_000), 48_000)
    return path


@pytest.fixture(scope="module")
def browser(microphone: Path) -> Iterator[Browser]:
    """Closed with each file: while it is open, Playwright's event loop keeps out all others."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[
                "--no-sandbox",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}",
                "--autoplay-policy=no-user-gesture-required",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Open the page; at the end nothing was said on the console and nothing asked for elsewhere."""
    with watching(browser, address) as visit:
        yield visit


@contextmanager
def watching(browser: Browser, address: str) -> Iterator[Visit]:
    complaints: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_page(view: str = "", at: str = address, **options: Any) -> Page:
        context = browser.new_context(permissions=["microphone"], **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(180_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if _is_bad(line) else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{at.rstrip('/')}/{view}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith(("blob:", "data:"))}
    assert hosts == {"127.0.0.1"}


def _is_bad(line: Any) -> bool:
    """A complaint about the page; axe-core, which a test puts there, has no address of its own."""
    is_expected = line.text.startswith(EXPECTED) or not line.location["url"]
    return line.type in ("error", "warning") and not is_expected


def check_accessible(page: Page) -> None:
    """No finding of axe-core that is serious."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    told = [
        f"{violation['id']}: {[node['html'][:200] for node in violation['nodes'][:3]]}"
        for violation in found
        if violation["impact"] in SERIOUS
    ]
    assert told == []


def pasted(group: Locator, folder: Path, **variables: str) -> dict[str, str]:
    """Copy what a group of buttons copies, paste it into shells in `folder`: what they print."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    shells = {"curl": ["bash", "-c"], "Python": [sys.executable, "-c"]}
    if shutil.which("node"):  # before version 22 it has sockets only when it is asked to
        shells["JavaScript"] = ["node", "--experimental-websocket", "--input-type=module", "-e"]
    printed = {}
    for kind, shell in shells.items():
        group.get_by_role("button", name=kind).click()
        said = group.locator("pre").inner_text()
        run = subprocess.run([*shell, said], cwd=folder, env=env, capture_output=True, text=True)
        assert run.returncode == 0, (said, run.stderr)
        assert '"status":4' not in run.stdout, (said, run.stdout)
        assert "status: 4" not in run.stdout, (said, run.stdout)
        printed[kind] = run.stdout
    return printed


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a clip.wav"
    sf.write(path, tone(440, 2.0), 16_000)
    return path


def write_hour(path: Path) -> Path:
    """An hour at 8 kHz, loud once a minute."""
    minute = np.zeros(60 * 8000, np.int16)
    minute[:8000] = (tone(500, 1.0, rate=8000) * 32_767).astype(np.int16)
    with sf.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        for _ in range(60):
            file.write(minute)
    return path
