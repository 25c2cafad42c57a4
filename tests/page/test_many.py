"""Many files, labels and answers at once: none is lost, and what goes on is seen."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile as sf
from playwright.sync_api import Browser, Page, Route, expect

from service.settings import Settings
from tests.page.conftest import Visit, watching
from tests.page.test_trouble import clips, drag
from tests.service.conftest import serving
from tests.signals import tone

pytestmark = pytest.mark.browser

ODD = ["bell, large", 'the "bell"', "x" * 128, *(f"label {number}" for number in range(9))]


@pytest.fixture
def page(browser: Browser, served: Path, tmp_path: Path) -> Iterator[Page]:
    """Two collections without recordings; what is longer than ten seconds goes in lines."""
    settings = Settings(models=served, threads=1, data=tmp_path / "data", max_duration_s=10)
    with serving(settings) as http, watching(browser, str(http.base_url)) as visit:
        for name in ("birds", "street"):
            http.put(f"/v1/collections/{name}", json={"granularity": "clip"})
        page = visit("#collections")
        expect(page.get_by_role("heading", name="birds", exact=True)).to_be_visible()
        yield page


def held(page: Page, pattern: str) -> Callable[[], None]:
    """Requests wait until what is returned is called."""
    waiting: list[Route] = []
    is_open = False

    def hold(route: Route) -> None:
        if is_open:
            route.continue_()
        else:
            waiting.append(route)

    def let_go() -> None:
        nonlocal is_open
        is_open = True
        for route in waiting:
            route.continue_()

    page.route(pattern, hold)
    return let_go


def test_files_that_are_chosen_while_others_are_sent_are_added_too(
    page: Page, tmp_path: Path
) -> None:
    paths = clips(tmp_path, 4)
    let_go = held(page, "**/items")
    page.locator("#add-files").set_input_files(paths[:2])
    expect(page.get_by_role("progressbar", name="Adding")).to_be_visible()
    page.locator("#add-files").set_input_files(paths[2:])
    let_go()
    expect(page.locator("#status")).to_contain_text("4 of 4 files are in the collection")


def test_what_is_dropped_while_sounds_are_compared_is_compared_too(
    visit: Visit, tmp_path: Path
) -> None:
    paths = clips(tmp_path, 4)
    page = visit("#compare")
    let_go = held(page, "**/analyze*")
    drag(page, *paths[:2])
    expect(page.get_by_role("progressbar", name="Hearing the sounds")).to_be_visible()
    drag(page, paths[2])
    drag(page, paths[3])
    let_go()
    expect(page.locator(".matrix tbody tr")).to_have_count(4)
    assert len(page.context.pages) == 1  # a browser opens in another tab what nobody takes


def test_adding_goes_on_while_another_collection_is_shown(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "notes.wav"
    bad.write_text("no sound at all")
    let_go = held(page, "**/items")
    page.locator("#add-files").set_input_files([bad, *clips(tmp_path, 1)])
    expect(page.get_by_role("progressbar", name="Adding")).to_be_visible()
    page.locator("#collection-name").select_option("street")
    expect(page.get_by_role("heading", name="street", exact=True)).to_be_visible()
    let_go()
    expect(page.locator("#status")).to_contain_text("1 of 2 files are in the collection")
    expect(page.locator(".failures")).to_have_count(0)
    page.locator("#collection-name").select_option("birds")
    expect(page.locator(".failures")).to_contain_text("notes.wav")


def test_labels_of_any_letters_and_number_can_be_given(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 320, "height": 700})
    page.locator("#add-files").set_input_files(clips(tmp_path, 2))
    expect(page.locator("[aria-label=Items] li")).to_have_count(2)
    page.evaluate(
        """async (labels) => {
        const at = "v1/collections/birds/";
        const { data } = await (await fetch(at + "items")).json();
        const json = { labels: labels.map((label) => ({ item: data[0].id, label })) };
        const headers = { "Content-Type": "application/json" };
        await fetch(at + "labels", { method: "POST", headers, body: JSON.stringify(json) });
        }""",
        ODD,
    )
    page.reload()
    buttons = page.locator(".legend button")
    expect(buttons).to_have_count(len(ODD) + 2)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.locator("[aria-label=Items] li").last.focus()
    labels = page.locator("[aria-label=Items] .good").last
    page.keyboard.press("1")
    expect(labels).to_have_text("bell, large")
    page.keyboard.press("2")
    buttons.filter(has_text="label 8").click()
    expect(labels).to_have_text('bell, large, the "bell", label 8')


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"body": '{"object": "stream"}\n'}, "it broke off before its end"),
        ({"body": "<html>", "content_type": "text/html"}, "sign in again"),
    ],
)
def test_an_answer_that_is_not_whole_adds_nothing(
    page: Page, tmp_path: Path, answer: dict[str, str], told: str
) -> None:
    path = tmp_path / "long.wav"
    sf.write(path, tone(440, 11.0), 16_000)
    page.route("**/items?stream=true", lambda route: route.fulfill(status=200, **answer))
    page.locator("#add-files").set_input_files(path)
    expect(page.locator(".failures")).to_contain_text(told)
    page.route("**/v1/collections/birds/items*", lambda route: route.fulfill(status=200, **answer))
    page.locator("#collection-name").select_option("street")
    expect(page.get_by_role("heading", name="street", exact=True)).to_be_visible()
    page.locator("#collection-name").select_option("birds")
    if "content_type" in answer:
        expect(page.locator("#collection").get_by_role("alert").first).to_contain_text(told)


def test_a_service_that_was_busy_is_not_said_to_be_so_for_ever(visit: Visit, clip: Path) -> None:
    page = visit()
    refusals = [{"status": 429, "headers": {"Retry-After": "0"}, "json": {"title": "Busy"}}]

    def once(route: Route) -> None:
        if refusals:
            route.fulfill(**refusals.pop())
        else:
            route.continue_()

    page.route("**/log-mels", once)
    page.locator("#files").set_input_files(clip)
    expect(page.locator("#status")).to_contain_text("Busy: trying again")
    expect(page.locator("#status")).not_to_contain_text("trying again")


def test_a_table_that_is_not_whole_says_so(visit: Visit) -> None:
    told = visit().evaluate(
        """async () => {
        const { Track } = await import("/web/page/track.js");
        const track = new Track("pitch", () => {});
        const one = { start_s: 0, end_s: 1, predictions: [], novelty: { is_novel: false } };
        track.windows = Array(501).fill(one);
        return track.table().caption.textContent;
        }"""
    )
    assert told == "pitch over time: the first 500 of 501 windows, all are in the JSON"


def test_what_is_dropped_is_taken_whole_or_refused(visit: Visit) -> None:
    told = visit().evaluate(
        """async () => {
        const { filesIn } = await import("/web/page/dropped.js");
        const about = { name: "a.wav", fullPath: "/sounds/a.wav", isFile: true };
        const whole = { ...about, file: (take) => take("a") };
        const unread = { ...about, file: (_, fail) => fail("no") };
        const said = [];
        for (const files of [Array(10001).fill(whole), [unread]]) {
          const createReader = () => ({ readEntries: (take) => take(files.splice(0)) });
          const folder = { name: "sounds", isDirectory: true, createReader };
          const items = [{ webkitGetAsEntry: () => folder }];
          said.push(await filesIn({ items, files: [] }).catch((error) => error.message));
        }
        return said;
        }"""
    )
    assert "More than 10000 files were dropped, and none was taken" in told[0]
    assert told[1].startswith("/sounds/a.wav cannot be read")
