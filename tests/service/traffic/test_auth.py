"""API keys: who is let in, what each key opens, and what is decided before a body is read."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers
from structlog.testing import capture_logs
from typer.testing import CliRunner

import viola
from service.app import create_app
from service.problems import Problem
from service.settings import Settings, SettingsError
from service.traffic import auth
from service.traffic.auth import Key, Keyring, digest_of, load_keys, new_key
from tests.service.conftest import Serve, encoded, tone, until
from tests.service.traffic.test_refusals import refused

EMBED = "/v1/audio/embeddings"
CLASSIFY = "/v1/audio/classifications"
KEYS = {name: new_key() for name in ("all", "embedder", "classifier", "scraper")}
LINES = [
    f"all:{digest_of(KEYS['all'])}",
    f"embedder:{digest_of(KEYS['embedder'])}:embed",
    f"classifier:{digest_of(KEYS['classifier'])}:classify:30",
    f"scraper:{digest_of(KEYS['scraper'])}:metrics",
]


@pytest.fixture(scope="module")
def keyed(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The service with a file of keys."""
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text("# who may\n\n" + "\n".join(LINES) + "\n")
    with serve(api_keys_file=path) as client:
        yield client


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer"}]
)
def test_a_request_without_a_key_is_told_how_to_send_one(
    keyed: httpx.Client, header: dict[str, str]
) -> None:
    answer = keyed.post(EMBED, content=encoded(tone()), headers=header)
    refused(answer, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_an_unknown_key_is_refused_and_never_repeated(keyed: httpx.Client) -> None:
    with capture_logs() as logs:
        answer = keyed.post(EMBED, headers={"Authorization": "Bearer viola_guess"})
        refused(answer, "unauthorized")
        until(lambda: any(entry["event"] == "request" for entry in logs))
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert "viola_guess" not in answer.text + str(logs)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_known_key_opens_what_its_scopes_say(keyed: httpx.Client, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {KEYS['embedder']}"}
    assert keyed.post(EMBED, content=encoded(tone()), headers=headers).status_code == 200
    assert keyed.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("name", "path", "scope"),
    [
        ("embedder", CLASSIFY, "classify"),
        ("classifier", EMBED, "embed"),
        ("embedder", "/v1/audio/analyze", "classify"),
        ("classifier", "/v1/audio/analyze", "embed"),
        ("scraper", EMBED, "embed"),
        ("all", "/metrics", "metrics"),
    ],
)
def test_a_key_without_the_scope_is_forbidden_and_told_which(
    keyed: httpx.Client, name: str, path: str, scope: str
) -> None:
    answer = keyed.request(
        "GET" if path == "/metrics" else "POST", path, headers=bearer(name), content=b""
    )
    assert scope in refused(answer, "forbidden")["detail"]
    assert f'scope="{scope}"' in answer.headers["WWW-Authenticate"]


def test_a_key_in_scope_reads_the_metrics(keyed: httpx.Client) -> None:
    assert keyed.get("/metrics", headers=bearer("scraper")).status_code == 200


def test_every_route_but_health_and_documentation_needs_a_key(model_file: Path) -> None:
    app = create_app(Settings(models=model_file, api_keys=LINES[0]))
    ring = app.state.guards.keyring
    undocumented = {"/", "/docs", "/web/x", "/openapi.json", "/metrics", "/nowhere", "/v1/new"}
    paths = set(app.openapi()["paths"]) | undocumented
    locked = set()
    for path in paths:
        try:
            ring.admit(path, Headers())
        except Problem:
            locked.add(path)
    assert {EMBED, CLASSIFY, "/v1/models", "/v1/limits", "/metrics", "/nowhere"} <= locked
    assert all(
        path in ("/", "/livez", "/readyz", "/healthz", "/docs", "/openapi.json", "/web/x")
        or path.startswith(("/problems", "/v2/health/"))
        for path in paths - locked
    )


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs", "/openapi.json", "/problems"])
def test_health_and_documentation_need_no_key(keyed: httpx.Client, path: str) -> None:
    assert keyed.get(path).status_code == 200


def test_the_body_is_not_asked_for_before_the_key_is_known(keyed: httpx.Client) -> None:
    head = (
        f"POST {EMBED} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
        "Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection((keyed.base_url.host, keyed.base_url.port or 0), 10) as line:
        line.sendall(head.encode())
        answer = line.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_the_log_names_the_key_by_its_name(keyed: httpx.Client) -> None:
    with capture_logs() as logs:
        keyed.get("/v1/models", headers=bearer("embedder"))
        until(lambda: any(entry.get("route") == "/v1/models" for entry in logs))
    (line,) = (entry for entry in logs if entry.get("route") == "/v1/models")
    assert line["key"] == "embedder"
    assert KEYS["embedder"] not in str(logs)


def test_without_keys_the_service_is_open(client: httpx.Client) -> None:
    assert client.get("/v1/models").status_code == 200
    assert client.get("/metrics").status_code == 200


def test_keys_may_stand_in_the_environment_and_in_a_file_together(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(LINES[0])
    both = Settings(api_keys=" ".join(LINES[1:3]), api_keys_file=tmp_path / "keys")
    assert [key.name for key in load_keys(both)] == ["embedder", "classifier", "all"]
    assert "sha" not in repr(both)
    assert digest_of(KEYS["embedder"]) not in repr(both)


def test_a_line_says_scopes_and_quota_and_is_written_as_it_is_read() -> None:
    for line in [*LINES[1:], f"{LINES[2]}:4", f"web:{'0' * 64}:embed::4"]:
        assert Key.parse(line).line() == line
    key = Key.parse(LINES[2])
    assert (key.scopes, key.audio_seconds_per_minute) == ({"classify"}, 30.0)
    assert Key.parse(LINES[0]).scopes == {"embed", "classify"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("web", "SHA-256"),
        (f"web:{KEYS['all']}", "SHA-256"),
        (f"a b:{'0' * 64}", "name"),
        (f"web:{'0' * 64}:admin", "no such scope"),
        (f"web:{'0' * 64}:embed:none", "audio seconds"),
        (f"web:{'0' * 64}:embed:-1", "audio seconds"),
        (f"web:{'0' * 64}:embed:nan", "audio seconds"),
        (f"web:{'0' * 64}:embed:1:0", "in hand"),
        (f"web:{'0' * 64}:embed:1:1.5", "in hand"),
        (f"web:{'0' * 64}:embed:1:2:3", "five fields"),
    ],
)
def test_a_line_that_is_none_is_refused_by_its_number_and_not_shown(
    tmp_path: Path, line: str, reason: str
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{LINES[1]}\n{line}\n")
    with pytest.raises(SettingsError, match=rf"line 2: .*{reason}") as error:
        load_keys(Settings(api_keys_file=path))
    assert KEYS["all"] not in str(error.value)


def test_a_file_that_is_missing_or_holds_no_key_does_not_open_the_service(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_keys(Settings(api_keys_file=tmp_path / "none"))
    (tmp_path / "empty").write_text("# nobody yet\n")
    with pytest.raises(SettingsError, match="no key"):
        load_keys(Settings(api_keys_file=tmp_path / "empty"))


def test_two_keys_of_one_name_or_one_hash_are_refused() -> None:
    with pytest.raises(SettingsError, match="name of embedder"):
        load_keys(Settings(api_keys=f"{LINES[1]} embedder:{'0' * 64}"))
    with pytest.raises(SettingsError, match="digest of embedder"):
        load_keys(Settings(api_keys=f"{LINES[1]} other:{digest_of(KEYS['embedder'])}"))


def test_all_keys_are_compared_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: str, other: str) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    ring = Keyring(Key.parse(line) for line in LINES)
    ring.admit("/v1/models", Headers({"Authorization": f"Bearer {KEYS['all']}"}))
    assert len(compared) == len(LINES)


def test_the_command_makes_a_key_that_its_line_knows(tmp_path: Path) -> None:
    app = viola.build()
    made = CliRunner().invoke(
        app,
        ["key", "web", "--scope=embed", "--audio-seconds-per-minute=90", "--max-inflight=3"],
    )
    assert made.exit_code == 0
    secret = made.stderr.split()[0]
    key = Key.parse(made.stdout)
    assert key == Key("web", digest_of(secret), frozenset({"embed"}), 90.0, 3)
    assert secret not in made.stdout
    again = CliRunner().invoke(app, ["key", "web"])
    assert again.stdout != made.stdout
    assert CliRunner().invoke(app, ["key", "no name"]).exit_code == 2


def test_pages_of_other_origins_may_not_call_unless_the_setting_names_them(
    serve: Serve, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    closed = client.options(EMBED, headers=asked)
    assert "Access-Control-Allow-Origin" not in closed.headers
    monkeypatch.setenv("VIOLA_CORS_ORIGINS", "https://a.example, https://b.example")
    with serve(api_keys=LINES[0]) as other:
        for origin, allowed in (("https://a.example", True), ("https://c.example", False)):
            answer = other.options(EMBED, headers=asked | {"Origin": origin})
            assert (answer.headers.get("Access-Control-Allow-Origin") == origin) is allowed
            real = other.post(EMBED, headers={"Origin": origin})
            assert real.status_code == 401
            assert ("Access-Control-Allow-Origin" in real.headers) is allowed
        assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
