"""How many requests a caller may have in hand at once."""

from contextlib import suppress

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from service.problems import Problem
from service.traffic.auth import digest_of, new_key
from service.traffic.caller_limiter import CallerLimiter
from service.traffic.quotas import Caller
from tests.service.conftest import Serve, encoded, tone, until
from tests.service.telemetry.test_metrics import scraped
from tests.service.traffic.test_load import unfinished
from tests.service.traffic.test_refusals import refused

URL = "/v1/audio/embeddings"


def test_a_place_is_free_again_when_its_request_ends_however_it_ends() -> None:
    shares, one, other = CallerLimiter(1), Caller("one"), Caller("other")
    for _ in range(3):
        with suppress(ZeroDivisionError), shares.slot(one), shares.slot(other):
            with pytest.raises(Problem) as problem, shares.slot(one):
                pass
            assert problem.value.extensions == {"limit": 1, "observed": 2, "unit": "requests"}
            raise ZeroDivisionError
    assert not shares._inflight


def test_a_key_with_a_share_of_its_own_has_that_and_without_any_there_is_no_limit() -> None:
    shares = CallerLimiter(1)
    with shares.slot(Caller("one", max_inflight=2)), shares.slot(Caller("one", max_inflight=2)):
        pass
    with CallerLimiter().slot(Caller("one")), CallerLimiter().slot(Caller("one")):
        pass


def test_a_caller_with_all_its_places_taken_is_refused_and_others_are_not(serve: Serve) -> None:
    with serve(max_inflight_per_key=1) as client, unfinished(client):
        until(lambda: scraped(client)["viola_inflight_requests"] == 1)
        answer = client.post(URL, content=encoded(tone()))
        document = refused(answer, "share-exceeded")
        assert (document["limit"], document["observed"]) == (1, 2)
        assert answer.headers["Retry-After"] == "1"
        assert client.get("/v1/limits").json()["max_inflight_per_key"] == 1  # costs no audio


def test_the_line_of_a_key_says_how_many_and_live_streams_count(serve: Serve) -> None:
    web, app = new_key(), new_key()
    keys = f"web:{digest_of(web)}:::1 app:{digest_of(app)}"
    with serve(api_keys=keys) as client:
        url = str(client.base_url.copy_with(scheme="ws", path="/v1/audio/stream"))
        ours, theirs = ({"Authorization": f"Bearer {key}"} for key in (web, app))
        with connect(url, additional_headers=ours):
            refused(client.post(URL, content=encoded(tone()), headers=ours), "share-exceeded")
            with pytest.raises(InvalidStatus):
                connect(url, additional_headers=ours)
            assert client.post(URL, content=encoded(tone()), headers=theirs).status_code == 200
        until(lambda: is_answered(client, ours))


def is_answered(client: httpx.Client, headers: dict[str, str]) -> bool:
    return client.post(URL, content=encoded(tone()), headers=headers).status_code == 200
