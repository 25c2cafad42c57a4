"""The page at `/` as the service sends it: its policy, its files, its size."""

import gzip
import json
import re
import subprocess
from pathlib import Path

import httpx

WEB = Path(__file__).parents[2] / "service" / "web"
OURS = ("page", "vendor")
MOST_BYTES = 300_000  # in gzip, all of it


def test_the_page_allows_no_script_but_its_own_files(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "<script>" not in page.text
    assert not re.search(r"\son\w+=", page.text)


def test_the_nonce_is_new_every_time(client: httpx.Client) -> None:
    nonces = set()
    for _ in range(2):
        page = client.get("/")
        (nonce,) = re.findall(r'csp-nonce" content="([^"]+)"', page.text)
        assert f"'nonce-{nonce}'" in page.headers["Content-Security-Policy"]
        nonces.add(nonce)
    assert len(nonces) == 2


def test_everything_that_the_page_names_is_here(client: httpx.Client) -> None:
    named = set(re.findall(r'(?:src|href)="([^"#]+)"', client.get("/").text))
    for script in (WEB / "page").glob("*.js"):
        for target in re.findall(r'from "(\.[^"]+)"', script.read_text()):
            named.add(str((script.parent / target).resolve().relative_to(WEB.parent)))
    assert "web/page/main.js" in named
    for path in named:
        assert "://" not in path
        assert client.get(f"/{path}").status_code == 200, path


def test_all_of_it_is_small() -> None:
    files = [path for name in OURS for path in (WEB / name).rglob("*") if path.suffix in SERVED]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < MOST_BYTES


SERVED = (".html", ".css", ".js", ".svg")


def test_what_is_vendored_has_its_licence_and_version() -> None:
    told = (WEB / "vendor" / "README.md").read_text()
    for folder in (WEB / "vendor").iterdir():
        if folder.is_dir():
            assert list(folder.glob("LICENSE*")), folder
            assert f"`{folder.name}/`" in told


def test_nothing_evaluates_text_as_code() -> None:
    for path in [path for name in OURS for path in (WEB / name).rglob("*.js")]:
        assert not re.search(r"\beval\(|new Function\(|new Worker\(|\bFunction\(", path.read_text())


def test_the_samples_are_those_of_the_project(client: httpx.Client) -> None:
    samples = WEB.parents[1] / "samples"
    for path in samples.iterdir():
        assert (WEB / "samples" / path.name).read_bytes() == path.read_bytes()
        assert client.get(f"/web/samples/{path.name}").status_code == 200
    script = (WEB / "page" / "listen.js").read_text()
    (listed,) = re.findall(r"samples = (\[[^\]]+\])", script)
    assert sorted(json.loads(listed)) == sorted(path.name for path in samples.glob("*.opus"))


def test_what_ships_is_what_git_tracks() -> None:
    """The wheel takes whole folders of the page: nothing may lie in them that git does not know."""
    run = ["git", "-C", str(WEB), "status", "--porcelain", "--ignored", "."]
    found = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in found if line.startswith("!!")] == []
