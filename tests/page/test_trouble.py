"""What goes wrong while the page is open is said, stops nothing else, and can be tried again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile as sf
from playwright.sync_api import Browser, Page, Route, expect

from service.settings import Settings
from service.traffic.auth import Key, digest_of
from tests.page.conftest import Visit, watching
from tests.service.conftest import serving
from tests.signals import tone

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Browser, served: Path, tmp_path: Path) -> Iterator[Page]:
    """A collection without recordings; what is longer than ten seconds goes in lines."""
    settings = Settings(models=served, threads=1, data=tmp_path / "data", max_duration_s=10)
    with serving(settings) as http, watching(browser, str(http.base_url)) as visit:
        page = visit("#collections")
        make(page, "street")
        yield page


def make(page: Page, name: str, window: str = "each recording as a whole") -> None:
    page.get_by_label("called").first.fill(name)
    page.get_by_label("of", exact=True).select_option(window)
    page.get_by_role("button", name="Make", exact=True).click()
    expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()


def clips(folder: Path, n: int) -> list[Path]:
    paths = [folder / f"clip-{number}.wav" for number in range(n)]
    for number, path in enumerate(paths):
        sf.write(path, tone(500 + 40 * number, 0.5), 16_000)
    return paths


def test_a_file_that_fails_among_others_is_named_and_stops_none(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "notes.wav"
    bad.write_text("no sound at all")
    good = clips(tmp_path, 4)
    page.locator("#add-files").set_input_files([*good[:2], bad, *good[2:]])
    expect(page.get_by_text("4 recordings")).to_be_visible()
    expect(page.get_by_text("1 of 5 files could not be added.")).to_be_visible()
    expect(page.locator(".failures li")).to_contain_text("notes.wav Audio format not recognised")
    expect(page.get_by_role("progressbar", name="Adding")).to_be_hidden()
    expect(page.locator("[aria-label=Items] li")).to_have_count(4)
    page.locator("#add-files").set_input_files([good[0], good[1]])
    expect(page.locator("#status")).to_contain_text("2 of which were there already")


def test_files_are_sent_again_once_the_service_is_back(page: Page, tmp_path: Path) -> None:
    page.route("**/v1/**", lambda route: route.abort())
    page.locator("#add-files").set_input_files(clips(tmp_path, 3))
    expect(page.get_by_text("2 more were not sent")).to_be_visible()
    expect(page.locator(".failures")).to_contain_text("the service cannot be reached")
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Send these 3 again").click()
    expect(page.get_by_text("3 recordings")).to_be_visible()
    expect(page.locator(".failures")).to_have_count(0)


def test_a_recording_longer_than_a_request_goes_into_a_collection(
    page: Page, tmp_path: Path
) -> None:
    path = tmp_path / "long.wav"
    sf.write(path, tone(440, 25.0), 16_000)
    page.locator("#add-files").set_input_files(path)
    expect(page.get_by_text("1 recordings")).to_be_visible()
    expect(page.locator("[aria-label=Items]")).to_contain_text("25.00 s")
    page.locator("#add-files").set_input_files(path)
    expect(page.locator("#status")).to_contain_text("1 of which was there already")


def test_more_items_than_are_shown_at_once_can_be_seen(page: Page, tmp_path: Path) -> None:
    def some(route: object) -> None:
        route.continue_(url=route.request.url.replace("limit=200", "limit=2"))  # type: ignore[attr-defined]

    page.route("**/items?limit=200*", some)
    page.locator("#add-files").set_input_files(clips(tmp_path, 3))
    expect(page.get_by_text("The first 2 of 3.")).to_be_visible()
    page.get_by_role("button", name="more").click()
    expect(page.locator("[aria-label=Items] li")).to_have_count(3)
    expect(page.get_by_role("button", name="more")).to_have_count(0)


def test_hits_say_where_in_a_recording_they_are(page: Page, tmp_path: Path) -> None:
    page.get_by_text("Make a collection").click()
    make(page, "windows", "windows of 1 s")
    paths = clips(tmp_path, 2)
    page.locator("#add-files").set_input_files(paths)
    expect(page.get_by_text("2 recordings")).to_be_visible()
    page.locator("#like-file").set_input_files(paths[0])
    hits = page.locator("[aria-label=Hits] li")
    expect(hits.first).to_contain_text("clip-0.wav")
    expect(hits.first).to_contain_text("0.00 s to 0.5")
    expect(page.get_by_text("null")).to_have_count(0)


def test_a_double_click_is_a_click(page: Page, tmp_path: Path) -> None:
    page.locator("#add-files").set_input_files(clips(tmp_path, 3))
    expect(page.get_by_text("3 recordings")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("button", name="Map").dblclick()
    expect(page.locator("#collection .map")).to_be_visible()
    assert len([url for url in asked if url.endswith("/map")]) == 1


def drag(page: Page, *paths: Path) -> None:
    """Drop files, or folders, on the page as a file manager does."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 200, "y": 200, "data": data}
        session.send("Input.dispatchDragEvent", event)


def test_a_folder_that_is_dropped_on_a_collection_goes_into_it(page: Page, tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    (folder / "deeper").mkdir(parents=True)
    clips(folder, 2)
    sf.write(folder / "deeper" / "low.wav", tone(120, 0.5), 16_000)
    (folder / ".hidden").write_text("not a sound")
    drag(page, folder)
    expect(page.get_by_text("3 recordings")).to_be_visible()
    expect(page.locator(".failures")).to_have_count(0)


def test_a_folder_that_is_dropped_is_heard(visit: Visit, tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    clips(folder, 2)
    page = visit()
    drag(page, folder)
    expect(page.locator("#sounds button")).to_have_count(2)
    expect(page.locator(".bars").first).to_be_visible()


def test_what_failed_while_the_service_was_gone_is_tried_again(visit: Visit, clip: Path) -> None:
    page = visit()
    page.route("**/v1/**", lambda route: route.abort())
    page.locator("#files").set_input_files(clip)
    expect(page.get_by_role("alert").last).to_contain_text("the service cannot be reached")
    page.unroute("**/v1/**")
    page.locator("#sound").get_by_role("button", name="Try again").last.click()
    expect(page.locator(".bars").first).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)

    page.route("**/web/samples/*", lambda route: route.abort())
    page.get_by_role("button", name="clap").click()
    expect(page.locator("#status")).to_contain_text("the service cannot be reached")


def test_one_press_tries_all_of_a_sound_again(visit: Visit, clip: Path) -> None:
    page = visit()
    page.route("**/v1/audio/**", lambda route: route.abort())
    page.locator("#files").set_input_files(clip)
    expect(page.locator("#sound").get_by_role("alert")).to_have_count(2)  # results and picture
    page.unroute("**/v1/audio/**")
    page.locator("#sound").get_by_role("button", name="Try again").first.click()
    expect(page.locator("#sound .bars").first).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_live_is_there_again_once_the_service_is_back(visit: Visit) -> None:
    page = visit()
    page.route("**/v1/classifiers", lambda route: route.abort())
    page.get_by_role("link", name="Live").click()
    expect(page.locator("#stream").get_by_role("alert")).to_contain_text("cannot be reached")
    page.get_by_role("link", name="Compare").click()
    page.unroute("**/v1/classifiers")
    page.get_by_role("link", name="Live").click()
    expect(page.locator("#live-head option")).to_have_count(2)
    expect(page.locator("#stream").get_by_role("alert")).to_have_count(0)


def test_a_key_that_is_revoked_can_be_replaced_and_the_sounds_stay(
    browser: Browser, served: Path, clip: Path
) -> None:
    settings = Settings(models=served, threads=1, api_keys=_line("viola_new"))
    with serving(settings) as http, watching(browser, str(http.base_url)) as visit:
        page = visit()
        use_key(page, "viola_new")
        expect(page.get_by_role("alert")).to_have_count(0)
        page.evaluate("import('/web/page/api.js').then(({useKey}) => useKey('viola_revoked'))")
        page.locator("#files").set_input_files(clip)
        expect(page.locator("#sound").get_by_role("alert").last).to_contain_text("No valid API key")
        page.get_by_label("API key").fill("viola_neü")
        page.get_by_role("button", name="Use").click()
        expect(page.locator("#status")).to_contain_text("This is no API key")
        use_key(page, "viola_new")
        expect(page.get_by_role("heading", name=clip.name)).to_be_visible()
        expect(page.locator(".bars").first).to_be_visible()


def use_key(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use").click()
    expect(page.get_by_label("API key")).to_be_hidden()


def _line(key: str, groups: frozenset[str] = frozenset()) -> str:
    scopes = frozenset(("embed", "classify", "search", "teach"))
    return Key("page", digest_of(key), scopes=scopes, groups=groups).line()


def test_a_collection_of_a_group_is_made_and_taught_on_the_page(
    browser: Browser, served: Path, tmp_path: Path
) -> None:
    keys = _line("viola_new", frozenset({"birds"}))
    settings = Settings(models=served, threads=1, api_keys=keys, data=tmp_path / "data")
    with serving(settings) as http, watching(browser, str(http.base_url)) as visit:
        page = visit("#collections")
        use_key(page, "viola_new")
        make(page, "birds:songs")
        page.locator("#add-files").set_input_files(clips(tmp_path, 1))
        expect(page.get_by_text("1 recordings")).to_be_visible()
        page.get_by_role("button", name="Teach").click()
        expect(page.locator("#collection .error")).to_contain_text("label")


def test_a_recording_that_the_browser_reads_in_part_is_shown_as_the_service_hears_it(
    visit: Visit, tmp_path: Path
) -> None:
    path = tmp_path / "stale.wav"
    sf.write(path, tone(440, 2.0), 16_000)
    content = bytearray(path.read_bytes())
    content[40:44] = (16_000).to_bytes(4, "little")  # of 64,000 bytes: the header was not rewritten
    path.write_bytes(content)
    page = visit()
    page.locator("#files").set_input_files(path)
    expect(page.get_by_text("of 2.00 s")).to_be_visible()


def test_the_axis_has_times_on_it(visit: Visit, clip: Path) -> None:
    page = visit()
    page.locator("#files").set_input_files(clip)
    axis = page.locator(".wave [part=timeline]")
    expect(axis).to_contain_text("1.4")


def test_skipping_to_the_content_leaves_the_view_as_it_is(visit: Visit) -> None:
    page = visit("#compare")
    page.get_by_role("link", name="To the content").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Which sounds are alike?")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "main"


def test_where_nothing_can_be_copied_the_code_is_chosen(visit: Visit, clip: Path) -> None:
    page = visit()
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.locator("#files").set_input_files(clip)
    page.get_by_role("button", name="curl").first.click()
    expect(page.locator("#status")).to_contain_text("Ctrl+C")
    assert page.evaluate("String(getSelection())").startswith("curl")


def test_a_collection_too_large_for_a_map_can_be_seen_by_a_label(
    page: Page, tmp_path: Path
) -> None:
    page.locator("#add-files").set_input_files(clips(tmp_path, 3))
    expect(page.get_by_text("3 recordings")).to_be_visible()
    too_many = {"title": "Too many", "detail": "at most 1000 are: use a filter.", "status": 413}
    page.route("**/map", lambda route: route.fulfill(status=413, json=too_many))
    page.get_by_role("button", name="Map").click()
    expect(page.locator("#collection .error")).to_contain_text("Label some items, then choose")
    page.locator("#label-names").fill("bell")
    page.locator("[aria-label=Items] li").first.focus()
    page.keyboard.press("1")
    page.keyboard.press("1")
    expect(page.locator("[aria-label=Items] .good:not(:empty)")).to_have_count(2)
    page.get_by_label("among", exact=True).select_option("bell")
    with page.expect_response("**/map?filter=*") as answer:
        page.get_by_role("button", name="Map").click()
    assert len(answer.value.json()["data"]) == 2
    expect(page.locator("#collection .map")).to_be_visible()


def test_what_was_changed_in_another_tab_can_be_seen(page: Page, tmp_path: Path) -> None:
    page.locator("#add-files").set_input_files(clips(tmp_path, 3))
    expect(page.get_by_text("3 recordings")).to_be_visible()
    other = page.context.new_page()
    other.goto(page.url)
    other.on("dialog", lambda dialog: dialog.accept())
    other.get_by_role("button", name="Delete").click()
    expect(other.get_by_role("heading", name="street")).to_have_count(0)
    page.get_by_role("button", name="Play clip-1.wav").click()
    expect(page.locator("#collection").get_by_role("alert")).to_contain_text(
        "no collection 'street'"
    )
    page.get_by_role("button", name="Show what is there now").click()
    expect(page.get_by_role("heading", name="street")).to_have_count(0)
    expect(page.get_by_label("called").first).to_be_visible()


def test_nothing_more_is_offered_where_all_is_shown(page: Page, tmp_path: Path) -> None:
    def some(route: object) -> None:
        route.continue_(url=route.request.url.replace("limit=200", "limit=2"))  # type: ignore[attr-defined]

    page.route("**/items?limit=200*", some)
    page.locator("#add-files").set_input_files(clips(tmp_path, 4))
    expect(page.get_by_text("The first 2 of 4.")).to_be_visible()
    page.get_by_role("button", name="more").press("Enter")
    expect(page.locator("[aria-label=Items] li")).to_have_count(4)
    expect(page.get_by_role("button", name="more")).to_have_count(0)
    expect(page.locator("[aria-label=Items] li").nth(2)).to_be_focused()


def test_digits_that_are_faster_than_answers_label_one_item_each(
    page: Page, tmp_path: Path
) -> None:
    page.locator("#add-files").set_input_files(clips(tmp_path, 3))
    expect(page.get_by_text("3 recordings")).to_be_visible()
    page.locator("#label-names").fill("bell, wind")
    held: list[Route] = []
    page.route("**/labels", lambda route: held.append(route))
    page.locator("[aria-label=Items] li").first.focus()
    for digit in "121":
        page.keyboard.press(digit)
    page.wait_for_timeout(500)
    for route in held:
        route.continue_()
    labels = page.locator("[aria-label=Items] .good")
    expect(labels).to_have_text(["bell", "wind", "bell"])


def test_a_digit_labels_the_item_whose_button_was_pressed(page: Page, tmp_path: Path) -> None:
    page.locator("#add-files").set_input_files(clips(tmp_path, 3))
    page.locator("#label-names").fill("bell")
    page.get_by_role("button", name="Play clip-2.wav").click()
    page.keyboard.press("1")
    labelled = page.locator("[aria-label=Items] li").filter(has_text="bell")
    expect(labelled).to_contain_text("clip-2.wav")
