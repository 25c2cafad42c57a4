"""A client that a generator makes of the OpenAPI document: it is made without a warning, and works.

The generator is kept apart (`make generator`), since it asks for other versions than the project.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import encoded, tone

ROOT = Path(__file__).parents[2]
GENERATOR = shutil.which(
    "openapi-python-client", path=f"{ROOT / '.venv' / 'generator' / 'bin'}:{os.environ['PATH']}"
)

OTHERS = ("audio/*", "application/ogg", "video/mp4", "video/webm")
PROGRAM = """
import io, sys
from made.client import Client
from made.api.embeddings import embed_audio
from made.api.models import list_models
from made.models import EmbedAudioFilesBody
from made.types import File

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
(model,) = list_models.sync(client=client).data
files = [File(payload=io.BytesIO(sys.stdin.buffer.read()), file_name="clip.wav")]
answer = embed_audio.sync(client=client, body=EmbedAudioFilesBody(file=files), window_s=0.5)
print(model.id, answer.data[0].file, len(answer.data[0].embedding), len(answer.data[0].windows))
"""


@pytest.mark.slow
@pytest.mark.skipif(GENERATOR is None, reason="no openapi-python-client here: make generator")
def test_a_generated_client_is_whole_and_works(client: httpx.Client, tmp_path: Path) -> None:
    document = client.get("/openapi.json").json()
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    assert GENERATOR is not None
    made = subprocess.run(
        [
            GENERATOR,
            "generate",
            "--path",
            "openapi.json",
            "--meta",
            "none",
            "--output-path",
            "made",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"},
    )
    told = made.stdout + made.stderr
    assert made.returncode == 0, told
    # Several media types for one body: the form and octets are made, the others are said to be not
    warnings = [
        line for line in told.splitlines() if line.startswith(("Unsupp", "Unable", "Cannot"))
    ]
    assert set(warnings) <= {f"Unsupported content type {kind}" for kind in OTHERS}
    names = {op["operationId"] for path in document["paths"].values() for op in path.values()}
    assert names == {path.stem for path in (tmp_path / "made" / "api").glob("*/[a-z]*.py")}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(client.base_url)],
        input=encoded(tone(1)),
        capture_output=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout.split() == [b"tiny", b"clip.wav", b"4", b"2"]
