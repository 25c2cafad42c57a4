"""One sound on the page: dropped, recorded, refused, long; copied as code that runs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from playwright.sync_api import Browser, Page, Route, expect

from service.settings import Settings
from tests.page.conftest import ROOT, Visit, check_accessible, pasted, watching, write_hour
from tests.service.conftest import serving
from tests.signals import tone

pytestmark = pytest.mark.browser
DRAWN = """() => { const c = document.querySelector('.picture');
return c?.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 200); }"""


def drop(page: Page, *paths: Path) -> None:
    page.locator("#files").set_input_files(list(paths))


def test_a_wav_is_heard_drawn_labelled_and_played(visit: Visit, clip: Path) -> None:
    page = visit()
    drop(page, clip)
    expect(page.locator(".bars").first).to_be_visible()
    expect(page.locator("#status")).to_contain_text("sounds-10")
    expect(page.get_by_text("16 kHz, mono")).to_be_visible()
    expect(page.locator("canvas.track")).to_have_count(2)  # both classifiers over time
    expect(page.locator(".u-wrap")).to_have_count(2)
    page.wait_for_function(DRAWN)
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download JSON").first.click()
    answer = json.loads(saved.value.path().read_text())
    assert answer["data"][0]["file"] == "a clip.wav"
    check_accessible(page)


@pytest.mark.parametrize("name", ["a clip.wav", 'it\'s; "1, 2" \\ 3.wav'])
def test_what_is_copied_runs_when_it_is_pasted(visit: Visit, clip: Path, name: str) -> None:
    page = visit()
    clip = clip.rename(clip.with_name(name))
    drop(page, clip)
    group = page.get_by_role("group", name="Copy as code").first
    expect(group).to_be_visible()
    for kind, printed in pasted(group, clip.parent).items():
        assert "sounds-10" in printed or "classifications" in printed, (kind, printed)


def test_a_part_that_is_asked_for_is_labelled(visit: Visit, clip: Path) -> None:
    page = visit()
    drop(page, clip)
    page.get_by_label("from").fill("0.5")
    page.get_by_label("to", exact=True).fill("1.5")
    with page.expect_request(lambda request: "analyze" in request.url):
        page.get_by_role("button", name="What is in this part?").click()
    expect(page.locator(".bars")).to_have_count(4)


def test_mp3_is_heard_and_played(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    sf.write(path, tone(330, 2.0, rate=44_100), 44_100, format="MP3")
    page = visit()
    drop(page, path)
    expect(page.locator(".bars").first).to_be_visible()
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_what_the_browser_cannot_decode_is_drawn_and_played_as_the_service_hears_it(
    visit: Visit, tmp_path: Path
) -> None:
    path = tmp_path / "tape.aiff"
    sf.write(path, tone(330, 12.0, rate=44_100), 44_100, format="AIFF")
    page = visit()
    drop(page, path)
    expect(page.locator(".bars").first).to_be_visible()
    expect(page.get_by_text("of 12.00 s")).to_be_visible()
    page.wait_for_function(DRAWN)
    expect(page.locator("canvas.track")).to_have_count(2)
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    check_accessible(page)


def test_a_long_recording_that_the_browser_cannot_decode_is_labelled(
    browser: Browser, served: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tape.aiff"
    sf.write(path, np.tile(tone(440, 1.0), 40), 16_000, format="AIFF")
    settings = Settings(models=served, threads=1, max_duration_s=10)
    with serving(settings) as http, watching(browser, str(http.base_url)) as visit:
        page = visit()
        held: list[Route] = []
        page.route("**/v1/classifiers", lambda route: held.append(route))
        with page.expect_request("**/v1/classifiers"):
            drop(page, path)
        start = page.get_by_role("button", name="Label all of it")
        expect(start).to_be_disabled()  # there is nothing to label by yet
        held.pop().continue_()
        start.click()
        expect(page.locator("#status")).to_contain_text("Heard 40.00 s of 40.00 s")
        expect(page.locator(".bars")).to_have_count(2)


def test_samples_need_no_file(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="speech").click()
    expect(page.get_by_role("heading", name="speech.opus")).to_be_visible()
    expect(page.locator(".bars").first).to_be_visible()


def test_what_is_no_sound_is_refused_in_the_words_of_the_service(
    visit: Visit, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no sound at all")
    page = visit()
    drop(page, path)
    expect(page.get_by_role("alert")).to_contain_text("Audio format not recognised")
    check_accessible(page)


def test_an_hour_scrolls_and_only_what_is_visible_is_asked_for(
    visit: Visit, tmp_path: Path
) -> None:
    hour = write_hour(tmp_path / "hour.wav")
    page = visit()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    drop(page, hour)
    expect(page.get_by_text("of 1:00:00")).to_be_visible()
    expect(page.get_by_role("button", name="Label all of it")).to_be_visible()
    page.wait_for_timeout(500)
    tiles = [url for url in asked if "log-mels" in url]
    assert 1 <= len(tiles) <= 9  # a minute in tiles of eight seconds
    assert not [url for url in asked if "analyze" in url]
    scroller = "document.querySelector('.wave > div').shadowRoot.querySelector('.scroll')"
    page.evaluate(f"{scroller}.scrollLeft = {scroller}.scrollWidth")
    page.wait_for_function("document.querySelector('.picture') !== null")
    page.wait_for_timeout(1000)
    later = [url for url in asked if "log-mels" in url]
    assert len(tiles) < len(later) <= 18


def test_a_long_recording_is_labelled_while_it_is_heard(
    browser: Browser, served: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.wav"
    sf.write(path, np.tile(tone(440, 1.0), 40), 16_000)
    settings = Settings(models=served, threads=1, max_duration_s=10)
    with serving(settings) as http, watching(browser, str(http.base_url)) as visit:
        page = visit()
        drop(page, path)
        page.get_by_role("button", name="Label all of it").click()
        expect(page.locator(".u-wrap")).to_have_count(2)
        expect(page.locator("#status")).to_contain_text("Heard 40.00 s of 40.00 s")
        expect(page.locator(".bars")).to_have_count(2)
        group = page.get_by_role("group", name="Copy as code")
        for kind, printed in pasted(group, tmp_path).items():
            assert len(printed.splitlines()) >= 40, (kind, printed)  # a line a window


def times(page: Page) -> list[str]:
    """What stands at the visible ticks of the axis."""
    return [text for text in page.locator("[part~=timeline-notch]").all_inner_texts() if text]


def test_the_axis_fits_what_is_zoomed_to(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "minutes.wav"
    sf.write(path, np.tile(tone(440, 1.0), 90), 16_000)
    page = visit()
    drop(page, path)
    expect(page.locator("[part~=timeline-notch]").first).to_be_visible()
    for name, step in (("Zoom in", "0.5"), ("Zoom out", "10")):
        for _ in range(6):
            page.get_by_role("button", name=name).click()
        expect(page.locator("[part~=timeline-notch]").get_by_text(step, exact=True)).to_be_visible()
        assert 5 <= len(times(page)) <= 30


def test_labels_over_time_go_on_while_another_sound_is_shown(
    browser: Browser, served: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.wav"
    sf.write(path, np.tile(tone(440, 1.0), 40), 16_000)
    settings = Settings(models=served, threads=1, max_duration_s=10)
    with serving(settings) as http, watching(browser, str(http.base_url)) as visit:
        page = visit()
        drop(page, path)
        held: list[Route] = []
        page.route("**/v1/audio/classifications?*", lambda route: held.append(route))
        page.get_by_role("button", name="Label all of it").click()
        page.get_by_role("button", name="clap").click()
        expect(page.locator("#sound .bars").first).to_be_visible()
        with page.expect_response("**/v1/audio/classifications?*stream=true*") as answer:
            held[0].continue_()
        answer.value.finished()
        page.get_by_role("button", name="long.wav").click()
        expect(page.locator("#sound .bars")).to_have_count(2)
        expect(page.locator("canvas.track")).to_have_count(2)
        expect(page.locator("#sound .u-wrap")).to_have_count(2)
        expect(page.get_by_role("button", name="Label all of it")).to_be_enabled()
        widths = page.locator(".u-wrap").evaluate_all("all => all.map((one) => one.clientWidth)")
        assert min(widths) > 500


def test_a_chart_is_as_wide_as_its_place(visit: Visit, clip: Path) -> None:
    page = visit(viewport={"width": 1000, "height": 700})
    drop(page, clip)
    chart = page.locator(".u-wrap").first
    expect(chart).to_be_visible()
    page.set_viewport_size({"width": 380, "height": 700})
    page.wait_for_function("() => document.querySelector('.u-wrap').clientWidth < 380")
    page.set_viewport_size({"width": 1000, "height": 700})
    page.wait_for_function("() => document.querySelector('.u-wrap').clientWidth > 800")


def test_the_microphone_is_recorded(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Record from the microphone").click()
    stop = page.get_by_role("button", name="Stop recording")
    stop.dispatch_event("click", {"detail": 2})  # the other half of a double click, late
    expect(stop).to_be_visible()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop recording").click()
    expect(page.get_by_role("heading", name="recording-1.wav")).to_be_visible()
    expect(page.locator(".bars").first).to_be_visible()


def test_the_keyboard_is_enough(visit: Visit) -> None:
    page = visit()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "drone":
            break
    page.keyboard.press("Enter")
    expect(page.locator(".bars").first).to_be_visible()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.keyboard.press(" ")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("button", name="Play")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_in_the_light_and_in_the_dark(visit: Visit, scheme: str) -> None:
    page = visit(viewport={"width": 360, "height": 740}, color_scheme=scheme, is_mobile=True)
    page.get_by_role("button", name="clap").click()
    expect(page.locator(".bars").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    check_accessible(page)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper)[:3])) < 64) == (scheme == "dark")


def test_keys_are_asked_for_where_they_are_on(
    browser: Browser, served: Path, tmp_path: Path
) -> None:
    from service.traffic.auth import Key, digest_of

    line = Key("page", digest_of("viola_secret")).line()
    settings = Settings(models=served, threads=1, api_keys=line)
    with serving(settings) as http, watching(browser, str(http.base_url)) as visit:
        page = visit()
        expect(page.get_by_role("alert")).to_contain_text("No valid API key")
        page.get_by_label("API key").fill("viola_secret")
        page.get_by_role("button", name="Use").click()
        page.get_by_role("button", name="clap").click()
        expect(page.locator(".bars").first).to_be_visible()
        expect(page.get_by_label("API key")).to_be_hidden()
        page.get_by_role("link", name="Live").click()
        page.get_by_role("button", name="Listen").click()
        expect(page.locator("#stream .bars li").first).to_be_visible()
        page.get_by_role("button", name="Stop").click()
        copied = page.locator("#stream").get_by_role("group", name="Copy as code")
        printed = pasted(copied, ROOT / "samples", VIOLA_KEY="viola_secret")
        assert all("401" not in text for text in printed.values())
        assert "window" in printed.get("JavaScript", "window")
        assert "viola_secret" not in page.evaluate("JSON.stringify(localStorage)")
