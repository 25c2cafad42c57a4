"""What a reload leaves as it was."""

import asyncio
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from structlog.testing import capture_logs

from service import reloading
from service.collecting import Collecting
from service.collections.records import Terms
from service.inference.catalogue import Catalogue
from service.settings import Settings
from service.traffic.auth import Keyring


def test_a_reload_keeps_the_threads_that_a_session_has(monkeypatch, tmp_path) -> None:
    settings, asked = Settings(models=tmp_path, inferences=8), list[Any]()
    monkeypatch.setattr("service.settings.available_cpus", lambda: 16)

    def load(*arguments: Any) -> Catalogue:
        asked.extend(arguments)
        return Catalogue()

    monkeypatch.setattr(reloading, "load_catalogue", load)
    context: Any = SimpleNamespace(settings=settings, catalogue=Catalogue(), collecting=None)
    assert asyncio.run(reloading._reload_models(context))
    assert asked[-1] == settings.workers_and_threads[1] == 2


def test_a_service_answers_while_its_keys_are_waited_for(monkeypatch, tmp_path) -> None:
    is_asked, goes_on = threading.Event(), threading.Event()

    def load(_: Settings) -> list[Any]:
        is_asked.set()
        assert goes_on.wait(20)
        return []

    async def reload() -> bool:
        reloading_ = asyncio.create_task(reloading._reload_keys(Settings(), Keyring()))
        while not is_asked.is_set():
            await asyncio.sleep(0.01)
        goes_on.set()
        return await reloading_

    monkeypatch.setattr(reloading, "load_keys", load)
    assert asyncio.run(reload())


def test_a_reload_tells_of_collections_that_it_leaves_without_a_model(
    monkeypatch, tmp_path
) -> None:
    settings = Settings(models=tmp_path, data=tmp_path / "data")
    collecting = Collecting.open(settings)
    collecting.store.collections.put("", "owls", Terms("old", "space-of-old", 4), collecting.quota)
    monkeypatch.setattr(reloading, "load_catalogue", lambda *_: Catalogue())
    context: Any = SimpleNamespace(settings=settings, catalogue=Catalogue(), collecting=collecting)
    with closing(collecting.store), capture_logs() as logs:
        assert asyncio.run(reloading._reload_models(context))
    (line,) = [line for line in logs if line["event"].startswith("collections of a model that")]
    assert (line["model"], line["space_id"], line["collections"]) == ("old", "space-of-old", 1)


def test_a_folder_that_is_empty_now_is_a_reload_that_is_refused(tmp_path: Path) -> None:
    context: Any = SimpleNamespace(
        settings=Settings(models=tmp_path), catalogue=Catalogue(), collecting=None
    )
    assert not asyncio.run(reloading._reload_models(context))
    assert [one.reason for one in context.catalogue.refused] == ["the folder holds no *.onnx"]
