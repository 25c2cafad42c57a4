import shutil
from pathlib import Path

import pytest

from models.classifier import Classifier
from models.runtime import Encoder
from service.inference.catalogue import Catalogue, Served, ServedHead
from service.inference.selftest import SelfTestReport, report, self_tests
from tests.heads import write_head
from tests.service.conftest import Serve, write_model

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
    sound = ServedHead(Classifier.open(folder / "pitch.onnx"), 0.0)
    found = report(
        test() for test in self_tests(Catalogue({"bent": Served(bent, 0.0)}, {"pitch": sound}))
    )
    assert found.status == "failed"
    assert [test.status for test in found.tests] == ["failed", "passed"]
    assert "golden vector" in str(found.tests[0].reason)
    assert found.tests[0].difference is None


def test_a_selftest_takes_the_place_of_a_request(serve: Serve) -> None:
    with serve(max_inflight=1) as client:
        assert client.get(URL).status_code == 200
        assert client.get(URL).status_code == 200
