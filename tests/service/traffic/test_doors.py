"""Rights stand on the routes: all routes, all spellings of their paths, keys of each scope."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute

from service.app import create_app
from service.settings import Settings
from service.traffic import doors
from service.traffic.access import Access, needs_key, open_to_all
from service.traffic.auth import digest_of, new_key
from service.traffic.doors import Door, UndeclaredAccess
from tests.service.conftest import Serve, encoded, tone
from tests.service.traffic.test_refusals import refused
from tests.spellings import spellings

# What each route needs, written down a second time: whoever changes a right has to mean it
OPEN, ANY_KEY = None, frozenset[str]()
RIGHTS: dict[str, frozenset[str] | None] = {
    "/": OPEN,
    "/docs": OPEN,
    "/openapi.json": OPEN,
    "/web": OPEN,
    "/problems": OPEN,
    "/problems/{slug}": OPEN,
    "/livez": OPEN,
    "/readyz": OPEN,
    "/healthz": OPEN,
    "/v2/health/live": OPEN,
    "/v2/health/ready": OPEN,
    "/metrics": frozenset({"metrics"}),
    "/v1/selftest": frozenset({"metrics"}),
    "/v1/limits": ANY_KEY,
    "/v1/usage": ANY_KEY,
    "/v1/models": ANY_KEY,
    "/v1/models/{model_id}": ANY_KEY,
    "/v1/classifiers": ANY_KEY,
    "/v1/classifiers/{name}": ANY_KEY,
    "POST /v1/classifiers": frozenset({"teach"}),
    "DELETE /v1/classifiers/{name}": frozenset({"teach"}),
    "/v1/classifiers/{name}/file": frozenset({"teach"}),
    "/v1/classifiers/{name}/next": frozenset({"teach"}),
    "/v1/classifiers/{name}/versions/{number}": frozenset({"teach"}),
    "/v1/classifiers/{name}/versions/{number}/activate": frozenset({"teach"}),
    "/v1/embeddings": frozenset({"embed"}),
    "/v1/audio/embeddings": frozenset({"embed"}),
    "/v1/audio/inspect": frozenset({"embed"}),
    "/v1/audio/log-mels": frozenset({"embed"}),
    "/v1/audio/samples": frozenset({"embed"}),
    "/v1/audio/classifications": frozenset({"classify"}),
    "/v1/audio/analyze": frozenset({"embed", "classify"}),
    "/v1/audio/stream": frozenset({"embed", "classify"}),
    "/v1/collections": frozenset({"search"}),
    "/v1/collections/{name}": frozenset({"search"}),
    "/v1/collections/{name}/duplicates": frozenset({"search"}),
    "/v1/collections/{name}/map": frozenset({"search"}),
    "/v1/collections/{name}/reembed": frozenset({"search"}),
    "/v1/collections/{name}/vectors": frozenset({"search"}),
    "/v1/collections/{name}/items": frozenset({"search"}),
    "/v1/collections/{name}/items/{id}": frozenset({"search"}),
    "/v1/collections/{name}/items/{id}/audio": frozenset({"search"}),
    "/v1/collections/{name}/items/{id}/samples": frozenset({"search"}),
    "/v1/collections/{name}/deletions": frozenset({"search"}),
    "/v1/collections/{name}/search": frozenset({"search"}),
    "/v1/collections/{name}/labels": frozenset({"teach"}),
    "/v1/collections/{name}/labels/{number}": frozenset({"teach"}),
    "/v1/jobs": frozenset({"jobs"}),
    "/v1/jobs/{id}": frozenset({"jobs"}),
    "/v1/jobs/{id}/result": frozenset({"jobs"}),
    "/v1/jobs/{id}/cancel": frozenset({"jobs"}),
    "OPTIONS /v1/uploads": OPEN,
    "POST /v1/uploads": frozenset({"jobs"}),
    "/v1/uploads/{id}": frozenset({"jobs"}),
    "/v2": ANY_KEY,
    "/v2/models/{model}": ANY_KEY,
    "/v2/models/{model}/ready": ANY_KEY,
    "/v2/models/{model}/versions/{version}": ANY_KEY,
    "/v2/models/{model}/versions/{version}/ready": ANY_KEY,
    "/v2/models/{model}/infer": frozenset({"embed"}),
    "/v2/models/{model}/versions/{version}/infer": frozenset({"embed"}),
}
VALUES = {"slug": "empty", "model": "tiny", "model_id": "tiny", "version": "space-of-tiny"}
VALUES |= {"name": "birds", "id": "owl", "number": "1"}
SCOPES = ("embed", "classify", "metrics", "search", "teach", "jobs")
KEYS = {name: new_key() for name in (*SCOPES, "spent")}
LINES = [f"{name}:{digest_of(KEYS[name])}:{name}" for name in SCOPES]
LINES.append(f"spent:{digest_of(KEYS['spent'])}:{','.join(SCOPES)}:0.001")
REFUSALS = (401, 403, 429)
NO_SUCH_PATH = (400, 404)  # no HTTP at all, and no route
METERED = {path for path, scopes in RIGHTS.items() if scopes and scopes & {"embed", "classify"}}
METERED |= {"/v1/collections/{name}/items", "/v1/collections/{name}/search", "/v1/jobs"}
OTHER_PLACES = {"/v1/audio/stream", "/v1/jobs", "/v1/collections/{name}/reembed"}
METERED |= {"/v1/collections/{name}/reembed", "/v1/collections/{name}/items/{id}/samples"}


@pytest.fixture(scope="module")
def app(model_file: str) -> FastAPI:
    return create_app(Settings(models=model_file, threads=1))


@pytest.fixture(scope="module")
def keyed(serve: Serve) -> Iterator[httpx.Client]:
    """A service with a key of each scope, and one whose quota is used up."""
    with serve(api_keys=" ".join(LINES)) as client:
        headers = {"Authorization": f"Bearer {KEYS['spent']}"}
        assert client.post("/v1/audio/embeddings", content=encoded(tone()), headers=headers)
        yield client


@contextmanager
def line(client: httpx.Client) -> Iterator[http.client.HTTPConnection]:
    """A connection that sends paths as they are."""
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def status(to: http.client.HTTPConnection, method: str, path: str, key: str | None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if method == "WEBSOCKET":
        headers |= {"Connection": "Upgrade", "Upgrade": "websocket"}
        headers |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    to.request("GET" if method == "WEBSOCKET" else method, path, headers=headers)
    with to.getresponse() as answer:
        if method != "WEBSOCKET":
            answer.read()
    if method == "WEBSOCKET":
        to.close()
    return answer.status


def filled(route: BaseRoute) -> str:
    path = getattr(route, "path", "")
    return "/web/swagger/LICENSE" if path == "/web" else path.format(**VALUES)


def methods(route: BaseRoute) -> list[str]:
    if type(route).__name__ == "APIWebSocketRoute":
        return ["WEBSOCKET"]
    return sorted(set(getattr(route, "methods", None) or {"GET"}) | {"HEAD"})


def main_method(route: BaseRoute) -> str:
    return next(method for method in methods(route) if method != "HEAD")


def place(door: Door) -> str:
    """The path; with its method where others of the same path have other rights."""
    with_method = f"{main_method(door.route)} {door.path}"
    return with_method if with_method in RIGHTS else door.path


def walk(app: FastAPI) -> Iterator[Door]:
    for door in app.routes:
        assert isinstance(door, Door)
        yield door


def test_every_route_declares_the_rights_that_are_written_down_here(app: FastAPI) -> None:
    found = {
        place(door): door.access.scopes if door.access.needs_key else OPEN for door in walk(app)
    }
    assert found == RIGHTS
    assert {door.path for door in walk(app) if door.access.metered} == METERED
    assert {door.path for door in walk(app) if door.access.takes_place} == METERED - OTHER_PLACES
    drained = {place(door) for door in walk(app) if door.access.drained}
    assert drained == METERED | {
        "/v1/selftest",
        "POST /v1/classifiers",
        "POST /v1/uploads",
        "/v1/uploads/{id}",
    }


def test_a_key_opens_what_its_scopes_say_and_nothing_else(
    keyed: httpx.Client, app: FastAPI
) -> None:
    with line(keyed) as to:
        for door in walk(app):
            needed = RIGHTS[place(door)]
            for method in methods(door.route):
                if method == "HEAD" and place(door) != door.path:
                    continue  # the GET of that path answers it
                assert (status(to, method, filled(door.route), None) == 401) is (needed is not OPEN)
                for scope in SCOPES:
                    answer = status(to, method, filled(door.route), KEYS[scope])
                    is_refused = needed is not OPEN and not needed <= {scope}
                    assert (answer == 403) is is_refused, (door.path, method, scope, answer)


def test_no_spelling_of_a_path_has_other_rights_than_the_path(
    keyed: httpx.Client, app: FastAPI
) -> None:
    holders = [None, *KEYS.values()]
    alone = [door for door in walk(app) if place(door) == door.path]
    paths = {filled(door.route): main_method(door.route) for door in alone}
    with line(keyed) as to:
        for path, method in paths.items():
            expected = [status(to, method, path, key) for key in holders]
            for other in sorted(set(spellings(path)) - set(paths)):
                found = [status(to, method, other, key) for key in holders]
                if len(set(found)) == 1 and found[0] in NO_SUCH_PATH:
                    continue
                for before, after in zip(expected, found, strict=True):
                    same = after == before if {before, after} & set(REFUSALS) else True
                    assert same, (method, path, other, expected, found)


def test_a_quota_that_is_used_up_stays_so_for_every_metered_route(
    keyed: httpx.Client, app: FastAPI
) -> None:
    with line(keyed) as to:
        for door in walk(app):
            method = main_method(door.route)
            answer = status(to, method, filled(door.route), KEYS["spent"])
            assert (answer == 429) is door.access.metered, (door.path, method, answer)


def test_every_get_answers_head_with_the_same_head(keyed: httpx.Client, app: FastAPI) -> None:
    with line(keyed) as to:
        for door in walk(app):
            if "GET" not in methods(door.route):
                continue
            for key in (None, *KEYS.values()):
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                to.request("GET", filled(door.route), headers=headers)
                with to.getresponse() as got:
                    got.read()
                to.request("HEAD", filled(door.route), headers=headers)
                with to.getresponse() as head:
                    assert head.read() == b""
                assert head.status == got.status, door.path
                assert head.getheader("Content-Type") == got.getheader("Content-Type")


def test_the_methods_that_a_route_takes_are_named_and_head_among_them(
    client: httpx.Client,
) -> None:
    answer = client.post("/v1/models")
    refused(answer, "method-not-allowed")
    assert answer.headers["Allow"] == "GET, HEAD"


def test_a_path_that_is_none_is_not_found_whatever_asks(keyed: httpx.Client) -> None:
    with line(keyed) as to:
        for key in (None, *KEYS.values()):
            assert status(to, "GET", "/nowhere", key) == 404
            assert status(to, "WEBSOCKET", "/nowhere", key) == 404
            assert status(to, "WEBSOCKET", "/v1/audio/embeddings", key) == 404


def test_a_route_that_declares_nothing_is_refused(app: FastAPI) -> None:
    router = APIRouter()

    @router.get("/forgotten")
    async def forgotten() -> None: ...

    with pytest.raises(UndeclaredAccess, match="/forgotten does not declare"):
        doors.install(FastAPI(), router.routes, app.state.gate)
    router = APIRouter()
    router.mount("/files", FastAPI())
    with pytest.raises(UndeclaredAccess, match="/files does not declare"):
        doors.install(FastAPI(), router.routes, app.state.gate)


def test_a_service_does_not_start_with_a_route_that_has_no_door(model_file: str) -> None:
    late = create_app(Settings(models=model_file, threads=1))

    @late.get("/late")
    @open_to_all
    async def add() -> None: ...

    with pytest.raises(UndeclaredAccess, match="/late"):
        doors.check(late)


def test_what_is_metered_is_drained() -> None:
    async def embed() -> None: ...

    needs_key("embed", metered=True)(embed)
    router = APIRouter()
    router.add_api_route("/x", embed)
    (route,) = router.routes
    found = doors.declared_access(route)
    assert found == Access(True, frozenset({"embed"}), metered=True, drained=True)
