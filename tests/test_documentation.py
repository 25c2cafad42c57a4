"""Every command and snippet of README and docs: run, or parsed where it needs what a test has not.

A GPU, a daemon, a cluster, a day of sound are not here: of such commands names and options are
checked, of requests path and parameters.
"""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import typer

import viola
from models.modelfile import PRETRAINED
from service.settings import Settings
from tests.service.conftest import serving, until

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPENAPI = json.loads((ROOT / "tests" / "service" / "openapi.json").read_text())
NEEDS_WHAT_IS_NOT_HERE = "openai.OpenAI"
ADDRESS = "http://127.0.0.1:8000"  # of the service in what is written

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def blocks(page: Path, kind: str) -> list[str]:
    return [body for found, body in FENCE.findall(page.read_text()) if found == kind]


def commands(page: Path, name: str) -> list[list[str]]:
    """The words of each call of a command in the page's shell blocks, without the command itself.

    A variable of the environment before it and what follows a pipe or a comment are left out.
    """
    calls = []
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||;|>>", line):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                if words and Path(words[0]).name == name:
                    calls.append(words[1:])
    return calls


@each_page
def test_every_call_of_viola_has_commands_and_options_that_exist(page: Path) -> None:
    group = typer.main.get_command(viola.build())
    for words in commands(page, "viola"):
        if words == ["--help"]:
            continue
        command = group.commands[words[0]]  # type: ignore[attr-defined]
        context = command.context_class(command, info_name=words[0])
        command.make_parser(context).parse_args([w for w in words[1:] if w != "..."])


@each_page
def test_every_call_of_make_has_a_target(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(page, "make"):
        assert {word for word in words if "=" not in word} <= targets


@each_page
def test_every_request_has_a_path_and_parameters_that_exist(page: Path) -> None:
    for words in commands(page, "curl"):
        (url,) = [word for word in words if re.match(r"(http://|localhost)", word)]
        parts = urlsplit(url if url.startswith("http") else f"http://{url}")
        matching = [
            operations
            for path, operations in OPENAPI["paths"].items()
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), parts.path)
        ]
        assert matching, url
        (operation,) = [op for op in matching[0].values() if isinstance(op, dict)][:1]
        known = {parameter["name"] for parameter in operation.get("parameters", [])}
        assert set(parse_qs(parts.query)) <= known, url


@each_page
def test_every_script_of_the_benchmarks_exists(page: Path) -> None:
    for name in re.findall(r"`(benchmarks/\w+\.py)", page.read_text()):
        assert (ROOT / name).is_file()


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@each_page
def test_every_json_that_is_whole_is_json(page: Path) -> None:
    for block in blocks(page, "json"):
        for line in block.splitlines() if "\n{" in block else [block]:
            json.loads(re.sub(r"\[…\]|…", lambda m: "[]" if "[" in m[0] else "", line))


@each_page
def test_every_page_is_in_the_contents(page: Path) -> None:
    if page.parent != ROOT and page.name != "README.md":
        assert f"({page.name})" in (ROOT / "docs" / "README.md").read_text()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service as it ships, with a folder for collections."""
    data = tmp_path_factory.mktemp("data")
    with serving(Settings(models=PRETRAINED, threads=1, data=data)) as http:
        yield str(http.base_url)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_every_snippet_of_python_runs(page: Path, tmp_path: Path, address: str) -> None:
    """In a folder with the samples and, where the page makes one, a table of their vectors."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    for words in commands(page, "viola"):
        if words[0] == "embed" and words[1].startswith("samples/"):
            files = sorted(str(path) for path in tmp_path.glob(words[1]))
            command = [sys.executable, "-m", "viola", "embed", *files, *words[2:], "--force"]
            subprocess.run(command, check=True, cwd=tmp_path, env=environment())
    for block in blocks(page, "python"):
        if NEEDS_WHAT_IS_NOT_HERE in block:
            ast.parse(block)
            continue
        subprocess.run(
            [sys.executable, "-W", "error", "-c", block.replace(ADDRESS, address)],
            check=True,
            cwd=tmp_path,
            env=environment(),
        )


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_jobs_do_what_the_page_says(address: str, tmp_path: Path) -> None:
    """In their order; ids in capitals are those of the answers."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    httpx.put(f"{address}/v1/collections/sounds")
    ids = {"JOB": "", "UPLOAD": ""}
    lines = [
        line for block in blocks(ROOT / "docs" / "jobs.md", "sh") for line in block.splitlines()
    ]
    for line in (line for line in lines if "curl" in line):
        for name, value in ids.items():
            line = line.replace(name, value)
        if line.endswith("/result"):
            until(lambda: "ended_at" in httpx.get(f"{address}/v1/jobs/{ids['JOB']}").json(), 60)
        line = line.replace(ADDRESS, address).replace("curl", "curl -sS -w '\\n%{http_code}'")
        ran = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True)
        answer, _, status = ran.stdout.rpartition("\n")
        assert status[:1] == "2", (line, ran.stdout, ran.stderr)
        if found := re.search(r'"object":"(job|upload)","id":"(\w+)"', answer):
            ids[found[1].upper()] = found[2]
        if line.partition("/v1/")[2].endswith("/result"):
            assert [json.loads(one)["object"] for one in answer.splitlines()].count("done") == 2


def environment() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PATH": ""}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 170
