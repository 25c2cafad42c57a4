"""Collections and teaching through the client, sync and async, against a service with a store."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import viola
from service.settings import Settings
from tests.service.conftest import serving, write_model
from tests.signals import noise, tone
from viola.client import calls, collection_calls


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
    assert lane.search(like=[stretch], include_examples=True)[0].id == item.id
    lane.delete()


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_no_name_leads_to_the_folder_above(name: str) -> None:
    for call in (collection_calls.remove, collection_calls.audio):
        with pytest.raises(ValueError, match="is no name"):
            call("birds", name)
    for one in (collection_calls.delete, collection_calls.forget, calls.get):
        with pytest.raises(ValueError, match="is no name"):
            one(name)
