"""What the handlers share, made once by the application's lifespan."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.admission import Admission
from service.catalogue import Catalogue
from service.engine import Engine
from service.settings import Settings


@dataclass(frozen=True)
class Context:
    """The service's parts; a handler takes those it needs."""

    settings: Settings
    catalogue: Catalogue
    engine: Engine
    admission: Admission


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Shared = Annotated[Context, Depends(_context)]
