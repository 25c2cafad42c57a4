import asyncio
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.classifier import Classifier
from models.runtime import Encoder
from service.inference.catalogue import Catalogue, Served
from service.inference.kinds.classifier import KIND as CLASSIFIER
from service.inference.kinds.encoder import KIND as ENCODER
from service.inference.selftest import report, self_tests
from service.reports import SelfTestReport
from service.traffic.shared_result import SharedResult
from tests.heads import write_head
from tests.service.conftest import Serve, write_model
from tests.service.traffic.test_load import unfinished

URL = "/v1/selftest"


@pytest.fixture
def folder(model_file: Path, tmp_path: Path) -> Path:
    shutil.copy(model_file, tmp_path / "tiny.onnx")
    write_head(tmp_path / "pitch.onnx")
    return tmp_path


def test_everything_that_is_served_is_proved_now(serve: Serve, folder: Path) -> None:
    with serve(models=folder) as client:
        answer = client.get(URL)
    assert answer.status_code == 200
    found = SelfTestReport.model_validate(answer.json())
    assert found.status == "passed"
    assert [(test.kind, test.name) for test in found.tests] == [
        ("model", "tiny"),
        ("classifier", "pitch"),
    ]
    for test in found.tests:
        assert test.space_id == "space-of-tiny"
        assert test.difference is not None
        assert 0 <= test.difference <= test.tolerance
        assert test.ms >= 0


def test_nothing_served_is_nothing_proved(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "tiny.onnx", golden_scale=2)
    with serve(models=tmp_path) as client:
        answer = client.get(URL)
    assert answer.status_code == 503
    assert answer.json() == {"status": "failed", "tests": []}


def test_one_that_computes_something_else_fails_the_whole(folder: Path) -> None:
    bent = Encoder.open(write_model(folder / "bent.onnx", "bent", golden_scale=1.01), threads=1)
    sound = Served(CLASSIFIER, Classifier.open(folder / "pitch.onnx"), 0.0)
    catalogue = Catalogue([sound, Served(ENCODER, bent, 0.0)])
    found = report(test() for test in self_tests(catalogue))
    assert found.status == "failed"
    assert [test.status for test in found.tests] == ["failed", "passed"]
    assert "golden vector" in str(found.tests[0].reason)
    assert found.tests[0].difference is None


def test_a_selftest_takes_the_place_of_no_request(serve: Serve) -> None:
    with serve(max_inflight=1, inferences=1) as client, unfinished(client):
        assert client.get(URL).status_code == 200


def test_one_selftest_runs_at_a_time_and_all_who_ask_share_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, runs = 0, 0, 0
    original = Encoder.self_test

    def slow(self: Encoder) -> float:
        nonlocal running, most, runs
        running, runs = running + 1, runs + 1
        most = max(most, running)
        time.sleep(0.2)
        running -= 1
        return original(self)

    with serve() as client, ThreadPoolExecutor(8) as threads:
        monkeypatch.setattr(Encoder, "self_test", slow)
        answers = list(threads.map(lambda _: client.get(URL), range(8)))
        assert client.get(URL).json() == answers[0].json()
    assert {answer.status_code for answer in answers} == {200}
    assert (most, runs) == (1, 1)


def test_a_result_is_shared_until_it_is_old_or_of_something_else() -> None:
    now, made = 0.0, 0

    async def compute() -> int:
        nonlocal made
        made += 1
        if made == 3:
            raise ValueError("no")
        return made

    async def ask() -> None:
        nonlocal now
        latest: SharedResult[int] = SharedResult(5.0, clock=lambda: now)
        assert await latest.get("a", compute) == await latest.get("a", compute) == 1
        assert await latest.get("b", compute) == 2
        now = 5.0
        with pytest.raises(ValueError, match="no"):
            await latest.get("b", compute)
        assert await latest.get("b", compute) == 4  # a failure is not kept

    asyncio.run(ask())
