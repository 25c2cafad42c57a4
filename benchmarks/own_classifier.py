"""To a classifier of one's own: seconds, clicks and keys on the page, lines of code.

    python benchmarks/own_classifier.py

On the page, in Chromium, as a hand would do it: every click and every key counts, choosing files in
the system's dialog as two clicks. In code, the snippet of `docs/teaching.md`, whose lines are
counted. The seconds are the machine's: reading and listening come on top.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import structlog
from newcomer import KINDS, RATE
from page import browser, service
from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parent.parent
A_KIND = 6  # clips
LABELS = ("beep", "hiss")


@dataclass
class Hand:
    """What somebody does to a page, counted."""

    page: Page
    clicks: int = 0
    keys: int = 0

    def click(self, what: Locator) -> None:
        what.click()
        self.clicks += 1

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)
        self.keys += len(text)

    def choose(self, button: str, files: Sequence[Path]) -> None:
        """Press a button that opens a dialog, choose files there, and open them."""
        with self.page.expect_file_chooser() as chooser:
            self.click(self.page.get_by_text(button, exact=True))
        chooser.value.set_files(files)
        self.clicks += 2


def main() -> None:
    """Do both, and print a table."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as address:
        files = clips(Path(folder))
        with browser() as chromium:
            page = chromium.new_page()
            page.set_default_timeout(300_000)
            page.goto(address)
            started = time.perf_counter()
            hand = by_hand(page, files)
            on_page_s = time.perf_counter() - started
        n_lines, in_code_s = in_code(address)
    print("| | seconds | by hand |\n|---|---|---|")
    print(f"| on the page, {len(files)} clips | {on_page_s:.0f} | ", end="")
    print(f"{hand.clicks} clicks, {hand.keys} keys, {len(files)} of them labels |")
    print(f"| in code | {in_code_s:.0f} | {n_lines} lines |")


def clips(folder: Path) -> list[Path]:
    """Clips of two kinds, named after these."""
    rng, paths = np.random.default_rng(0), []
    for number in range(A_KIND):
        for label in LABELS:
            paths.append(folder / f"{label}-{number}.wav")
            samples = KINDS[label](np.arange(RATE) / RATE, rng)
            sf.write(paths[-1], 0.3 * samples / np.abs(samples).max(), RATE)
    return paths


def by_hand(page: Page, files: Sequence[Path]) -> Hand:
    """Make a collection, fill and label it, teach, and try the classifier on a file."""
    hand = Hand(page)
    hand.click(page.get_by_role("link", name="Collections"))
    hand.click(page.locator("#new-name"))
    hand.type("street")
    hand.click(page.get_by_role("button", name="Make", exact=True))
    page.locator("#collection h2").wait_for()
    hand.choose("Add files", files)
    page.get_by_text(f"{len(files)} recordings").wait_for()
    hand.click(page.get_by_label("Labels", exact=True))
    hand.type(", ".join(LABELS))
    items = page.locator("[aria-label=Items] li")
    hand.click(items.first.locator("strong"))
    for number in range(len(files)):
        name = items.nth(number).locator("strong").inner_text()
        hand.type(str(1 + LABELS.index(name.partition("-")[0])))
        items.nth(number).locator(".good:not(:empty)").wait_for()
    hand.click(page.get_by_role("button", name="Teach"))
    page.get_by_text("answers now").wait_for()
    hand.choose("Try it on a file", files[:1])
    page.locator("#collection .bars").wait_for()
    return hand


def in_code(address: str) -> tuple[int, float]:
    """The lines of the snippet, and the seconds that it takes."""
    text = (ROOT / "docs" / "teaching.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    command = [sys.executable, "-c", snippet.replace("http://127.0.0.1:8000", address)]
    started = time.perf_counter()
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=env)
    return len([line for line in snippet.splitlines() if line]), time.perf_counter() - started


if __name__ == "__main__":
    main()
