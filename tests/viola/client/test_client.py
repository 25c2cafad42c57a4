"""`viola.Client` and `viola.AsyncClient` against the service behind a real socket."""

import asyncio
import io
import json
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import numpy as np
import pytest
import soundfile as sf
from websockets.sync.server import ServerConnection, serve

import viola
from models.runtime import Encoder
from service.settings import Settings
from service.traffic.auth import Key, digest_of
from tests.heads import write_head
from tests.service.conftest import encoded, serving, tone, write_model
from tests.viola.client.moody import QUICK, Moody
from tests.viola.test_package import bare
from viola.client.answers import Answer
from viola.client.batch import Batch, Item, Progress
from viola.client.sounds import Upload, upload


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_model(folder / "tiny.onnx")
    write_head(folder / "pitch.onnx")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(Settings(models=folder, threads=1)) as http:
        yield str(http.base_url)


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[viola.Client]:
    with viola.Client(address) as client:
        yield client


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    sf.write(path, tone(1.5), 16_000)
    return path


def test_a_vector_is_that_of_the_encoder_however_the_sound_is_given(
    client: viola.Client, folder: Path, clip: Path
) -> None:
    expected = Encoder.open(folder / "tiny.onnx", threads=1).embed(clip)
    samples = (np.round(tone(1.5) * 32768)).astype(np.int16)
    found = [
        client.embed(clip),
        client.embed(str(clip)),
        client.embed(clip.read_bytes()),
        client.embed(samples, sample_rate=16_000),
        client.embed(samples / np.float32(32768), sample_rate=16_000),
        client.embed(bytearray(clip.read_bytes())),
        client.embed(memoryview(clip.read_bytes())),
        client.embed(io.BytesIO(clip.read_bytes())),
    ]
    with clip.open("rb") as file:
        found.append(client.embed(file))
    for answer in found:
        assert answer.embedding is not None
        assert answer.embedding.dtype == np.float32
        np.testing.assert_allclose(answer.embedding, expected, atol=1e-4)
    assert [answer.file for answer in found] == ["clip.wav", "clip.wav", *[None] * 6, "clip.wav"]
    assert found[0].space_id == "space-of-tiny"


def test_labels_windows_quality_and_cards_are_typed(client: viola.Client, clip: Path) -> None:
    labels = client.classify(clip, head="pitch", top_k=2, window_s=0.5)
    assert labels.best is not None
    assert labels.best.label in ("low", "middle", "high")
    assert len(labels.labels[0].predictions) == 2
    assert [window.start_s for window in labels.windows] == [0.0, 0.5, 1.0]
    assert all(window.labels[0].head == "pitch" for window in labels.windows)
    known = client.analyze(clip, window_s=0.5)
    assert known.quality["sample_rate"] == 16_000
    assert known.embeddings.shape == (3, 4)
    assert known.labels[0].head == "pitch"
    assert [card.id for card in client.models()] == ["tiny"]
    assert client.classifiers()[0].models == ("tiny",)
    assert client.limits()["max_files"] == 16
    assert client.inspect(clip)["duration_s"] == pytest.approx(1.5)
    assert "data" in client.usage()


def test_a_refusal_has_the_words_of_the_service(client: viola.Client, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no sound")
    with pytest.raises(viola.ServiceError, match="Audio format not recognised") as refusal:
        client.embed(text)
    assert (refusal.value.status, refusal.value.kind) == (415, "unsupported-format")
    assert refusal.value.request_id
    again = pickle.loads(pickle.dumps(refusal.value))  # from a worker process to its parent
    assert (str(again), vars(again)) == (str(refusal.value), vars(refusal.value))
    with pytest.raises(viola.ServiceError) as refusal:
        client.embed(tone(1), sample_rate=16_000, window_s=-1)
    assert refusal.value.kind == "invalid-parameter"
    assert client.refusals == 0
    with pytest.raises(ValueError, match="sample_rate=16000"):
        client.embed(tone(1))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.wav"):
        client.embed("nowhere.wav")


def test_a_service_that_is_not_there_is_named(free_tcp_port: int) -> None:
    with (
        viola.Client(
            f"http://127.0.0.1:{free_tcp_port}", retries=viola.Retries(budget_s=0)
        ) as client,
        pytest.raises(viola.Unreachable, match=f"127.0.0.1:{free_tcp_port}"),
    ):
        client.models()


def test_an_address_where_nobody_ever_answered_is_given_up_soon(free_tcp_port: int) -> None:
    retries = viola.Retries(budget_s=1e6, unfound_s=0.2, first_s=0.05)
    address = f"http://127.0.0.1:{free_tcp_port}"
    unfound = pytest.raises(viola.Unreachable, match="does the service run there")
    with viola.Client(address, retries=retries) as client, unfound:
        client.models()

    async def asked() -> None:
        async with viola.AsyncClient(address, retries=retries) as client:
            await client.models()

    with pytest.raises(viola.Unreachable, match="does the service run there"):
        asyncio.run(asked())


def test_a_service_that_has_answered_once_is_waited_for(
    moody: tuple[str, type[Moody]], clip: Path
) -> None:
    address, server = moody
    server.moods = ["answer", "hang up", "hang up", "answer"]
    retries = viola.Retries(budget_s=5, unfound_s=0, first_s=0.01)
    with viola.Client(address, retries=retries) as client:
        client.embed(clip)
        client.embed(clip)
    assert not server.moods


@pytest.mark.parametrize("given", [{"address": None}, {"address": 8000}, {"key": 3}, {"key": 0}])
def test_an_address_and_a_key_are_texts(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(given))}: expected a text, not "):
        viola.Client(**given)


def test_32_in_parallel_lose_no_file_where_the_service_takes_two(folder: Path) -> None:
    clip = encoded(tone(0.5))
    settings = Settings(models=folder, threads=1, max_inflight=2)
    retries = viola.Retries(first_s=0.02, most_s=0.05)
    with serving(settings) as http, viola.Client(str(http.base_url), retries=retries) as client:
        _hurry(client)
        with ThreadPoolExecutor(32) as threads:
            answers = list(threads.map(lambda _: client.embed(clip), range(64)))
        refused = client.refusals
    assert all(answer.embedding is not None for answer in answers)
    assert refused > 0


def _hurry(client: viola.Client) -> None:
    """Let no pause of a test last as long as the service asks for."""
    pauses = viola.Retries(budget_s=1e6, draw=lambda: 0.0)

    class Impatient(viola.Retries):
        def pause_s(self, *failed: Any, **how: bool) -> float | None:
            asked = pauses.pause_s(*failed, **how)
            return None if asked is None else asked / 50

    client.retries = Impatient()


def test_whatever_may_pass_is_sent_again_whole(moody: tuple[str, type[Moody]], clip: Path) -> None:
    address, server = moody
    server.moods = ["hang up", "busy", "cut short", "gateway", "answer"]
    with viola.Client(address, retries=QUICK) as client:
        assert client.embed(clip).embedding is not None
        assert client.refusals == 2
    assert server.bodies == [clip.stat().st_size] * 5


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.download("birds", "never.onnx"),
        lambda client: client.forget("birds"),
        lambda client: client.collection("birds").audio("one"),
        lambda client: client.collection("birds").remove("one"),
        lambda client: client.jobs.delete("one"),
    ],
)
def test_a_web_page_is_neither_a_file_nor_proof_that_something_was_deleted(
    moody: tuple[str, type[Moody]], ask: Callable[[viola.Client], Any]
) -> None:
    address, server = moody
    server.moods = ["portal"]
    told = "none of a Viola service, .*please sign in"
    with (
        viola.Client(address, retries=QUICK) as client,
        pytest.raises(viola.Unreachable, match=told),
    ):
        ask(client)
    assert not Path("never.onnx").exists()


def test_an_answer_that_is_none_of_the_service_is_said_and_stops_no_batch(
    moody: tuple[str, type[Moody]], clip: Path
) -> None:
    address, server = moody
    with viola.Client(address, retries=QUICK) as client:
        for mood, shown in (("portal", "please sign in"), ("other", "fine")):
            server.moods = [mood] * 2
            with pytest.raises(viola.Unreachable, match=f"none of a Viola service, .*{shown}"):
                client.embed(clip)
            with pytest.raises(viola.Unreachable, match="is the address right"):
                list(client.stream_embeddings(clip, window_s=1))
        server.moods = ["not gzip", "elsewhere"]
        with pytest.raises(viola.Unreachable, match="no answer from"):
            client.embed(clip)
        with pytest.raises(viola.ServiceError, match=r"it is at https://sounds\.example/v1"):
            client.embed(clip)
        server.moods = ["portal", "answer"]
        items = list(client.embed_many([clip, clip], parallel=1))
        assert [type(item.error) for item in items] == [viola.Unreachable, type(None)]


def test_a_key_is_taken_as_files_hold_it_and_none_is_shown(folder: Path) -> None:
    settings = Settings(models=folder, threads=1, api_keys=Key("a", digest_of("viola_a")).line())
    with serving(settings) as http, viola.Client(str(http.base_url), key="viola_a\n") as client:
        assert client.models()
    for key in ("viola_clé", "viola a", "viola_a\nviola_b"):
        with pytest.raises(ValueError, match="key: expected letters") as told:
            viola.Client("http://127.0.0.1:1", key=key)
        assert key not in str(told.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8000",
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://host:99999",
        "http://host:port",
        "http://host/?model=tiny",
        "http://host/#page",
        "me:secret@host",
        "",
    ],
)
def test_an_address_that_is_none_is_refused_before_anything_is_sent(address: str) -> None:
    for kind in (viola.Client, viola.AsyncClient):
        with pytest.raises(ValueError, match="address.*: expected http://host:port") as told:
            kind(address)
        assert "secret" not in str(told.value)


def test_an_address_is_taken_however_it_is_written(free_tcp_port: int) -> None:
    client = viola.Client("HTTPS://Host/sounds/\n")
    assert client.connection.live_address == "wss://host/sounds/v1/audio/stream"
    with viola.Client(f"http://me:secret@127.0.0.1:{free_tcp_port}", retries=QUICK) as client:
        with pytest.raises(viola.Unreachable, match="no answer from http://127") as told:
            client.models()
        assert "secret" not in str(told.value)
    with pytest.raises(ValueError, match="a user, and there is a key"):
        viola.Client("http://me:secret@host", key="viola_a")


@pytest.mark.parametrize(
    ("samples", "sample_rate", "message"),
    [
        (np.array([1000, -1000, 20000]), 16_000, "samples are int64"),
        (np.zeros((2, 48_000), np.float32), 48_000, r"\(2, 48000\); expected"),
        (np.zeros(800), 0, "sample_rate = 0"),
        (np.zeros(800), 16_000.0, r"sample_rate = 16000\.0"),
        ([0.0, 0.5], 16_000, "for samples in an array"),
    ],
)
def test_samples_that_would_be_taken_for_another_sound_are_refused(
    samples: Any, sample_rate: Any, message: str
) -> None:
    with viola.Client(retries=QUICK) as client, pytest.raises(ValueError, match=message):
        client.embed(samples, sample_rate=sample_rate)


def test_the_async_client_sends_again_too(moody: tuple[str, type[Moody]], clip: Path) -> None:
    address, server = moody
    server.moods = ["hang up", "busy", "cut short", "gateway", "answer"]

    async def embed() -> viola.AsyncClient:
        async with viola.AsyncClient(address, retries=QUICK) as client:
            assert (await client.embed(clip)).embedding is not None
        return client

    assert asyncio.run(embed()).refusals == 2
    assert server.bodies == [clip.stat().st_size] * 5


def test_the_budget_ends_the_trying(moody: tuple[str, type[Moody]]) -> None:
    address, server = moody
    server.moods = ["gateway"] * 50
    retries = viola.Retries(first_s=0.01, budget_s=0.05)
    with viola.Client(address, retries=retries) as client, pytest.raises(viola.ServiceError) as e:
        client.embed(b"anything")
    assert e.value.status == 502
    assert 1 < len(server.bodies) < 5


def test_the_service_says_when_to_come_again() -> None:
    from viola.client.errors import refused

    retries = viola.Retries(draw=lambda: 1.0, budget_s=100)
    asked = refused(429, {"retry-after": "40"}, b"")
    assert retries.pause_s(asked, 0, 0.0) == 60
    assert retries.pause_s(asked, 0, 50.0) is None
    assert retries.pause_s(refused(400, {"retry-after": "1"}, b""), 0, 0.0) is None


def test_long_recordings_come_window_by_window(client: viola.Client, clip: Path) -> None:
    vectors = client.stream_embeddings(clip, window_s=0.5)
    windows = list(vectors)
    assert [window.start_s for window in windows] == [0.0, 0.5, 1.0]
    assert windows[0].embedding is not None
    assert vectors.whole.duration_s == pytest.approx(1.5)
    np.testing.assert_allclose(vectors.whole.embedding, client.embed(clip).embedding, atol=1e-4)
    labels = client.stream_labels(clip, head="pitch", window_s=0.5)
    assert labels.whole.best is not None
    assert labels.whole.labels[0].head == "pitch"
    with pytest.raises(viola.ServiceError, match="not recognised"):
        client.stream_embeddings(__file__, window_s=0.5).whole  # noqa: B018


def test_a_live_stream_has_the_windows_of_the_file(client: viola.Client, clip: Path) -> None:
    samples = sf.read(clip, dtype="int16")[0]
    blocks = [samples[at : at + 1000] for at in range(0, len(samples), 1000)]
    live = list(client.listen(blocks, sample_rate=16_000, window_s=0.5, head="pitch"))
    filed = client.embed(clip, window_s=0.5).windows
    assert len(live) == len(filed)
    for heard, window in zip(live, filed, strict=True):
        assert heard.embedding is not None
        np.testing.assert_allclose(heard.embedding, window.embedding, atol=1e-4)
        assert heard.labels[0].head == "pitch"
    assert list(client.listen([], sample_rate=16_000)) == []
    with pytest.raises(ValueError, match="a block is a list"):
        list(client.listen([[0.0]], sample_rate=16_000))  # type: ignore[list-item]
    with pytest.raises(viola.ServiceError, match="sample_rate"):
        list(client.listen(blocks, sample_rate=1))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (np.zeros((800, 2), np.float32), "block.mean"),
        (np.zeros(800, np.int32), "int32"),
        (np.zeros(800, np.int16), "one kind"),
    ],
)
def test_a_live_block_that_would_be_taken_for_another_sound_is_refused(
    client: viola.Client, address: str, second: Any, message: str
) -> None:
    blocks = [np.zeros(800, np.float32), second]

    async def later() -> AsyncIterator[Any]:
        for block in blocks:
            yield block

    async def at_once() -> None:
        async with viola.AsyncClient(address) as awaited, asyncio.timeout(10):
            async for _ in awaited.listen(later(), sample_rate=16_000):
                pass

    with pytest.raises(ValueError, match=message):
        list(client.listen(blocks, sample_rate=16_000))
    with pytest.raises(ValueError, match=message):
        asyncio.run(at_once())


def test_a_block_may_be_as_long_as_a_recording(free_tcp_port: int) -> None:
    """The service reads nothing on while its answers are not read: neither waits for the other."""
    window = json.dumps({"object": "window", "start_s": 0, "end_s": 1, "embedding": [0] * 7000})

    def answer(socket: ServerConnection) -> None:
        socket.recv()
        while isinstance(socket.recv(), bytes):
            for _ in range(100):
                socket.send(window)

    with serve(answer, "127.0.0.1", free_tcp_port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with viola.Client(f"http://127.0.0.1:{free_tcp_port}") as client:
            block = np.zeros(1 << 23, np.int16)
            assert sum(1 for _ in client.listen([block], sample_rate=16_000)) == 32 * 100
        server.shutdown()
        thread.join()


def test_a_live_stream_that_breaks_off_is_unreachable(free_tcp_port: int) -> None:
    def hang_up(connection: ServerConnection) -> None:
        connection.recv()
        connection.socket.shutdown(socket.SHUT_RDWR)

    async def later() -> AsyncIterator[Any]:
        yield tone(1.0)

    async def hear(address: str) -> None:
        async with viola.AsyncClient(address) as awaited:
            async for _ in awaited.listen(later(), sample_rate=16_000):
                pass

    with serve(hang_up, "127.0.0.1", free_tcp_port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{free_tcp_port}"
        with viola.Client(address) as client, pytest.raises(viola.Unreachable):
            list(client.listen([tone(1.0)], sample_rate=16_000))
        with pytest.raises(viola.Unreachable):
            asyncio.run(hear(address))
        server.shutdown()
        thread.join()


def test_a_microphone_that_fails_is_not_the_service_that_does_not_answer(address: str) -> None:
    def blocks() -> Iterator[Any]:
        yield tone(0.5)
        raise OSError("Input overflowed")

    async def later() -> AsyncIterator[Any]:
        for block in blocks():
            yield block

    async def hear() -> None:
        async with viola.AsyncClient(address) as awaited, asyncio.timeout(10):
            async for _ in awaited.listen(later(), sample_rate=16_000):
                pass

    with viola.Client(address) as client, pytest.raises(OSError, match="^Input overflowed$"):
        list(client.listen(blocks(), sample_rate=16_000))
    with pytest.raises(OSError, match="^Input overflowed$"):
        asyncio.run(hear())


def test_a_live_stream_to_another_program_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def hang_up() -> None:
            for _ in range(2):
                other.accept()[0].close()

        async def later() -> AsyncIterator[Any]:
            yield tone(1.0)

        async def hear() -> None:
            async with viola.AsyncClient(address) as awaited:
                async for _ in awaited.listen(later(), sample_rate=16_000):
                    pass

        thread = threading.Thread(target=hang_up)
        thread.start()
        address = f"http://127.0.0.1:{other.getsockname()[1]}"
        with viola.Client(address) as client, pytest.raises(viola.Unreachable):
            list(client.listen([tone(1.0)], sample_rate=16_000))
        with pytest.raises(viola.Unreachable):
            asyncio.run(hear())
        thread.join()


def test_the_async_client_does_the_same(address: str, clip: Path) -> None:
    samples = sf.read(clip, dtype="float32")[0]

    async def blocks() -> AsyncIterator[Any]:
        for at in range(0, len(samples), 1000):
            yield samples[at : at + 1000]

    async def all_of_it() -> None:
        async with viola.AsyncClient(address) as client:
            one, labels, known = await asyncio.gather(
                client.embed(clip), client.classify(clip), client.analyze(clip)
            )
            np.testing.assert_array_equal(one.embedding, known.embedding)
            assert labels.best is not None
            long = client.stream_embeddings(clip, window_s=0.5)
            assert len([window async for window in long]) == 3
            assert (await long.whole()).duration_s == pytest.approx(1.5)
            assert (await client.stream_labels(clip, head="pitch").whole()).best is not None
            heard = client.listen(blocks(), sample_rate=16_000, window_s=0.5)
            assert len([window async for window in heard]) == 3
            items = [item async for item in client.embed_many([clip, clip.with_name("none")])]
            assert sorted(item.error is None for item in items) == [False, True]
            assert [card.id for card in await client.models()] == ["tiny"]
            assert (await client.classifiers())[0].is_default
            assert (await client.inspect(clip))["duration_s"] == pytest.approx(1.5)
            assert "formats" in await client.limits()
            assert "data" in await client.usage()

    asyncio.run(all_of_it())


def test_a_batch_goes_on_where_it_was_broken_off(client: viola.Client, tmp_path: Path) -> None:
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"{number}.wav")
        sf.write(paths[-1], tone(0.2 + number / 10), 16_000)
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    journal, seen = tmp_path / "done.jsonl", list[Progress]()

    first = client.embed_many(paths[:3], journal=journal, parallel=2)
    assert all(item.answer is not None for item in first)
    with journal.open("ab") as file:
        file.write(b'["cut off')  # as a machine that goes down leaves it
    options: dict[str, Any] = {"journal": journal, "progress": seen.append}
    items = {item.path: item for item in client.embed_many([*paths, broken], **options)}
    assert sum(item.is_kept for item in items.values()) == 3
    assert isinstance(items[broken].error, viola.ServiceError)
    assert seen[-1] == Progress(done=7, failed=1, total=7)
    for path in paths:
        answer = items[path].answer
        assert answer is not None
        np.testing.assert_array_equal(answer.embedding, client.embed(path).embedding)
    again = list(client.embed_many([*paths, broken], **options))
    assert sum(item.is_kept for item in again) == 6
    sf.write(paths[0], tone(0.9), 16_000)  # another file now
    (changed,) = client.embed_many(paths[:1], journal=journal)
    assert not changed.is_kept


@pytest.mark.parametrize(
    "content", [b"my notes\nof years\n", b"my notes", b'{"a": 1, "b": 2}\n', b'["cut off\n["more"']
)
def test_a_file_that_is_no_journal_stays_as_it_is(
    client: viola.Client, clip: Path, content: bytes
) -> None:
    notes = clip.with_name("notes.txt")
    notes.write_bytes(content)
    with pytest.raises(ValueError, match="line 1: not a line of a journal"):
        list(client.embed_many([clip], journal=notes))
    assert notes.read_bytes() == content


def test_a_batch_of_which_nothing_may_be_in_hand_leaves_no_file_out(
    address: str, clip: Path
) -> None:
    for kind in (viola.Client, viola.AsyncClient):
        with pytest.raises(ValueError, match="parallel = 0; expected"):
            kind(address).embed_many([clip], parallel=0)


def test_a_file_that_changes_once_it_was_sent_is_sent_again(tmp_path: Path) -> None:
    path, journal = tmp_path / "a.wav", tmp_path / "done.jsonl"
    path.write_bytes(b"sent")
    batch = Batch([path], journal, None, 1)
    path.write_bytes(b"sent, and more")
    batch.ended(Item(path, Answer("m", "s", "a.wav", 1.0)))
    batch.close()
    again = Batch([path], journal, None, 1)
    assert again.left == [path]
    again.close()


def test_a_batch_that_is_left_waits_for_no_service(free_tcp_port: int, tmp_path: Path) -> None:
    clip = tmp_path / "a.wav"
    clip.write_bytes(b"sound")
    retries = viola.Retries(unfound_s=300, first_s=100, most_s=100)
    with viola.Client(f"http://127.0.0.1:{free_tcp_port}", retries=retries) as client:
        began = time.monotonic()
        for item in client.embed_many([clip, tmp_path / "missing.wav", clip], parallel=3):
            assert isinstance(item.error, FileNotFoundError)
            break
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("size", [1_000, 4_000_000])
def test_a_file_that_something_writes_while_it_is_sent_is_named_and_stops_no_batch(
    moody: tuple[str, type[Moody]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    address, server = moody
    growing, whole = tmp_path / "growing.wav", tmp_path / "whole.wav"
    for path in (growing, whole):
        path.write_bytes(bytes(2_000_000))
    opened = Upload.opened

    def changes(upload: Upload) -> BinaryIO:
        if upload.name == "growing.wav":
            assert upload.n_bytes == 2_000_000
            growing.write_bytes(bytes(size))
        return opened(upload)

    monkeypatch.setattr(Upload, "opened", changes)
    server.moods = ["hang up", "answer"]
    told = "growing.wav changed while it was sent"
    with viola.Client(address, retries=QUICK) as client:
        items = list(client.embed_many([growing, whole], parallel=1))
        assert told in str(items[0].error)
        assert items[1].answer is not None
    growing.write_bytes(bytes(2_000_000))
    with pytest.raises(OSError, match=told):
        upload(growing).part(0, 100)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda client: client.embed(None), "a NoneType is no sound; expected a path"),
        (lambda client: client.embed([0.5]), "a list is no sound"),
        (lambda client: client.embed(io.StringIO("x")), "a file opened as text is no sound"),
        (lambda client: client.embed_many("a.wav"), "paths: expected a list, not one str"),
        (lambda client: client.embed_many(Path("a.wav")), "paths: expected a list, not one Posix"),
        (lambda client: client.jobs.submit("embed", "a.wav"), "sounds: expected a list"),
        (lambda client: client.collection("a").search(like="b"), "like: expected a list"),
        (lambda client: client.collection("a").search(unlike={"id": "b"}), "unlike: expected a"),
        (lambda client: client.collection("a").search(like=np.ones(3)), "like: expected a list"),
        (lambda client: client.collection("a").label("b", {"c"}), "'c'.*cannot be sent as JSON"),
        (lambda client: viola.Client(retries=3), r"retries = 3; expected viola.Retries"),
        (lambda client: viola.AsyncClient(retries=3), r"retries = 3; expected viola.Retries"),
    ],
)
def test_what_is_of_a_wrong_kind_is_named(
    work: Callable[[viola.Client], Any], message: str
) -> None:
    with viola.Client(retries=QUICK) as client, pytest.raises(TypeError, match=message):
        work(client)


@pytest.mark.parametrize("timeout_s", [0, -1, "5", None])
def test_a_time_to_wait_is_one(timeout_s: Any) -> None:
    for kind in (viola.Client, viola.AsyncClient):
        with pytest.raises(ValueError, match="timeout_s = .*; expected seconds"):
            kind(timeout_s=timeout_s)


def test_a_proxy_of_the_environment_is_named_without_its_password(
    free_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{free_tcp_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    with viola.Client("http://sounds.example", retries=QUICK) as client:
        with pytest.raises(viola.Unreachable, match="through the proxy 127.0.0.1.*NO_PROXY=s") as e:
            client.models()
        assert "secret" not in str(e.value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with (
        viola.Client(f"http://127.0.0.1:{free_tcp_port}", retries=QUICK) as client,
        pytest.raises(viola.Unreachable, match=r"is the address right\?$"),
    ):
        client.models()


def test_a_journal_keeps_labels_and_windows(client: viola.Client, clip: Path) -> None:
    journal = clip.with_name("labels.jsonl")
    (sent,) = client.classify_many([clip], journal=journal, window_s=0.5)
    (kept,) = client.classify_many([clip], journal=journal, window_s=0.5)
    assert kept.is_kept
    assert kept.answer == sent.answer


def test_a_key_opens_what_it_should(folder: Path) -> None:
    key = Key("me", digest_of("viola_secret"))
    with serving(Settings(models=folder, threads=1, api_keys=key.line())) as http:
        address = str(http.base_url)
        with viola.Client(address) as client, pytest.raises(viola.ServiceError) as refusal:
            client.embed(tone(1), sample_rate=16_000)
        assert refusal.value.status == 401
        with pytest.raises(viola.ServiceError) as refusal:
            list(client.listen([tone(1)], sample_rate=16_000))
        assert (refusal.value.status, refusal.value.kind) == (401, "unauthorized")
        with viola.Client(address, key="viola_secret") as client:
            assert client.embed(tone(1), sample_rate=16_000).embedding is not None
            assert list(client.listen([tone(2)], sample_rate=16_000))


def test_the_client_needs_neither_torch_nor_onnxruntime() -> None:
    program = (
        "import sys, viola; viola.Client, viola.AsyncClient, viola.Retries;"
        "assert not {'torch', 'onnxruntime', 'service'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", ["Client", "AsyncClient"])
def test_without_the_extra_the_client_says_what_to_install(name: str) -> None:
    run = bare(f"import viola; viola.{name}")
    assert f"viola.{name} needs the extra 'client' (httpx is not installed)" in run.stderr
    assert "pip install 'viola-audio[client]'" in run.stderr


def test_a_proxy_that_adds_a_prefix_is_no_obstacle() -> None:
    seen: list[httpx.URL] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url)
        return httpx.Response(200, json={"data": []})

    client = viola.Client("http://host/sounds/")
    client._http._transport = httpx.MockTransport(answer)
    assert client.models() == []
    assert seen[0].path == "/sounds/v1/models"
    assert client.connection.live_address == "ws://host/sounds/v1/audio/stream"
