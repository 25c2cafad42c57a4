"""A collection on the page, end to end: made, filled, searched, labelled by keyboard, taught."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from playwright.sync_api import Browser, Page, expect

from service.settings import Settings
from tests.page.conftest import Visit, check_accessible, pasted, watching
from tests.service.conftest import serving
from tests.signals import noise, tone

pytestmark = pytest.mark.browser

FAST = """() => {
    window.heard = []; // the length of each part that was played to its end
    const play = HTMLMediaElement.prototype.play;
    HTMLMediaElement.prototype.play = function () {
        this.playbackRate = 16;
        if (!this.isHeard) this.addEventListener("ended", () => heard.push(this.duration));
        this.isHeard = true;
        return play.call(this);
    };
}"""


@pytest.fixture
def page(browser: Browser, served: Path, tmp_path: Path) -> Iterator[Page]:
    settings = Settings(models=served, threads=1, data=tmp_path / "data", fit_timeout_s=600)
    with serving(settings) as http, watching(browser, str(http.base_url)) as visit:
        yield visit("#collections")


def clips(folder: Path) -> list[Path]:
    paths = []
    for number in range(6):
        for kind, sound in (
            ("bell", tone(900 + 11 * number, 1.0)),
            ("wind", noise(1.0, seed=number)),
        ):
            paths.append(folder / f"{kind}-{number}.wav")
            sf.write(paths[-1], sound, 16_000)
    return paths


def test_search_label_teach_classify_end_to_end(page: Page, tmp_path: Path) -> None:
    page.get_by_label("called").first.fill("street")
    page.get_by_role("button", name="Make", exact=True).click()
    paths = clips(tmp_path)
    page.locator("#add-files").set_input_files(paths)
    expect(page.get_by_text("12 recordings")).to_be_visible()
    expect(page.locator("[aria-label=Items] li")).to_have_count(12)

    page.locator("#like-file").set_input_files(paths[0])
    hits = page.locator("[aria-label=Hits] li strong")
    expect(hits.first).to_have_text("bell-0.wav")
    assert all("bell" in text for text in hits.all_inner_texts()[:4])
    page.locator("[aria-label=Hits] li").nth(1).get_by_role("button", name="Play").click()
    expect(page.locator("#status")).to_contain_text("Playing bell")

    page.get_by_label("Labels", exact=True).fill("bell, wind")
    page.locator("[aria-label=Items] li").first.focus()
    page.keyboard.press(" ")
    expect(page.locator("#status")).to_contain_text("Playing")
    for number, path in enumerate(paths):
        page.keyboard.press("1" if "bell" in path.name else "2")
        expect(page.locator("[aria-label=Items] .good:not(:empty)")).to_have_count(number + 1)
    check_accessible(page)

    page.get_by_role("button", name="Teach").click()
    expect(page.get_by_text("answers now")).to_be_visible()
    another = tmp_path / "another.wav"
    sf.write(another, tone(931, 1.0), 16_000)
    page.locator("#try-file").set_input_files(another)
    expect(page.locator("#collection .bars .name").first).to_have_text("bell")
    page.get_by_role("button", name="Which next?").click()
    expect(page.get_by_text("Everything is labelled.")).to_be_visible()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download it").click()
    assert saved.value.suggested_filename == "street-labels.onnx"


def test_a_hit_is_an_example_by_the_window_that_was_found(page: Page, tmp_path: Path) -> None:
    page.get_by_label("called").first.fill("days")
    page.locator("#new-window").select_option("5")
    page.get_by_role("button", name="Make", exact=True).click()
    for name, sounds in (
        ("day", [noise(5.0, seed=1), tone(800, 5.0)]),
        ("night", [noise(5.0, seed=2), tone(810, 5.0)]),
        ("bell", [tone(790, 5.0)]),
    ):
        sf.write(tmp_path / f"{name}.wav", np.concatenate(sounds), 16_000)
    files = [tmp_path / f"{name}.wav" for name in ("day", "night", "bell")]
    page.locator("#add-files").set_input_files(files)
    expect(page.get_by_text("3 recordings, 5 vectors")).to_be_visible()
    page.locator("#like-file").set_input_files(files[2])
    hits = page.locator("[aria-label=Hits] li")
    day, times = hits.filter(has_text="day.wav"), "5.00 s to 10.00 s"
    expect(day).to_contain_text(times)
    with page.expect_request("**/search") as asked:
        day.get_by_role("button", name="Like it").click()
    (example,) = asked.value.post_data_json["positive"]
    assert (example["start_s"], example["end_s"]) == (5, 10)
    expect(page.get_by_role("heading", name=f"Like day.wav, {times}")).to_be_visible()
    expect(hits.filter(has_text="night.wav")).to_contain_text(times)
    with page.expect_request("**/search") as asked:
        page.locator("[aria-label=Items] li").first.get_by_role("button", name="Like it").click()
    assert set(asked.value.post_data_json["positive"][0]) == {"id"}


def test_what_a_collection_copies_runs_when_it_is_pasted(page: Page, tmp_path: Path) -> None:
    page.get_by_label("called").first.fill("street")
    page.get_by_role("button", name="Make", exact=True).click()
    paths = clips(tmp_path)
    page.locator("#add-files").set_input_files(paths)
    expect(page.get_by_text("12 recordings")).to_be_visible()
    shutil.copy(paths[0], tmp_path / "clip.wav")
    page.get_by_label("Labels", exact=True).fill("bell, wind")
    page.locator("[aria-label=Items] li").first.focus()
    for number, path in enumerate(paths):
        by_touch = page.locator(".legend").get_by_role("button")
        by_touch.nth(0 if "bell" in path.name else 1).click()
        expect(page.locator("[aria-label=Items] .good:not(:empty)")).to_have_count(number + 1)
    page.locator("#like-file").set_input_files(paths[0])
    expect(page.locator("[aria-label=Hits] li").first).to_be_visible()
    page.get_by_role("button", name="Near-duplicates").click()
    expect(page.get_by_text("than neighbours are by chance")).to_be_visible()
    page.get_by_text("Make a collection").click()
    page.get_by_role("button", name="Map").click()
    expect(page.locator("canvas.map")).to_be_visible()
    page.get_by_role("button", name="Teach").click()
    expect(page.get_by_text("answers now")).to_be_visible()
    page.locator("#try-file").set_input_files(paths[0])
    expect(page.locator("#collection .bars .name").first).to_have_text("bell")
    groups = page.locator("#collection").get_by_role("group", name="Copy as code")
    expect(groups).to_have_count(8)
    for group in groups.all():
        assert all(pasted(group, tmp_path).values())


def test_near_duplicates_and_the_map_are_shown(page: Page, tmp_path: Path) -> None:
    page.get_by_label("called").first.fill("street")
    page.get_by_role("button", name="Make", exact=True).click()
    page.locator("#add-files").set_input_files(clips(tmp_path))
    expect(page.get_by_text("12 recordings")).to_be_visible()
    page.get_by_role("button", name="Near-duplicates").click()
    expect(page.get_by_text("than neighbours are by chance")).to_be_visible()
    page.get_by_role("button", name="Map").click()
    page.locator(".map").click(position={"x": 50, "y": 50})
    expect(page.locator("#status")).to_contain_text("Playing")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("12 recordings")).to_be_hidden()


def played(page: Page, n_parts: int) -> list[int]:
    """The seconds of the parts that were played to their end, once there are so many."""
    while page.evaluate("heard.length") < n_parts:
        page.wait_for_timeout(100)
    parts: list[int] = page.evaluate("heard.map(Math.round)")
    return parts


def test_kept_audio_that_a_browser_cannot_decode_is_played_as_the_service_hears_it(
    page: Page, tmp_path: Path
) -> None:
    for name, length_s in (("long", 64.0), ("short", 1.0)):
        sf.write(tmp_path / f"{name}.aiff", tone(500, length_s, rate=8000), 8000, "PCM_16")
    page.get_by_label("called").first.fill("street")
    page.get_by_label("keep").check()
    page.get_by_role("button", name="Make", exact=True).click()
    page.locator("#add-files").set_input_files([tmp_path / "long.aiff", tmp_path / "short.aiff"])
    expect(page.get_by_text("2 recordings")).to_be_visible()

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition("/items/")[2]))
    item = page.locator("[aria-label=Items] li").filter(has_text="long.aiff")
    page.evaluate(FAST)
    item.get_by_role("button", name="Play").click()
    expect(page.locator("#status")).to_have_text("Playing long.aiff.")
    assert played(page, 2) == [60, 4]
    parts = [url.partition("/samples?")[2] for url in asked if "/samples?" in url]
    assert parts == ["start_s=0&end_s=60", "start_s=60&end_s=120"]

    asked.clear()
    item.get_by_role("button", name="Play").click()
    assert played(page, 3) == [60, 4, 60]
    assert [url for url in asked if url] == []


def test_where_there_are_no_collections_the_page_says_how_to_have_them(visit: Visit) -> None:
    page = visit("#collections")
    expect(page.get_by_role("alert")).to_be_visible()
