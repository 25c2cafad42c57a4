"""The documentation page in a real browser."""

from pathlib import Path

import httpx
import pytest
import soundfile as sf
from playwright.sync_api import Page, expect, sync_playwright

from tests.signals import tone


@pytest.mark.browser
@pytest.mark.parametrize("route", ["embeddings", "analyze"])
def test_a_person_can_send_a_file_on_the_documentation_page(
    client: httpx.Client, tmp_path: Path, route: str
) -> None:
    path = tmp_path / "tone.wav"
    sf.write(path, tone(440, 1.0), 16_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        try:
            _send(browser.new_page(), str(client.base_url), route, path)
        finally:
            browser.close()


def _send(page: Page, address: str, route: str, path: Path) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{address.rstrip('/')}/docs")
    operation = page.locator(".opblock-post", has_text=f"/v1/audio/{route}")
    operation.locator(".opblock-summary").first.click()
    operation.locator("input[type=file]").first.set_input_files(path)
    operation.locator(".execute").click()
    answer = operation.locator(".live-responses-table")
    expect(answer.locator("tbody .response-col_status").first).to_contain_text("200")
    expect(answer).to_contain_text("tone.wav")
    assert complaints == []
