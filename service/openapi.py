"""What the OpenAPI document says beyond what FastAPI finds out by itself: problems and bodies."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.routing import BaseRoute

from service.errors import PROBLEM_JSON
from service.formats.json_body import JSON
from service.formats.open_inference import InferRequest
from service.formats.openai_embeddings import OpenAIRequest
from service.problem_types import PROBLEM_TYPES
from service.problems import Problem
from service.schemas import ProblemDocument
from service.traffic.access import declared_access
from service.uploads.body import FILE_FIELD, FORM, OFFSET, RAW_PREFIX, RAW_TYPES

SCHEMAS = "#/components/schemas/"
VALIDATION_ERROR = "HTTPValidationError"  # of FastAPI; ours is the problem `invalid-parameter`
_NAMED: list[type[BaseModel]] = []  # by the routes, as they are made
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


def audio_body(also: type[BaseModel] | None = None) -> dict[str, Any]:
    """`openapi_extra=` of a route that takes a form with files, or one file as the body.

    `also`: what it takes as JSON.
    """
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
                **({JSON: {"schema": _schema(also)}} if also else {}),
            },
        }
    }


def json_body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra=` of a route that takes JSON of this shape."""
    content = {JSON: {"schema": _schema(model)}}
    return {"requestBody": {"required": required, "content": content}}


def offset_body() -> dict[str, Any]:
    """`openapi_extra=` of a route that takes bytes of a file that comes in parts."""
    return {"requestBody": {"required": True, "content": {OFFSET: {"schema": _FILE}}}}


def search_body(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra=` of a route that takes such JSON, or files with its members as fields."""
    body = audio_body()
    body["requestBody"]["content"] = {
        JSON: {"schema": _schema(model)},
        **body["requestBody"]["content"],
    }
    body["requestBody"]["description"] = (
        "JSON, or files: as parts of a form, or one file as the body. Beside files the members of "
        "the JSON are fields of the form, or stand in the query; those that are no texts or "
        "numbers are JSON there."
    )
    return body


def job_body(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra=` of a route that takes such JSON, or a form with files beside its members."""
    return {
        "requestBody": {
            "required": True,
            "description": "JSON; or a form with files, whose other fields are the members of the "
            "JSON, each as JSON.",
            "content": {JSON: {"schema": _schema(model)}, FORM: {"schema": _form_schema()}},
        }
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    _NAMED.append(model)
    return {"$ref": SCHEMAS + model.__name__}


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


def _as_answered(document: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """Take out FastAPI's own 422, which is never sent, and add the refusals of a key."""
    for operation in _operations(document):
        if VALIDATION_ERROR in str(operation["responses"].get("422")):
            del operation["responses"]["422"]
    for name in (VALIDATION_ERROR, "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    for route in routes:
        access = declared_access(route)
        path = document["paths"].get(getattr(route, "path_format", ""), {})
        refusals = ["head-too-large"]
        if access is not None and access.needs_key:
            refusals += ["unauthorized", *(["forbidden"] if access.scopes else [])]
        for method in getattr(route, "methods", None) or ():
            responses = path.get(method.lower(), {}).get("responses", {})
            for status, response in problem_responses(refusals).items():
                responses.setdefault(str(status), response)


def _operations(document: dict[str, Any]) -> Iterable[dict[str, Any]]:
    return (one for path in document["paths"].values() for one in path.values())


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
    named: list[type[BaseModel]] = [ProblemDocument, OpenAIRequest, InferRequest, *_NAMED]
    for model in named:
        schema = model.model_json_schema(ref_template=SCHEMAS + "{model}")
        for name, part in {**schema.pop("$defs", {}), model.__name__: schema}.items():
            schemas.setdefault(name, part)
    _as_answered(document, routes)
    # Needed only where the operator has set keys
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}, {}]
    return document
