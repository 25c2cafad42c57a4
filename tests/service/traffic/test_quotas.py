"""Quotas in seconds of audio: a bucket for each caller."""

import httpx
import pytest

from service.problems import Problem
from service.traffic.auth import Key, digest_of, new_key
from service.traffic.quotas import MAX_CALLERS, Caller, Quotas
from tests.service.conftest import Serve, encoded, tone
from tests.service.traffic.test_refusals import refused

URL = "/v1/audio/embeddings"


class Clock:
    """A time that passes when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quotas(clock: Clock) -> Quotas:
    return Quotas(usual=60.0, clock=clock)


def caller(address: str = "10.0.0.1", quota: float | None = 60.0) -> Caller:
    return Caller.of(None, address, quota)


def test_who_has_anything_left_is_let_in_and_pays_afterwards(quotas: Quotas, clock: Clock) -> None:
    quotas.check(caller())
    quotas.charge(caller(), 100.0)
    with pytest.raises(Problem) as problem:
        quotas.check(caller())
    assert problem.value.kind.slug == "quota-exceeded"
    assert problem.value.extensions == {"limit": 60.0, "observed": 100.0, "unit": "s"}
    assert problem.value.headers["Retry-After"] == "41"
    clock.now += 41
    quotas.check(caller())


def test_over_time_nobody_gets_more_than_the_rate(quotas: Quotas, clock: Clock) -> None:
    taken = 0.0
    for _ in range(3600):
        try:
            quotas.check(caller())
            quotas.charge(caller(), 37.0)
            taken += 37.0
        except Problem:
            pass
        clock.now += 1
    assert 3600 * 0.98 <= taken <= 3600 + 60 + 37


def test_what_was_not_used_does_not_pile_up(quotas: Quotas, clock: Clock) -> None:
    quotas.charge(caller(), 1.0)
    clock.now += 86_400
    assert quotas.headers(caller())["RateLimit"] == '"audio";r=60;t=0'


def test_callers_do_not_pay_for_each_other(quotas: Quotas) -> None:
    quotas.charge(caller("10.0.0.1"), 100.0)
    quotas.check(caller("10.0.0.2"))
    key = Key("web", "0" * 64, audio_seconds_per_minute=10.0)
    quotas.check(Caller.of(key, "10.0.0.1", 60.0))


def test_an_ipv6_client_is_its_network(quotas: Quotas) -> None:
    quotas.charge(caller("2001:db8::1"), 100.0)
    with pytest.raises(Problem):
        quotas.check(caller("2001:db8::ffff"))
    quotas.check(caller("2001:db8:0:1::1"))


@pytest.mark.parametrize(
    "written",
    [
        "192.0.2.1",
        "192.0.2.1:51000",
        "::ffff:192.0.2.1",
        "::ffff:c000:201",
        "[::ffff:192.0.2.1]:51000",
        "64:ff9b::192.0.2.1",
    ],
)
def test_an_ipv4_client_is_its_address_however_that_is_written(written: str) -> None:
    assert Caller.of(None, written, None).network == "192.0.2.1"


@pytest.mark.parametrize(
    "written", ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:51000", "2001:db8::1%eth0"]
)
def test_an_ipv6_client_is_its_network_however_that_is_written(written: str) -> None:
    assert Caller.of(None, written, None).network == "2001:db8::/64"


@pytest.mark.parametrize("written", [None, "", "unix:", "1.2.3", "[x]:1", "1.2.3.4:5:6", "[", "%"])
def test_what_is_no_address_is_unknown(written: str | None) -> None:
    assert Caller.of(None, written, None).network == "unknown"


def test_without_a_quota_nothing_is_counted(quotas: Quotas) -> None:
    free = caller(quota=None)
    quotas.charge(free, 1e9)
    quotas.check(free)
    assert quotas.headers(free) == {}


def test_the_table_of_callers_is_bounded_and_keeps_the_debtors(
    quotas: Quotas, clock: Clock
) -> None:
    quotas.charge(caller("192.0.2.1"), 1000.0)
    for k in range(MAX_CALLERS + 10):
        clock.now += 0.01
        quotas.check(caller(f"10.{k >> 16}.{k >> 8 & 255}.{k & 255}"))
    assert len(quotas._buckets) <= MAX_CALLERS
    with pytest.raises(Problem):
        quotas.check(caller("192.0.2.1"))


def test_a_key_is_charged_for_what_was_decoded_and_told_what_is_left(serve: Serve) -> None:
    web, app = new_key(), new_key()
    keys = f"web:{digest_of(web)}::2 app:{digest_of(app)}"
    with serve(api_keys=keys) as client:

        def send(key: str) -> httpx.Response:
            return client.post(
                URL, content=encoded(tone(1.5)), headers={"Authorization": f"Bearer {key}"}
            )

        first, second, third = send(web), send(web), send(web)
        assert first.headers["RateLimit-Policy"] == '"audio";q=2;qu="audio-seconds";w=60'
        assert first.headers["RateLimit"].startswith('"audio";r=0;t=')
        assert (first.status_code, second.status_code) == (200, 200)
        document = refused(third, "quota-exceeded")
        assert (document["limit"], document["unit"]) == (2.0, "s")
        assert 2.0 < document["observed"] <= 3.0
        assert 1 <= int(third.headers["Retry-After"]) <= 60
        assert "RateLimit" in third.headers
        assert "RateLimit" not in send(app).headers
        own = client.get("/v1/limits", headers={"Authorization": f"Bearer {web}"})
        assert own.json()["audio_seconds_per_minute"] == 2.0
        assert own.status_code == 200  # only audio costs


def test_without_keys_each_address_has_the_quota_of_the_setting(serve: Serve) -> None:
    with serve(audio_seconds_per_minute=1.0) as client:
        assert client.post(URL, content=encoded(tone(1.5))).status_code == 200
        refused(client.post(URL, content=encoded(tone(1.5))), "quota-exceeded")
        assert client.get("/readyz").status_code == 200
