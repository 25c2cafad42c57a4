"""What plays: one sound at a time, with a button that shows it and stops it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile as sf
from playwright.sync_api import Browser, Page, expect

from service.settings import Settings
from tests.page.conftest import Visit, check_accessible, watching
from tests.service.conftest import serving
from tests.signals import tone

pytestmark = pytest.mark.browser

# Every media element that was asked to play, on the page or not.
KNOWS_ALL = """window.all = new Set();
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () { all.add(this); return play.call(this); };"""

# As in Safari, where a press counts for a moment alone: what is decoded meanwhile may not play.
FORGETS_THE_PRESS = """const play = HTMLMediaElement.prototype.play;
let isFirst = true;
HTMLMediaElement.prototype.play = function () {
  const isForgotten = isFirst && this.src.startsWith("blob:");
  if (isForgotten) isFirst = false;
  return isForgotten ? Promise.reject(new DOMException("no", "NotAllowedError")) : play.call(this);
};"""


@pytest.fixture
def page(browser: Browser, served: Path, tmp_path: Path) -> Iterator[Page]:
    """A collection with two recordings of half a minute."""
    settings = Settings(models=served, threads=1, data=tmp_path / "data")
    with serving(settings) as http, watching(browser, str(http.base_url)) as visit:
        http.put("/v1/collections/street", json={"granularity": "clip", "keeps_audio": True})
        page = visit()
        page.add_init_script(KNOWS_ALL)
        page.goto(f"{page.url}#collections")
        page.reload()
        page.locator("#add-files").set_input_files(long_clips(tmp_path))
        expect(page.locator("[aria-label=Items] li")).to_have_count(2)
        yield page


def long_clips(folder: Path) -> list[Path]:
    paths = [folder / f"clip-{number}.wav" for number in range(2)]
    for number, path in enumerate(paths):
        sf.write(path, tone(500 + 40 * number, 30.0), 16_000)
    return paths


def n_playing(page: Page) -> int:
    return int(page.evaluate("[...all].filter((one) => !one.paused).length"))


def test_a_button_shows_that_its_sound_plays_and_stops_it(page: Page) -> None:
    first, second = page.get_by_role("button", name="Play clip-").all()
    expect(first).to_have_attribute("aria-pressed", "false")
    first.click()
    expect(first).to_have_attribute("aria-pressed", "true")
    page.locator("#label-names").fill("bell")
    page.locator(".legend").get_by_role("button", name="bell").click()  # draws the items anew
    expect(page.locator("[aria-label=Items] .good").first).to_have_text("bell")
    expect(first).to_have_attribute("aria-pressed", "true")
    check_accessible(page)
    second.click()
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(first).to_have_attribute("aria-pressed", "false")
    assert n_playing(page) == 1
    second.click()
    expect(second).to_have_attribute("aria-pressed", "false")
    assert n_playing(page) == 0


def test_a_button_is_off_again_when_its_sound_has_ended(page: Page) -> None:
    play = page.get_by_role("button", name="Play clip-0.wav")
    play.click()
    expect(play).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#status")).to_have_text("Playing clip-0.wav.")  # it is loaded
    page.evaluate("for (const one of all) one.currentTime = one.duration - 0.1")
    expect(play).to_have_attribute("aria-pressed", "false")


def test_one_sound_plays_at_a_time_in_all_views(page: Page, tmp_path: Path) -> None:
    page.get_by_role("button", name="Play clip-0.wav").click()
    expect(page.locator("#status")).to_have_text("Playing clip-0.wav.")
    page.get_by_role("link", name="Listen").click()
    assert n_playing(page) == 0
    page.locator("#files").set_input_files(long_clips(tmp_path))
    page.locator("#sound").get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    assert n_playing(page) == 1
    page.get_by_role("link", name="Compare").click()
    assert n_playing(page) == 0
    expect(page.locator(".matrix")).to_be_visible()
    like = page.locator(".matrix td button").first
    like.click()
    expect(like).to_have_attribute("aria-pressed", "true")
    assert n_playing(page) == 1


def test_what_plays_is_silent_while_the_microphone_is_recorded(visit: Visit, clip: Path) -> None:
    page = visit()
    page.add_init_script(KNOWS_ALL)
    page.reload()
    sf.write(clip, tone(440, 30.0), 16_000)
    page.locator("#files").set_input_files(clip)
    page.locator("#sound").get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("button", name="Stop recording")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    assert n_playing(page) == 0


@pytest.mark.parametrize("view", ["", "#collections"])
def test_a_press_that_a_browser_has_forgotten_is_asked_for_again(page: Page, view: str) -> None:
    page.add_init_script(FORGETS_THE_PRESS)
    page.goto(f"{page.url.partition('#')[0]}{view}")
    page.reload()
    if view:
        play = page.get_by_role("button", name="Play clip-0.wav")
    else:
        page.get_by_role("button", name="clap").click()
        play = page.locator("#sound").get_by_role("button", name="Play")
    play.click()
    expect(page.locator("#status")).to_contain_text("press Play again")
    play.click()
    playing = (
        page.get_by_role("button", name="Pause")
        if not view
        else page.locator("[aria-pressed=true]")
    )
    expect(playing.first).to_be_visible()
