"""The page in Chromium: bytes, first paint, from a drop to a prediction, the memory of an hour.

    python benchmarks/page.py                       # a table
    python benchmarks/page.py --runs 3 --minutes 5  # a small one
    python benchmarks/page.py --shots docs/page     # and pictures of every view

From drop to prediction is set beside the request's own time, as the service counts it, so that what
the page adds can be told. The service is the one that ships, on one thread, in this process.
"""

import argparse
import gzip
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import structlog
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from models.modelfile import PRETRAINED
from service.app import create_app
from service.settings import Settings

WEB = Path(__file__).parent.parent / "service" / "web"
SERVED = (".html", ".css", ".js", ".svg")
DESK, PHONE = {"width": 1000, "height": 800}, {"width": 390, "height": 844}
SAMPLES = ("saxophone", "speech", "clap", "drone")


def main() -> None:
    """Measure, print, and draw."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=15)
    arguments.add_argument("--minutes", type=int, default=60, help="of the long recording")
    arguments.add_argument("--shots", type=Path, help="a folder for pictures of every view")
    given = arguments.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as address, browser() as b:
        print(f"bytes in gzip: {in_gzip()}")
        print(f"first paint: {spread([first_paint(b, address) for _ in range(given.runs)])} ms")
        clip = noise_file(Path(folder) / "clip.wav", 10)
        pairs = [drop(b, address, clip) for _ in range(given.runs)]
        print(f"drop to first prediction, 10 s: {spread([pair[0] for pair in pairs])} ms")
        print(f"  of it the request, as the service counts: {spread([p[1] for p in pairs])} ms")
        long = noise_file(Path(folder) / "long.wav", 60 * given.minutes)
        print(f"{given.minutes} minutes: {scroll(b, address, long)}")
        if given.shots:
            given.shots.mkdir(parents=True, exist_ok=True)
            shots(b, address, given.shots, Path(folder))


def in_gzip() -> int:
    """All files of the page, each in gzip."""
    files = [path for name in ("page", "vendor") for path in (WEB / name).rglob("*")]
    return sum(len(gzip.compress(p.read_bytes())) for p in files if p.suffix in SERVED)


def first_paint(browser: Browser, address: str) -> float:
    """Milliseconds to the first contentful paint, with an empty cache."""
    page = opened(browser, address)
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    found = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.context.close()
    return float(found)


def drop(browser: Browser, address: str, clip: Path) -> tuple[float, float]:
    """Milliseconds from the drop to the first bars, and those that the service counts of it."""
    page = opened(browser, address)
    page.wait_for_load_state("networkidle")
    with page.expect_response(lambda answer: "analyze" in answer.url) as answered:
        started = time.perf_counter()
        page.locator("#files").set_input_files(clip)
        page.wait_for_selector(".bars")
        took_ms = 1000 * (time.perf_counter() - started)
    stages = answered.value.headers["server-timing"].split(",")
    page.context.close()
    return took_ms, sum(float(stage.rpartition("dur=")[2]) for stage in stages)


def scroll(browser: Browser, address: str, long: Path) -> str:
    """The tab's memory in JavaScript, and the service's, before and after scrolling through it."""
    page = opened(browser, address)
    before = resident_mb()
    started = time.perf_counter()
    page.locator("#files").set_input_files(long)
    page.wait_for_selector(".picture")
    shown_s = time.perf_counter() - started
    inside = "document.querySelector('.wave > div').shadowRoot.querySelector('.scroll')"
    for step in range(1, 21):
        page.evaluate(f"{inside}.scrollLeft = {inside}.scrollWidth * {step / 20}")
        page.wait_for_timeout(150)
    page.wait_for_load_state("networkidle")
    heap_mb = page.evaluate("performance.memory.usedJSHeapSize") / 2**20
    page.context.close()
    served = f"service {before:.0f} -> {resident_mb():.0f} MB"
    return f"shown after {shown_s:.1f} s; tab {heap_mb:.0f} MB of JavaScript, {served}"


def resident_mb() -> float:
    """Resident memory of this process, in which the service runs."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def shots(browser: Browser, address: str, out: Path, folder: Path) -> None:
    """A picture of every view."""
    page = opened(browser, address, color_scheme="light", viewport=DESK, device_scale_factor=0.6)
    for name in SAMPLES:
        page.get_by_role("button", name=name, exact=True).click()
        page.wait_for_selector(".u-wrap, .bars")
        page.wait_for_timeout(1500)
    page.get_by_role("button", name="saxophone.opus").click()
    page.wait_for_selector(".u-wrap")
    page.wait_for_timeout(1500)
    picture(page, out / "listen.jpg")
    page.get_by_role("link", name="Compare").click()
    page.wait_for_selector(".matrix")
    page.wait_for_timeout(500)
    picture(page, out / "compare.jpg")
    page.get_by_role("link", name="Live").click()
    page.get_by_role("button", name="Listen").click()
    page.wait_for_selector("#stream .u-wrap")
    page.wait_for_timeout(4000)
    picture(page, out / "live.jpg")
    page.get_by_role("button", name="Stop").click()
    collection(page, folder)
    picture(page, out / "collections.jpg")
    page = opened(browser, address, color_scheme="dark", viewport=PHONE, device_scale_factor=0.8)
    page.get_by_role("button", name="saxophone", exact=True).click()
    page.wait_for_selector(".u-wrap")
    page.wait_for_timeout(1500)
    picture(page, out / "phone.jpg")


def collection(page: Page, folder: Path) -> None:
    """Fill a collection, search in it, label it, and make a classifier."""
    page.get_by_role("link", name="Collections").click()
    page.get_by_label("called").first.fill("street")
    page.get_by_role("button", name="Make", exact=True).click()
    paths = []
    for number in range(6):
        t = np.arange(16_000) / 16_000
        bell = 0.4 * np.sin(2 * np.pi * (900 + 11 * number) * t) * np.exp(-4 * t)
        wind = np.random.default_rng(number).normal(0, 0.05, 16_000)
        for kind, sound in (("bell", bell), ("wind", wind)):
            paths.append(folder / f"{kind}-{number}.wav")
            sf.write(paths[-1], sound, 16_000)
    page.locator("#add-files").set_input_files(paths)
    page.get_by_text("12 recordings").wait_for()
    page.get_by_label("Labels", exact=True).fill("bell, wind")
    page.locator("[aria-label=Items] li").first.focus()
    labelled = page.locator("[aria-label=Items] .good:not(:empty)")
    for number, path in enumerate(paths):
        page.keyboard.press("1" if "bell" in path.name else "2")
        labelled.nth(number).wait_for()
    page.get_by_role("button", name="Teach").click()
    page.get_by_text("answers now").wait_for()
    page.locator("#like-file").set_input_files(paths[0])
    page.locator("[aria-label=Hits] li").first.wait_for()
    page.get_by_role("button", name="Map").click()
    page.locator("#collection .map").wait_for()
    page.wait_for_timeout(500)


def opened(browser: Browser, address: str, **options: Any) -> Page:
    """The page in a context of its own."""
    page = browser.new_context(permissions=["microphone"], **options).new_page()
    page.set_default_timeout(300_000)
    page.goto(address)
    return page


def picture(page: Page, path: Path) -> None:
    """All of the page, small."""
    page.evaluate("scrollTo(0, 0)")  # where what sticks to the top belongs
    page.screenshot(path=path, full_page=True, type="jpeg", quality=55)


def noise_file(path: Path, seconds: int) -> Path:
    """Noise that swells, at 8 kHz if it is long."""
    rate = 16_000 if seconds < 60 else 8000
    random = np.random.default_rng(0)
    with sf.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        for second in range(seconds):
            file.write(random.normal(0, 0.02 + 0.1 * (second % 7 == 0), rate))
    return path


def spread(values: list[float]) -> str:
    """Median, and where the middle half lies."""
    if len(values) < 2:
        return f"{values[0]:.0f}"
    low, _, high = statistics.quantiles(values, n=4)
    return f"{statistics.median(values):.0f} ({low:.0f} to {high:.0f})"


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """The service behind a socket, in a thread."""
    for name in ("default", "sound-kinds", "sounds-10", "spoken-digits"):
        (folder / f"{name}.onnx").symlink_to(PRETRAINED / f"{name}.onnx")
    settings = Settings(models=folder, threads=1, data=folder / "data", fit_timeout_s=600)
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def browser() -> Iterator[Browser]:
    """Debian's Chromium, with a microphone that hears a chime."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        heard = Path(folder) / "heard.wav"
        t = np.arange(96_000) / 48_000
        sf.write(heard, 0.4 * np.sin(2 * np.pi * 700 * t) * np.exp(-2 * t), 48_000)
        found = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[
                "--no-sandbox",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={heard}",
                "--enable-precise-memory-info",
            ],
        )
        yield found
        found.close()


if __name__ == "__main__":
    main()
