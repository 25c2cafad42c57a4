"""Models behind a URL: fetched once, kept, and never another file than the digest says."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

import viola
from service.inference import fetching
from service.inference.fetching import models_path
from service.settings import Settings, SettingsError, load_settings
from tests.heads import write_head
from tests.service.conftest import serving


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, model_file: Path) -> Path:
    """What lies on the server: a model, a classifier of its space, and their list."""
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "encoder.onnx").write_bytes(model_file.read_bytes())
    write_head(folder / "head.onnx")
    lines = [f"{digest(p.read_bytes())}  {p.name}\n" for p in sorted(folder.glob("*.onnx"))]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    handler = partial(Quiet, directory=str(folder))
    Quiet.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def bucket(folder: Path) -> Iterator[str]:
    """The same in fsspec's memory, in the place of a bucket."""
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    yield "memory://bucket"
    memory.rm("/bucket", recursive=True)


def settings(tmp_path: Path, url: str, content: bytes) -> Settings:
    pinned = SecretStr(f"{url}#sha256={digest(content)}")
    return Settings(models_url=pinned, models_cache=tmp_path / "cache", threads=1)


def test_a_model_behind_a_url_is_served_and_fetched_once(
    server: str, folder: Path, tmp_path: Path
) -> None:
    content = (folder / "encoder.onnx").read_bytes()
    chosen = settings(tmp_path, f"{server}/encoder.onnx?signature=secret", content)
    with serving(chosen) as http:
        models = http.get("/v1/models").json()["data"]
        assert len(models) == 1
    n_asked = len(Quiet.asked)
    assert n_asked
    assert (models_path(chosen) / "encoder.onnx").read_bytes() == content
    assert len(Quiet.asked) == n_asked


@pytest.mark.parametrize("where", ["server", "bucket"])
def test_a_list_names_all_models_of_a_folder(
    where: str, folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(where)
    listed = (folder / "SHA256SUMS").read_bytes()
    place = models_path(settings(tmp_path, f"{url}/SHA256SUMS", listed))
    found = {path.name: path.read_bytes() for path in place.glob("*.onnx")}
    assert found == {path.name: path.read_bytes() for path in folder.glob("*.onnx")}


def test_another_file_than_the_digest_says_is_refused_and_not_kept(
    bucket: str, tmp_path: Path
) -> None:
    chosen = settings(tmp_path, f"{bucket}/encoder.onnx", b"another")
    with pytest.raises(SettingsError, match=f"expected {digest(b'another')}.*another file"):
        models_path(chosen)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_one_other_file_of_a_list_refuses_it(bucket: str, folder: Path, tmp_path: Path) -> None:
    listed = (folder / "SHA256SUMS").read_bytes()
    fsspec.filesystem("memory").pipe_file("/bucket/head.onnx", b"changed")
    with pytest.raises(SettingsError, match=r"head\.onnx has the SHA-256"):
        models_path(settings(tmp_path, f"{bucket}/SHA256SUMS", listed))


def test_a_copy_that_has_changed_and_one_that_is_not_listed_are_not_served(
    bucket: str, folder: Path, tmp_path: Path
) -> None:
    chosen = settings(tmp_path, f"{bucket}/SHA256SUMS", (folder / "SHA256SUMS").read_bytes())
    place = models_path(chosen)
    (place / "encoder.onnx").write_bytes(b"changed")
    (place / "other.onnx").write_bytes(b"not listed")
    assert models_path(chosen) == place
    assert (place / "encoder.onnx").read_bytes() == (folder / "encoder.onnx").read_bytes()
    assert not (place / "other.onnx").exists()


def test_what_is_there_needs_no_network(bucket: str, folder: Path, tmp_path: Path) -> None:
    chosen = settings(tmp_path, f"{bucket}/encoder.onnx", (folder / "encoder.onnx").read_bytes())
    models_path(chosen)
    fsspec.filesystem("memory").rm("/bucket/encoder.onnx")
    models_path(chosen)


@pytest.mark.parametrize(
    "line", ["", "encoder.onnx", f"{'0' * 64}  ../up.onnx", f"{'0' * 64}  /etc/x.onnx", "0  x.onnx"]
)
def test_a_list_that_is_none_or_leads_elsewhere_is_refused(
    bucket: str, tmp_path: Path, line: str
) -> None:
    content = f"{line}\n".encode() if line else b""
    fsspec.filesystem("memory").pipe_file("/bucket/LIST", content)
    with pytest.raises(SettingsError, match="expected"):
        models_path(settings(tmp_path, f"{bucket}/LIST", content))


def test_a_file_without_end_is_given_up(
    bucket: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 1000)
    chosen = settings(tmp_path, f"{bucket}/encoder.onnx", (folder / "encoder.onnx").read_bytes())
    with pytest.raises(SettingsError, match="more than 1000 bytes"):
        models_path(chosen)


def test_what_is_not_there_is_said_without_the_secrets_of_the_url(
    server: str, tmp_path: Path
) -> None:
    url = server.replace("//", "//user:password@") + "/none.onnx?signature=secret"
    with pytest.raises(SettingsError, match=r"none\.onnx cannot be fetched") as error:
        models_path(settings(tmp_path, url, b""))
    assert "secret" not in str(error.value)
    assert "password" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    ["https://a.example/x.onnx?s=secret", "models/#sha256=" + "0" * 64, "s3://b/x#sha256=0"],
)
def test_a_url_without_a_digest_is_refused_and_not_repeated(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIOLA_MODELS_URL", value)
    with pytest.raises(SettingsError, match=r"VIOLA_MODELS_URL=.*#sha256=") as error:
        load_settings()
    assert "secret" not in str(error.value)


def test_two_places_of_models_are_one_too_many(tmp_path: Path) -> None:
    chosen = Settings(models=tmp_path, models_url=SecretStr(f"memory://x.onnx#sha256={'0' * 64}"))
    with pytest.raises(SettingsError, match="choose one"):
        models_path(chosen)


def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    url = SecretStr(f"memory://x.onnx#sha256={'0' * 64}")
    chosen = Settings(models_url=url, models_cache=tmp_path / "file" / "cache")
    with pytest.raises(SettingsError, match="VIOLA_MODELS_CACHE.*may be written"):
        models_path(chosen)


def test_the_command_says_in_one_line_what_is_wrong(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIOLA_MODELS_URL", f"{bucket}/encoder.onnx#sha256={'0' * 64}")
    monkeypatch.setenv("VIOLA_MODELS_CACHE", str(tmp_path / "cache"))
    result = CliRunner().invoke(viola.build(), ["serve", "--check"])
    assert result.exit_code == 2
    assert "has the SHA-256" in result.output
    monkeypatch.delenv("VIOLA_MODELS_URL")
    result = CliRunner().invoke(viola.build(), ["serve", "--models", "https://a.example/x.onnx"])
    assert "VIOLA_MODELS_URL" in result.output
