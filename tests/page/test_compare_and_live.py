"""Several sounds beside each other, and the microphone while it is heard."""

import json
from pathlib import Path

import pytest
import soundfile as sf
from playwright.sync_api import expect

from tests.page.conftest import ROOT, Visit, check_accessible, pasted
from tests.signals import noise, tone

pytestmark = pytest.mark.browser
SAMPLES = ROOT / "samples"


def test_alike_sounds_lie_together_and_a_click_plays(visit: Visit, tmp_path: Path) -> None:
    paths = []
    for number in range(100):
        paths.append(tmp_path / f"{'tone' if number % 2 else 'noise'}-{number:02}.wav")
        sound = tone(300 + number, 0.3) if number % 2 else noise(0.3, seed=number)
        sf.write(paths[-1], sound, 16_000)
    page = visit("#compare")
    page.locator("#files").evaluate("e => { e.hidden = false }")
    page.locator("#files").set_input_files(paths)
    canvas = page.locator(".map")
    expect(canvas).to_be_visible(timeout=120_000)
    canvas.click(position={"x": 100, "y": 100})
    expect(page.locator("#comparison p[role=status]")).to_contain_text(".wav")
    expect(page.locator("#status")).to_contain_text("Playing")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("Playing")
    like = page.locator(".matrix tbody tr").first.locator("td button")
    assert float(like.nth(2).inner_text()) > float(like.nth(1).inner_text())
    check_accessible(page)


def test_what_the_comparison_copies_asks_for_every_sound(visit: Visit, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("low.wav", 'high; "loud".wav', "notes.wav")]
    for path, pitch in zip(paths[:2], (200, 2000), strict=True):
        sf.write(path, tone(pitch, 0.3), 16_000)
    paths[2].write_text("no sound at all")
    page = visit("#compare")
    page.locator("#files").set_input_files(paths)
    expect(page.locator(".failures li")).to_contain_text("notes.wav Audio format not recognised")
    printed = pasted(
        page.locator("#comparison").get_by_role("group", name="Copy as code"), tmp_path
    )
    assert printed["curl"].count('"duration_s"') == 2
    assert printed["Python"].count("[") == 3  # a matrix of two rows
    assert printed.get("JavaScript", "space_id " * 2).count("space_id") == 2


def test_what_the_live_view_copies_runs_when_it_is_pasted(visit: Visit) -> None:
    page = visit("#live")
    expect(page.locator("#live-head option").first).to_be_attached()
    for kind, said in pasted(page.get_by_role("group", name="Copy as code"), SAMPLES).items():
        assert len(said.splitlines()) >= 2, (kind, said)  # a line a hop


def test_the_microphone_is_labelled_while_it_is_heard(visit: Visit) -> None:
    page = visit("#live")
    page.get_by_role("button", name="Listen").click()
    expect(page.locator("#stream .bars li").first).to_be_visible()
    expect(page.locator("#stream .u-wrap")).to_be_visible()
    check_accessible(page)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Listen")).to_be_visible()


def test_who_listens_again_begins_anew_and_who_leaves_the_view_is_not_heard(visit: Visit) -> None:
    page = visit("#live")
    listen = page.get_by_role("button", name="Listen")
    stop = page.get_by_role("button", name="Stop")
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    listen.dblclick()
    expect(page.locator("#stream .bars li").first).to_be_visible()
    stop.dispatch_event("click", {"detail": 2})  # the other half of a double click, late
    expect(stop).to_be_visible()
    assert len(sockets) == 1
    page.wait_for_timeout(2000)
    stop.click()
    listen.click()
    expect(page.locator("#stream .bars li").first).to_be_visible()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download JSON").last.click()
    heard = json.loads(saved.value.path().read_text())
    starts = [window["start_s"] for window in heard]
    assert starts == sorted(set(starts))
    page.get_by_role("link", name="Listen").click()
    page.get_by_role("link", name="Live").click()
    expect(listen).to_be_visible()


def test_where_browsers_give_no_microphone_the_page_says_why(visit: Visit) -> None:
    page = visit("#live")
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    page.get_by_role("button", name="Listen").click()
    expect(page.get_by_role("alert")).to_contain_text("open this page by https://")
    page.get_by_role("link", name="Listen").click()
    page.get_by_role("button", name="Record from the microphone").click()
    expect(page.locator("#status")).to_contain_text("open this page by https://")


def test_what_is_no_longer_shown_of_a_live_stream_is_let_go(visit: Visit) -> None:
    """A chart that is not destroyed stays in memory: some megabytes a second."""
    page = visit("#live")
    page.evaluate(
        """() => {
        const Plot = uPlot;
        window.charts = { made: 0, gone: 0 };
        window.uPlot = function (...given) {
          const made = new Plot(...given);
          const { destroy } = made;
          charts.made++;
          made.destroy = () => { charts.gone++; destroy(); };
          return made;
        };
        }"""
    )
    page.get_by_role("button", name="Listen").click()
    page.wait_for_function("() => charts.made > 2")
    page.get_by_role("button", name="Stop").click()
    assert page.evaluate("charts.made - charts.gone") == 1


def test_a_microphone_that_is_unplugged_is_told(visit: Visit) -> None:
    page = visit("#live")
    page.evaluate(
        """() => {
        const devices = navigator.mediaDevices;
        const get = devices.getUserMedia.bind(devices);
        devices.getUserMedia = async (wanted) => (window.heard = await get(wanted));
        }"""
    )
    page.get_by_role("button", name="Listen").click()
    expect(page.locator("#stream .bars li").first).to_be_visible()
    page.evaluate("heard.getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(page.locator("#stream").get_by_role("alert")).to_contain_text("The microphone is gone")
    expect(page.get_by_role("button", name="Listen")).to_be_visible()
