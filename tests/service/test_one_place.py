"""An output format and a kind of model file are each added by one file.

A process of its own looks for them in a folder more, which holds toys.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

from models import modelfile
from models.card import Part
from tests.service.conftest import encoded, tone, write_model

ROOT = Path(__file__).parents[2]

A_TABLE = '''
"""Vectors as lines of text."""

from service.output import Table, Written


def _lines(card, names, embedded):
    (name,), (file,) = names, embedded
    yield f"{name}:{','.join(map(str, file.embedding.tolist()))}".encode()


FORMAT = Table(
    name="lines",
    about="lines of text",
    media_type="text/x-vectors",
    write=lambda *given: Written(_lines(*given)),
)
'''
AN_ENCODING = '''
"""A vector in hexadecimal digits."""

from service.output import Encoding

FORMAT = Encoding(
    name="hex", about="JSON with digits", write=lambda row: row.astype("<f4").tobytes().hex()
)
'''
A_KIND = '''
"""Doublers: from a vector to one twice as long."""

import numpy as np

from models import modelfile
from models.modelfile import Part
from service.inference.kind import Kind


class Card(Part):
    card_schema: int
    kind: str
    name: str
    space_id: str


class Doubler:
    def __init__(self, file):
        self.session, self.card = modelfile.open_as(Card, "doubler", ["embedding"], ["twice"], file)

    def self_test(self):
        (twice,) = self.session.run(None, {"embedding": np.ones((1, 4), np.float32)})
        return float(np.abs(twice - 2).max())


KIND = Kind(
    name="doubler",
    card_kind="doubler",
    golden="doubles",
    open=lambda file, threads: Doubler(file),
    warm_up=lambda doubler: None,
    tolerance=lambda doubler: 0.0,
    labels=lambda doubler: {"doubler": doubler.card.name},
    facts=lambda doubler: {"doubler": doubler.card.name},
)
'''
DOUBLER = """
<ir_version: 10, opset_import: ["" : 20]>
doubler (float[batch, 4] embedding) => (float[batch, 4] twice)
{ twice = Add (embedding, embedding) }
"""
PROGRAM = """
import json, sys
from pathlib import Path

import service.inference.kinds, service.outputs

folder = Path(sys.argv[1])
service.outputs.__path__.append(str(folder / "outputs"))
service.inference.kinds.__path__.append(str(folder / "kinds"))

from fastapi.testclient import TestClient
from service.app import create_app
from service.settings import Settings

URL = "/v1/audio/embeddings"
sound = (folder / "tone.wav").read_bytes()
files = {"file": ("a.wav", sound)}
with TestClient(create_app(Settings(models=folder / "models", decode_workers=1))) as client:
    post = lambda **more: client.post(URL, files=files, **more)
    print(json.dumps({
        "json": post().json()["data"][0]["embedding"],
        "lines": post(params={"output": "lines"}).text,
        "accepted": post(headers={"Accept": "text/x-vectors"}).text,
        "type": post(params={"output": "lines"}).headers["content-type"],
        "hex": post(params={"output": "hex"}).json()["data"][0]["embedding"],
        "stream": post(params={"output": "lines", "stream": "true"}).json()["detail"],
        "refusal": post(params={"output": "toast"}).json()["detail"],
        "limits": client.get("/v1/limits").json()["outputs"],
        "openapi": client.get("/openapi.json").json(),
        "readiness": client.get("/readyz").json(),
        "selftest": client.get("/v1/selftest").json(),
        "metrics": client.get("/metrics").text,
    }))
"""


class DoublerCard(Part):
    card_schema: int = 1
    kind: str = "doubler"
    name: str = "twice"
    space_id: str = "space-of-tiny"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a service says that has a format of each sort and a kind more, each a file."""
    folder = tmp_path_factory.mktemp("toys")
    for name, text in (
        ("outputs/lines.py", A_TABLE),
        ("outputs/hex.py", AN_ENCODING),
        ("kinds/doubler.py", A_KIND),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "tone.wav").write_bytes(encoded(tone()))
    write_model(folder / "models" / "tiny.onnx")
    doubler = onnx.parser.parse_model(DOUBLER)
    modelfile.write(doubler, DoublerCard(), folder / "models" / "twice.onnx")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    said: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return said


def test_a_table_is_added_by_one_file(found: dict[str, Any]) -> None:
    name, _, values = found["lines"].partition(":")
    assert name == "a.wav"
    assert [float(value) for value in values.split(",")] == pytest.approx(found["json"])
    assert found["accepted"] == found["lines"]
    assert found["type"].startswith("text/x-vectors")
    assert "cannot be streamed" in found["stream"]


def test_an_encoding_is_added_by_one_file(found: dict[str, Any]) -> None:
    values = np.frombuffer(bytes.fromhex(found["hex"]), "<f4")
    assert values.tolist() == pytest.approx(found["json"])


def test_what_is_said_of_formats_follows_from_their_files(found: dict[str, Any]) -> None:
    assert {"lines", "hex", "json", "npy"} <= set(found["limits"])
    assert "'hex'" in found["refusal"]
    operation = found["openapi"]["paths"]["/v1/audio/embeddings"]["post"]
    assert "text/x-vectors" in operation["responses"]["200"]["content"]
    (output,) = (one for one in operation["parameters"] if one["name"] == "output")
    assert "`lines`: lines of text." in output["description"]
    assert "hex" in str(output["schema"])


def test_a_kind_of_model_file_is_added_by_one_file(found: dict[str, Any]) -> None:
    assert not found["readiness"]["models"][1:], found["readiness"]
    (ready,) = found["readiness"]["doublers"]
    assert (ready["name"], ready["status"], ready["golden_error"]) == ("twice", "ready", 0.0)
    tests = {(test["kind"], test["name"]): test["status"] for test in found["selftest"]["tests"]}
    assert tests == {("model", "tiny"): "passed", ("doubler", "twice"): "passed"}
    assert 'viola_doubler_info{doubler="twice"} 1.0' in found["metrics"]
