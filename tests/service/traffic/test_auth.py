"""API keys: who is let in, what each key opens, and what is decided before a body is read."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers
from structlog.testing import capture_logs
from typer.testing import CliRunner

import viola
from service.app import create_app
from service.settings import Settings, SettingsError, load_settings
from service.traffic import auth
from service.traffic.access import Access
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
    for quota in ("3600", "1234567.5", "0.1", "1e+22"):
        assert Key.parse(f"web:{'0' * 64}:embed:{quota}").line().endswith(f":{quota}")
    key = Key.parse(LINES[2])
    assert (key.scopes, key.audio_seconds_per_minute) == ({"classify"}, 30.0)
    assert Key.parse(LINES[0]).scopes == {"embed", "classify"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("web", "SHA-256"),
        pytest.param(f"web:{KEYS['all']}", "SHA-256", id="a key in the open"),
        (f"a b:{'0' * 64}", "name"),
        (f"web:{'0' * 64}:admin", "no such scope"),
        (f"web:{'0' * 64}:embed:none", "audio seconds"),
        (f"web:{'0' * 64}:embed:-1", "audio seconds"),
        (f"web:{'0' * 64}:embed:nan", "audio seconds"),
        (f"web:{'0' * 64}:embed:1:0", "in hand"),
        (f"web:{'0' * 64}:embed:1:1.5", "in hand"),
        (f"web:{'0' * 64}:embed:1:2:birds:4", "six fields"),
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


def test_a_file_of_keys_is_read_in_bounds(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="more than 4194304 bytes"):
        load_keys(Settings(api_keys_file=Path("/dev/zero")))
    with pytest.raises(SettingsError, match="directory"):
        load_keys(Settings(api_keys_file=tmp_path))


def test_keys_come_through_a_pipe_if_somebody_writes_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_text, args=("\n".join(LINES),))
    writing.start()
    assert len(load_keys(Settings(api_keys_file=pipe))) == len(LINES)
    writing.join()
    monkeypatch.setattr(auth, "PIPE_S", 0.1)
    with pytest.raises(SettingsError, match="a pipe into which nobody has written"):
        load_keys(Settings(api_keys_file=pipe))


@pytest.mark.parametrize("value", ["", " ", "\n \t\n"])
@pytest.mark.parametrize("name", ["VIOLA_API_KEYS", "VIOLA_API_KEYS_FILE"])
def test_a_variable_that_is_there_and_empty_does_not_open_the_service(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        create_app(load_settings())


def test_a_lost_variable_beside_a_good_file_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(LINES[0])
    with pytest.raises(SettingsError, match="VIOLA_API_KEYS holds no key"):
        load_keys(Settings(api_keys="", api_keys_file=tmp_path / "keys"))


def test_a_file_of_keys_may_be_written_on_windows(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(LINES[:2]).encode())
    assert len(load_keys(Settings(api_keys_file=tmp_path / "keys"))) == 2


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
    ring.admit(Access(), Headers({"Authorization": f"Bearer {KEYS['all']}"}))
    assert len(compared) == len(LINES)


def test_the_command_makes_a_key_that_its_line_knows(tmp_path: Path) -> None:
    app = viola.build()
    made = CliRunner().invoke(
        app,
        [
            *("key", "web", "--scope=embed", "--audio-seconds-per-minute=90", "--max-inflight=3"),
            *("--group=birds", "--group=bats"),
        ],
    )
    assert made.exit_code == 0
    secret = made.stderr.split()[0]
    key = Key.parse(made.stdout)
    groups = frozenset({"birds", "bats"})
    assert key == Key("web", digest_of(secret), frozenset({"embed"}), 90.0, 3, groups)
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


@pytest.mark.parametrize(
    ("host", "is_let_in"),
    [
        ("rebound.example", False),
        ("rebound.example:8000", False),
        ("127.0.0.1.rebound.example", False),
        ("Rebound.Example.", False),
        ("a.example", True),
        ("A.example.:443", True),
        ("localhost:8000", True),
        ("viola.localhost", True),
        ("laptop.local:8000", True),
        ("viola", True),
        ("192.0.2.1:8000", True),
        ("[::1]:8000", True),
        ("[::1]", True),
    ],
)
def test_no_page_leads_its_own_name_to_this_machine(
    serve: Serve, host: str, is_let_in: bool
) -> None:
    with serve(cors_origins=("https://a.example",)) as client:
        for path in ("/v1/models", "/", "/metrics"):
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code == (200 if is_let_in else 403), path
        assert client.get("/livez", headers={"Host": host}).status_code == 200
        answer = client.post(EMBED, files={"file": encoded(tone())}, headers={"Host": host})
        assert answer.status_code == (200 if is_let_in else 403)


@pytest.mark.parametrize("how", [{"api_keys": LINES[0]}, {"host": "0.0.0.0"}])
def test_a_service_with_keys_or_for_others_has_any_name(serve: Serve, how: dict[str, str]) -> None:
    with serve(**how) as client:
        answer = client.get("/v1/models", headers={"Host": "viola.example"})
        assert answer.status_code == (401 if "api_keys" in how else 200)


# Of the official clients, and of the Open Inference Protocol
SENT = "authorization, content-type, x-stainless-lang, x-stainless-retry-count, x-request-id, "
SENT += "inference-header-content-length, traceparent"


def test_a_page_that_may_call_may_send_and_read_what_clients_and_routes_do(serve: Serve) -> None:
    page = {"Origin": "https://a.example"}
    asked = page | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": SENT,
    }
    with serve(cors_origins=("https://a.example",)) as client:
        answer = client.options(EMBED, headers=asked)
        assert answer.status_code == 200
        allowed = answer.headers["Access-Control-Allow-Headers"].lower()
        assert {name.strip() for name in SENT.split(",")} <= {
            name.strip() for name in allowed.split(",")
        }
        assert {"GET", "HEAD", "POST"} <= {
            name.strip() for name in answer.headers["Access-Control-Allow-Methods"].split(",")
        }
        real = client.post(EMBED + "?output=npy", content=encoded(tone()), headers=page)
        exposed = real.headers["Access-Control-Expose-Headers"]
        assert exposed == "*"  # without cookies that is any: the space id, Retry-After and others
        assert "Access-Control-Allow-Credentials" not in real.headers
        assert "Viola-Space-Id" in real.headers
        foreign = client.options(EMBED, headers=asked | {"Origin": "https://b.example"})
        assert foreign.status_code == 400


@pytest.mark.parametrize(
    ("site", "origin", "is_let_in"),
    [
        (None, None, True),
        (None, "https://b.example", True),  # no browser of today; its answer is kept from the page
        ("same-origin", "http://127.0.0.1", True),
        ("none", None, True),
        ("cross-site", "https://a.example", True),
        ("cross-site", "https://b.example", False),
        ("same-site", "http://127.0.0.1:9999", False),
        ("cross-site", "null", False),
        ("cross-site", None, False),
    ],
)
def test_a_page_of_another_origin_makes_no_browser_post_here(
    serve: Serve, site: str | None, origin: str | None, is_let_in: bool
) -> None:
    given = {"Sec-Fetch-Site": site, "Origin": origin}
    headers = {name: value for name, value in given.items() if value is not None}
    with serve(cors_origins=("https://a.example",)) as client:
        answer = client.post(EMBED, files={"file": encoded(tone())}, headers=headers)
        assert client.get("/v1/models", headers=headers).status_code == 200
    if is_let_in:
        assert answer.status_code == 200
    else:
        refused(answer, "foreign-origin")
