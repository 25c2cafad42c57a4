"""What the OpenAPI document says beyond what FastAPI finds out by itself: problems and bodies."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from service.audio.uploads import FILE_FIELD, FORM, RAW_PREFIX, RAW_TYPES
from service.errors import PROBLEM_JSON
from service.formats.open_inference import InferRequest
from service.formats.openai_embeddings import OpenAIRequest
from service.problems import PROBLEM_TYPES, Problem
from service.schemas import ProblemDocument

SCHEMAS = "#/components/schemas/"
Responses = dict[int | str, dict[str, Any]]

_FILE = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}


def problem_responses(slugs: Iterable[str], *, plain: bool = False) -> Responses:
    """`responses=` of a route that can fail in these ways, each with an example.

    `plain`: `error` is a sentence, as the Open Inference Protocol wants it.
    """
    responses: Responses = {}
    for slug in slugs:
        kind = PROBLEM_TYPES[slug]
        response = responses.setdefault(
            kind.status,
            {
                "description": "",
                "content": {
                    PROBLEM_JSON: {
                        "schema": {"$ref": SCHEMAS + ProblemDocument.__name__},
                        "examples": {},
                    }
                },
            },
        )
        response["description"] = "; ".join(filter(None, (response["description"], kind.title)))
        problem = Problem(slug, kind.remedy)
        error = problem.detail if plain else problem.openai_error()
        example = problem.document(instance="urn:viola:request:4f1c", error=error)
        response["content"][PROBLEM_JSON]["examples"][slug] = {"value": example}
    return responses


def audio_body() -> dict[str, Any]:
    """`openapi_extra=` of a route that takes a form with files, or one file as the body."""
    raw = {"schema": _FILE}
    return {
        "requestBody": {
            "required": True,
            "description": "Files of a form, or one file as the body. The format is told by the "
            "first bytes, whatever the Content-Type. Fields of a form override the query.",
            "content": {
                FORM: {"schema": _form_schema()},
                f"{RAW_PREFIX}*": raw,
                **dict.fromkeys(RAW_TYPES, raw),
            },
        }
    }


def _form_schema() -> dict[str, Any]:
    """The files alone: a form page would send a made-up value for every other field it shows."""
    files = {"type": "array", "items": _FILE, "minItems": 1, "description": "One file or more."}
    return {"type": "object", "properties": {FILE_FIELD: files}, "required": [FILE_FIELD]}


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make `app` describe these routes so."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, routes)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _named(routes: Sequence[BaseRoute]) -> list[BaseRoute]:
    """Each operation by the name of its function, which generated clients call it by."""
    all_of_them, named = APIRouter(), APIRouter()
    all_of_them.routes.extend(routes)
    named.include_router(all_of_them, generate_unique_id_function=lambda route: route.name)
    return named.routes


def _document(app: FastAPI, routes: Sequence[BaseRoute]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        license_info=app.license_info,
        tags=app.openapi_tags,
        routes=_named(routes),
    )
    # Named by reference alone, which FastAPI does not see
    schemas = document["components"]["schemas"]
    for model in (ProblemDocument, OpenAIRequest, InferRequest):
        schema = model.model_json_schema(ref_template=SCHEMAS + "{model}")
        for name, part in {**schema.pop("$defs", {}), model.__name__: schema}.items():
            schemas.setdefault(name, part)
    # Needed only where the operator has set keys
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}, {}]
    return document
