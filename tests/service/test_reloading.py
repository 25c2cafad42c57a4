"""What a reload leaves as it was."""

import asyncio
from types import SimpleNamespace
from typing import Any

from service import reloading
from service.inference.catalogue import Catalogue
from service.settings import Settings


def test_a_reload_keeps_the_threads_that_a_session_has(monkeypatch, tmp_path) -> None:
    settings, asked = Settings(models=tmp_path, inferences=8), list[Any]()
    monkeypatch.setattr("service.settings.available_cpus", lambda: 16)

    def load(*arguments: Any) -> Catalogue:
        asked.extend(arguments)
        return Catalogue()

    monkeypatch.setattr(reloading, "load_catalogue", load)
    context: Any = SimpleNamespace(settings=settings, catalogue=Catalogue())
    assert asyncio.run(reloading._reload_models(context))
    assert asked[-1] == settings.workers_and_threads[1] == 2
