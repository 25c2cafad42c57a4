"""Collections and teaching through the client, sync and async, against a service with a store."""

import asyncio
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import viola
from service.settings import Settings
from tests.service.conftest import serving, write_model
from tests.signals import noise, tone
from tests.viola.client.moody import QUICK, Moody
from viola.client import calls, collection_calls
from viola.client.sounds import Upload


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    write_model(folder / "tiny.onnx")
    settings = Settings(models=folder / "tiny.onnx", threads=1, data=folder / "data")
    with serving(settings) as http:
        yield str(http.base_url)


@pytest.fixture
def client(address: str) -> Iterator[viola.Client]:
    with viola.Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for number in range(8):
        for kind, hz in (("low", 100), ("high", 400)):
            paths.append(folder / f"{kind}-{number}.wav")
            sound = tone(hz + number, 0.5) + noise(0.5, seed=number, level=0.01)
            sf.write(paths[-1], sound, 16_000)
    return paths


def test_a_collection_is_filled_searched_labelled_taught(
    client: viola.Client, clips: list[Path], tmp_path: Path
) -> None:
    street = client.collection("street")
    made = street.make(granularity="clip", keeps_audio=True)
    assert (made.name, made.granularity, made.items) == ("street", "clip", 0)
    assert street.make(granularity="clip", keeps_audio=True) == made
    items = [street.add(path, metadata={"number": at}) for at, path in enumerate(clips)]
    assert [item.file for item in items] == [path.name for path in clips]
    assert street.add(clips[0]) == items[0]
    named = street.add(tone(400, 0.5), sample_rate=16_000, id="mine")
    assert named.id == "mine"
    assert len(list(street.items())) == len(clips) + 1
    assert [item.id for item in street.items({"metadata": {"number": 3}})] == [items[3].id]
    assert street.audio(items[0].id) == clips[0].read_bytes()
    heard = street.samples(items[0].id, start_s=0.1, end_s=0.2)
    np.testing.assert_allclose(heard, sf.read(clips[0])[0][1_600:3_200], atol=2**-14)
    assert [one.name for one in client.collections()] == ["street"]

    for hits in (
        street.search(clips[0], top_k=4),
        street.search(like=[items[0].id], top_k=4, include_examples=True),
        street.search(like=[client.embed(clips[0]).embedding], top_k=4),
    ):
        assert hits[0].id == items[0].id
        assert len(hits) == 4
        assert hits == sorted(hits, key=lambda hit: -hit.score)
    unlike = street.search(like=[items[0].id], unlike=[items[1].id], top_k=len(clips))
    assert items[1].id not in {hit.id for hit in unlike}
    assert isinstance(street.duplicates(), list)
    assert {place.id for place in street.map(clusters=2)} == {item.id for item in street.items()}

    moved = street.reembed()
    assert (moved.is_complete, moved.failed) == (True, {})
    assert moved.collection == street.show()
    wrong = street.label("mine", "low", start_s=0.0, end_s=0.2)
    street.unlabel(wrong.id)
    street.remove("mine")
    said = [{"item": i.id, "label": str(i.file).partition("-")[0]} for i in items[:-2]]
    assert len(street.label_many(said)) == len(said)
    assert {label.label for label in street.labels()} == {"low", "high"}
    assert [label.item for label in street.labels(item=items[0].id)] == [items[0].id]

    taught = client.teach("pitch", collection="street")
    assert set(taught.labels) == {"low", "high"}
    assert taught.verdict
    assert client.classify(clips[-1], head="pitch").labels[0].head == "pitch"
    proposed = client.next_to_label("pitch", collection="street", n=1)
    assert proposed[0].item in {item.id for item in items[-2:]}
    file = client.download("pitch", tmp_path / "pitch.onnx")
    assert viola.Classifier.open(file).card.labels
    client.forget("pitch")
    street.delete()
    with pytest.raises(viola.ServiceError) as refusal:
        street.show()
    assert refusal.value.kind == "collection-not-found"


def test_the_async_client_has_collections_too(address: str, clips: list[Path]) -> None:
    async def all_of_it() -> None:
        async with viola.AsyncClient(address) as client:
            street = client.collection("lane")
            await street.make(granularity="clip")
            items = await asyncio.gather(*(street.add(path) for path in clips[:6]))
            assert [item.id async for item in street.items()]
            hits = await street.search(clips[0], top_k=1)
            assert hits[0].id == items[0].id
            await street.label(items[0].id, "low")
            assert [label.label async for label in street.labels()] == ["low"]
            assert "lane" in {one.name for one in await client.collections()}
            await street.delete()

    asyncio.run(all_of_it())


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service whose requests hold little."""
    folder = tmp_path_factory.mktemp("strict")
    write_model(folder / "tiny.onnx")
    limits = {"max_duration_s": 3.0, "max_body_bytes": 200_000}
    settings = Settings(models=folder / "tiny.onnx", threads=1, data=folder / "data", **limits)
    with serving(settings) as http:
        yield str(http.base_url)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_recording_of_any_length_is_added(strict: str, subtype: str, tmp_path: Path) -> None:
    """More seconds than a request may hold, and more bytes."""
    path = tmp_path / "day.wav"
    sf.write(path, tone(300, 6.0) + noise(6.0), 16_000, subtype=subtype)
    with viola.Client(strict) as client:
        days = client.collection(f"days-{subtype}")
        days.make(window_s=1.0)
        item = days.add(path, id="day", metadata={"n": 1})
        assert (item.id, item.file, item.windows) == ("day", "day.wav", 6)
        assert days.add(path, metadata={"n": 1}) == item
        assert list(days.items()) == [item]
        samples = days.add(noise(5.0, seed=9), sample_rate=16_000)
        assert samples.duration_s == pytest.approx(5.0)
        with pytest.raises(viola.ServiceError) as refusal:
            days.add(path, id="night")
        assert refusal.value.kind == "item-conflict"
        (tmp_path / "cut.wav").write_bytes(path.read_bytes()[:-100_000])
        with pytest.raises(viola.ServiceError) as refusal:
            days.add(tmp_path / "cut.wav")
        assert refusal.value.kind == "truncated"
        kept = client.collection(f"kept-{subtype}")
        kept.make(keeps_audio=True)
        if subtype == "FLOAT":
            with pytest.raises(viola.ServiceError, match="where audio is kept at most 200000"):
                kept.add(path)
        else:
            assert kept.audio(kept.add(path).id) == path.read_bytes()

    async def at_once() -> None:
        async with viola.AsyncClient(strict) as client:
            nights = client.collection(f"nights-{subtype}")
            await nights.make(window_s=1.0)
            assert (await nights.add(path, id="day")).windows == 6
            assert (await nights.search(tone(300, 1.0), sample_rate=16_000))[0].id == "day"

    asyncio.run(at_once())


def test_an_addition_that_breaks_off_is_unreachable() -> None:
    call = collection_calls.in_lines(collection_calls.add("a", Upload(b"x"), None, None))
    assert call.query["stream"] == "true"
    for content in (b"", b'{"object":"stream"}\n', b'{"object":"progress","windows":1}\n'):
        with pytest.raises(viola.Unreachable, match="broke off before its last line: send the rec"):
            call.answer(content)


def test_a_file_is_sent_from_the_disk(moody: tuple[str, type[Moody]], tmp_path: Path) -> None:
    """In a form as well, and from its beginning each time."""
    address, server = moody
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.truncate(64 << 20)

    async def search() -> None:
        async with viola.AsyncClient(address, retries=QUICK) as client:
            await client.collection("a").search(path)

    with viola.Client(address, retries=QUICK) as client:
        for send in (lambda: client.collection("a").search(path), lambda: asyncio.run(search())):
            server.moods, server.bodies = ["hang up", "busy", "other"], []
            tracemalloc.start()
            with pytest.raises(viola.Unreachable):
                send()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert len(server.bodies) == 3
            assert min(server.bodies) > 64 << 20
            assert peak < 16 << 20


def test_a_label_is_not_sent_again_where_it_may_have_been_added() -> None:
    from viola.client.errors import Failure, Unreachable, refused

    retries = viola.Retries(draw=lambda: 0.0)
    broken = Failure(Unreachable("cut off"), may_pass=True)
    assert retries.pause_s(broken, 0, 0.0) is not None
    assert retries.pause_s(broken, 0, 0.0, repeats=True) is None
    assert retries.pause_s(refused(503, {}, b""), 0, 0.0, repeats=True) is not None
    assert retries.pause_s(refused(504, {}, b""), 0, 0.0, repeats=True) is None


def test_vectors_of_any_kind_are_examples(client: viola.Client, clips: list[Path]) -> None:
    lane = client.collection("alley")
    lane.make(granularity="clip")
    item = lane.add(clips[0])
    vector = client.embed(clips[0]).embedding
    assert vector is not None
    for example in (vector, vector.astype(np.float64), list(map(float, vector))):
        assert lane.search(like=[example])[0].id == item.id  # type: ignore[list-item]
    stretch = {"id": item.id, "start_s": 0, "end_s": 0.5}
    (hit,) = lane.search(like=[stretch], include_examples=True)
    assert hit.id == item.id
    assert lane.search(like=[hit], include_examples=True) == [hit]
    (alike,) = lane.search(like=[item], top_k=np.int64(1), include_examples=True)
    assert alike.id == item.id
    made = lane.label(item.id, "low", start_s=np.float32(0), end_s=np.float32(0.5))  # type: ignore[arg-type]
    assert (made.start_s, made.end_s) == (0.0, 0.5)
    assert [place.id for place in lane.map(filter={"labels": ["low"]})] == [item.id]
    assert collection_calls.search("a", None, [hit], {}).document == {
        "positive": [{"id": item.id, "start_s": 0.0, "end_s": 0.5}]
    }
    lane.delete()


def test_a_file_of_any_name_is_added(
    client: viola.Client, clips: list[Path], tmp_path: Path
) -> None:
    lane = client.collection("names")
    lane.make(granularity="clip")
    for clip, name in zip(clips, ('"quoted", 50 %.wav', "\udcff.wav", "🎻.wav"), strict=False):
        path = tmp_path / name
        path.write_bytes(clip.read_bytes())
        assert lane.add(path).file == name.replace("\udcff", "\ufffd")
        assert lane.search(path)[0].file == name.replace("\udcff", "\ufffd")
    lane.delete()


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_no_name_leads_to_the_folder_above(name: str) -> None:
    for call in (collection_calls.remove, collection_calls.audio):
        with pytest.raises(ValueError, match="is no name"):
            call("birds", name)
    for one in (collection_calls.delete, collection_calls.forget, calls.get):
        with pytest.raises(ValueError, match="is no name"):
            one(name)
