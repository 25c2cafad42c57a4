"""What other browsers do otherwise, and what a keyboard and a screen reader meet."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from playwright.sync_api import Browser, Locator, Page, expect

from service.settings import Settings
from tests.page.conftest import Visit, check_accessible, watching
from tests.service.conftest import serving
from tests.signals import tone

pytestmark = pytest.mark.browser

# How a browser that lets pages keep nothing answers, as Firefox and Safari may be set to.
KEEPS_NOTHING = """for (const name of ["sessionStorage", "localStorage", "indexedDB"])
  Object.defineProperty(window, name, {
    get() { throw new DOMException("denied", "SecurityError"); },
  });"""

# WebKitGTK 2.50 neither decodes nor refuses what is empty.
WAITS_FOR_EVER = """const decodes = OfflineAudioContext.prototype.decodeAudioData;
OfflineAudioContext.prototype.decodeAudioData = function (bytes) {
  return bytes.byteLength ? decodes.call(this, bytes) : new Promise(() => {});
};"""

# As in Firefox on a machine without a sound output: the audio thread never runs.
RUNS_NO_AUDIO = """AudioWorkletNode = class extends GainNode {
  port = {};
  constructor(context) { super(context); }
};"""

# As Firefox: a microphone is connected to a context of the sound card's own rate alone.
HAS_A_RATE = """const Context = AudioContext;
AudioContext = class extends Context {
  constructor({ sampleRate = RATE } = {}) { super({ sampleRate }); }
  createMediaStreamSource(stream) {
    if (this.sampleRate !== RATE) throw new DOMException("another rate", "NotSupportedError");
    return super.createMediaStreamSource(stream);
  }
};"""

# A browser that asks whoever uses it, and gets its answer from allow().
ASKS_FIRST = """() => {
  const devices = navigator.mediaDevices;
  const get = devices.getUserMedia.bind(devices);
  const asked = new Promise((resolve) => { window.allow = resolve; });
  devices.getUserMedia = async (wanted) => {
    await asked;
    return (window.opened = await get(wanted));
  };
}"""

# What was read out: all texts of the status line that a screen reader gets.
LISTENS = """window.heard = [];
new MutationObserver(() => {
  const text = [...document.querySelector("#status").childNodes]
    .filter((node) => node.ariaHidden !== "true").map((node) => node.textContent).join("");
  if (text) heard.push(text);
}).observe(document.querySelector("#status"), { childList: true, subtree: true });"""


@pytest.fixture
def page(browser: Browser, served: Path, tmp_path: Path) -> Iterator[Page]:
    """Two collections, the first, which is shown, with three recordings."""
    settings = Settings(models=served, threads=1, data=tmp_path / "data")
    with serving(settings) as http, watching(browser, str(http.base_url)) as visit:
        for name in ("birds", "street"):
            http.put(f"/v1/collections/{name}", json={"granularity": "clip", "keeps_audio": True})
        page = visit("#collections")
        page.locator("#add-files").set_input_files(clips(tmp_path, 3))
        expect(items(page)).to_have_count(3)
        yield page


def clips(folder: Path, n: int) -> list[Path]:
    paths = [folder / f"clip-{number}.wav" for number in range(n)]
    for number, path in enumerate(paths):
        sf.write(path, tone(500 + 40 * number, 0.5), 16_000)
    return paths


def items(page: Page) -> Locator:
    return page.locator("[aria-label=Items] li")


def test_a_browser_that_keeps_nothing_shows_the_page(browser: Browser, address: str) -> None:
    with watching(browser, address) as visit:
        page = visit()
        page.add_init_script(KEEPS_NOTHING)
        page.reload()
        page.get_by_role("button", name="clap").click()
        expect(page.locator(".bars").first).to_be_visible()


def test_an_empty_file_is_told_where_a_browser_never_says_so(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    page.add_init_script(WAITS_FOR_EVER)
    page.reload()
    empty = tmp_path / "empty.wav"
    empty.touch()
    page.locator("#files").set_input_files(empty)
    expect(page.get_by_role("alert")).to_contain_text("holds no bytes", timeout=20_000)


def test_a_chart_that_cannot_be_drawn_is_told_in_a_sentence(visit: Visit, clip: Path) -> None:
    page = visit()
    page.route("**/uPlot*.js", lambda route: route.abort())
    page.reload()
    page.locator("#files").set_input_files(clip)
    expect(page.get_by_text("could not load what draws the chart").first).to_be_visible()
    page.get_by_text("As a table").first.click()
    expect(page.get_by_role("region", name="as a table").first).to_contain_text("0.00 s")


def test_a_microphone_that_hands_on_nothing_is_told(visit: Visit) -> None:
    page = visit()
    page.add_init_script(RUNS_NO_AUDIO)
    page.goto(f"{page.url}#live")
    page.reload()
    page.get_by_role("button", name="Listen").click()
    expect(page.get_by_role("alert")).to_contain_text("hands on nothing", timeout=30_000)
    expect(page.get_by_role("button", name="Listen")).to_be_visible()


@pytest.mark.parametrize("name", ["NotAllowedError", "NotFoundError", "OverconstrainedError"])
def test_why_there_is_no_microphone_is_told_in_a_sentence(visit: Visit, name: str) -> None:
    page = visit("#live")
    page.evaluate(
        "name => { navigator.mediaDevices.getUserMedia = async () =>"
        " { throw new DOMException('Invalid constraint', name); }; }",
        name,
    )
    page.get_by_role("button", name="Listen").click()
    expect(page.get_by_role("alert")).to_contain_text("then try again.")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("NotAllowedError", "Allow it in the browser's settings, then try again."),
        ("NotFoundError", "Connect one, then try again."),
        ("NotReadableError", "Close what uses it, or connect it anew, then try again."),
    ],
)
@pytest.mark.parametrize("view", ["#listen", "#live"])
def test_recording_and_listening_say_the_same_of_a_microphone_that_cannot_be_had(
    visit: Visit, view: str, name: str, remedy: str
) -> None:
    page = visit(view)
    page.evaluate(
        "name => { navigator.mediaDevices.getUserMedia = async () =>"
        " { throw new DOMException('Invalid constraint', name); }; }",
        name,
    )
    button = "Listen" if view == "#live" else "Record from the microphone"
    page.get_by_role("button", name=button).click()
    said = page.get_by_role("alert") if view == "#live" else page.locator("#status")
    expect(said).to_contain_text("The microphone cannot be used: ")
    expect(said).to_contain_text(remedy)
    expect(page.get_by_role("button", name=button)).to_be_visible()
    if view == "#listen":
        expect(page.locator("#recording")).to_be_hidden()


@pytest.mark.parametrize("rate", [44_100, 96_000, 192_000])
def test_a_microphone_of_any_rate_is_heard(visit: Visit, rate: int) -> None:
    page = visit()
    page.add_init_script(HAS_A_RATE.replace("RATE", str(rate)))
    page.goto(f"{page.url}#live")
    page.reload()
    sent: list[str | bytes] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    page.get_by_role("button", name="Listen").click()
    expect(page.locator("#stream .bars li").first).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    stream_rate = json.loads(sent[0])["sample_rate"]
    assert stream_rate == min(rate, 48_000)
    blocks = [np.frombuffer(block, np.float32) for block in sent if isinstance(block, bytes)]
    heard = np.concatenate(blocks)[-stream_rate:]
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.argmax(spectrum) * stream_rate / len(heard) == pytest.approx(440, abs=3)
    assert 0.1 < np.abs(heard).max() <= 1.0


def test_a_view_that_is_left_while_the_browser_asks_does_not_listen(visit: Visit) -> None:
    page = visit("#live")
    page.evaluate(ASKS_FIRST)
    page.get_by_role("button", name="Listen").click()
    page.get_by_role("link", name="Compare").click()
    expect(page.get_by_role("heading", name="Which sounds are alike?")).to_be_visible()
    page.evaluate("allow()")
    page.wait_for_function("() => window.opened?.getTracks()[0].readyState === 'ended'")
    page.get_by_role("link", name="Live").click()
    expect(page.get_by_role("button", name="Listen")).to_be_visible()


# Of a control, and of what stands in it, nothing is read out a second time as a description.
SAID_TWICE = """() => [...document.querySelectorAll("[title]")]
  .filter((one) => one.textContent.includes(one.title) || one.ariaLabel?.includes(one.title))
  .map((one) => one.outerHTML)"""


def test_names_are_read_out_once_and_shown_whole_under_the_pointer(
    visit: Visit, tmp_path: Path
) -> None:
    page = visit()
    paths = [
        path.rename(path.with_stem(f"{'long' * 20}-{path.stem}")) for path in clips(tmp_path, 2)
    ]
    page.locator("#files").set_input_files(paths)
    expect(page.locator(".bars").first).to_be_visible()
    assert page.evaluate(SAID_TWICE) == []
    page.get_by_role("link", name="Compare").click()
    expect(page.locator(".matrix")).to_be_visible()
    assert page.evaluate(SAID_TWICE) == []
    row = page.locator(".matrix tbody th").first
    row.hover()
    expect(row).to_have_attribute("title", f"1  {paths[0].name}")


def test_each_view_has_a_title_of_its_own(visit: Visit) -> None:
    page = visit()
    expect(page).to_have_title("Listen: Viola")
    page.get_by_role("link", name="Compare").click()
    expect(page).to_have_title("Compare: Viola")
    page.go_back()
    expect(page).to_have_title("Listen: Viola")


def test_back_from_a_view_comes_to_the_one_that_an_unknown_address_had_shown(visit: Visit) -> None:
    page = visit("#nowhere")
    page.get_by_role("link", name="Compare").click()
    expect(page).to_have_title("Compare: Viola")
    page.go_back()
    expect(page).to_have_title("Listen: Viola")
    expect(page.get_by_role("heading", name="What is in this sound?")).to_be_visible()


def test_a_long_name_leaves_room_for_what_is_said_of_it(visit: Visit, clip: Path) -> None:
    page = visit(viewport={"width": 320, "height": 568})
    page.locator("#files").set_input_files(clip.rename(clip.with_stem("long-" * 40)))
    expect(page.locator("#sound .bars").first).to_be_visible()
    expect(page.locator("#status")).to_contain_text("…")
    assert page.locator("#status").evaluate("one => one.clientHeight") < 568 / 3


def test_what_colours_say_is_also_said_without_them(visit: Visit, tmp_path: Path) -> None:
    """With the colours of the system alone, as in a high contrast."""
    page = visit(forced_colors="active")
    page.locator("#files").set_input_files(clips(tmp_path, 2))
    expect(page.locator("#sound .bars").first).to_be_visible()
    look = "one => [getComputedStyle(one).backgroundColor, getComputedStyle(one).color].join()"
    chosen, other = page.locator("#sounds button").all()
    assert chosen.evaluate(look) != other.evaluate(look)
    here, there, *_ = page.locator("nav a").all()
    assert here.evaluate(look) != there.evaluate(look)
    check_accessible(page)


def test_what_is_printed_is_the_results_dark_on_white(visit: Visit, clip: Path) -> None:
    page = visit(color_scheme="dark")
    page.locator("#files").set_input_files(clip)
    expect(page.locator("#sound .bars").first).to_be_visible()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.locator("#sound .bars").first).to_be_visible()
    expect(page.get_by_role("button")).to_have_count(0)
    expect(page.get_by_role("link", name="Compare")).to_be_hidden()


def test_the_focus_is_never_lost(page: Page) -> None:
    """What is replaced by what it began hands the focus on."""
    chosen = page.get_by_label("Collection", exact=True)
    chosen.focus()
    chosen.press("ArrowDown")
    expect(page.get_by_role("heading", name="street", exact=True)).to_be_visible()
    expect(chosen).to_be_focused()
    page.get_by_text("Make a collection").click()
    page.get_by_label("called").first.fill("rain")
    page.get_by_label("called").first.press("Enter")
    expect(page.get_by_role("heading", name="rain", exact=True)).to_be_visible()
    expect(chosen).to_be_focused()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").press("Enter")
    expect(page.get_by_role("heading", name="rain", exact=True)).to_have_count(0)
    expect(chosen).to_be_focused()


def test_a_button_that_is_off_while_it_works_has_the_focus_again(visit: Visit, clip: Path) -> None:
    page = visit()
    page.locator("#files").set_input_files(clip)
    expect(page.locator(".chart").first).to_be_visible()
    label = page.get_by_role("button", name="Label", exact=True)
    label.press("Enter")
    expect(page.locator(".chart").first).to_be_visible()
    expect(label).to_be_enabled()
    expect(label).to_be_focused()


def test_items_can_be_searched_and_are_named_by_keyboard(page: Page) -> None:
    page.locator("#label-names").fill("bell")
    first = items(page).first
    first.press("1")
    expect(first).to_have_attribute("aria-label", "clip-0.wav, 0.50 s, bell")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Play clip-1.wav")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Like clip-1.wav")).to_be_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    expect(items(page).nth(1)).to_be_focused()
    check_accessible(page)


def test_what_is_done_is_read_out_and_not_each_step(page: Page, tmp_path: Path) -> None:
    page.evaluate(LISTENS)
    (tmp_path / "more").mkdir()
    more = clips(tmp_path / "more", 3)
    for number, path in enumerate(more):
        sf.write(path, tone(900 + 40 * number, 0.5), 16_000)
    page.locator("#add-files").set_input_files(more)
    expect(page.get_by_text("6 recordings")).to_be_visible()
    assert page.evaluate("heard") == ["3 of 3 files are in the collection."]


def test_a_browser_asks_before_files_that_are_being_added_are_left(
    page: Page, tmp_path: Path
) -> None:
    leaving = "dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    assert page.evaluate(leaving)
    page.route("**/items", lambda route: None)
    page.locator("#add-files").set_input_files(clips(tmp_path, 1))
    expect(page.get_by_role("progressbar", name="Adding")).to_be_visible()
    assert not page.evaluate(leaving)


def test_charts_and_waveforms_have_a_text(visit: Visit, clip: Path) -> None:
    page = visit()
    page.locator("#files").set_input_files(clip)
    expect(page.get_by_role("img", name="Waveform of a clip.wav")).to_be_visible()
    expect(page.get_by_role("img", name="Chart of scores").first).to_be_visible()
    check_accessible(page)
