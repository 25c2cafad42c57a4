"""The tables of docs/http-api.md say what the application and its OpenAPI document say."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from service.app import create_app
from service.formats.openai_embeddings import OpenAIRequest
from service.problem_types import PROBLEM_TYPES
from service.settings import Settings
from service.streams.live import LiveConfig
from service.traffic.access import Access
from service.traffic.doors import Door

PAGE = Path(__file__).parents[2] / "docs" / "http-api.md"
TABLE = re.compile(r"<!-- (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)
# What is decided before a route is reached, or may happen in any
ANYWHERE = {
    "unauthorized": "any that asks for a key",
    "forbidden": "any that asks for a scope",
    "foreign-origin": "any but GET",
    "not-found": "any",
    "method-not-allowed": "any",
    "head-too-large": "any",
    "internal": "any",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return create_app(Settings(models=tmp_path_factory.mktemp("none")))


def line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def doors(app: FastAPI) -> Iterator[tuple[str, Door]]:
    """Every route as `METHOD /path`, in the order of paths; a mounted folder has no method."""
    for door in sorted(app.router.routes, key=lambda door: door.path):  # type: ignore[attr-defined]
        assert isinstance(door, Door)
        methods = sorted(getattr(door.route, "methods", None) or [])
        is_socket = type(door.route).__name__ == "APIWebSocketRoute"
        for method in methods or ["WebSocket" if is_socket else "GET"]:
            yield f"`{method} {door.path}`", door


def who(access: Access) -> str:
    if not access.needs_key:
        return "anybody"
    scopes = ", ".join(f"`{scope}`" for scope in sorted(access.scopes)) or "any"
    return scopes + (", metered" if access.metered else "")


def routes(app: FastAPI) -> str:
    rows = [("route", "what", "scopes of the key"), ("---", "---", "---")]
    rows += [(name, what(door.route), who(door.access)) for name, door in doors(app)]
    return "".join(line(*row) for row in rows)


def what(route: Any) -> str:
    """Its summary, else the first line of its function's docstring."""
    endpoint = getattr(route, "endpoint", None)
    told = getattr(route, "summary", None) or getattr(endpoint, "__doc__", None)
    return str(told or "The files of `/docs`").splitlines()[0].rstrip(".")


def values(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    return " or ".join(filter(None, map(_value, options)))


def _value(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return "an object"
    kind = {"integer": "integer", "number": "number", "boolean": "`true`, `false`"}.get(
        schema.get("type", ""), "list" if schema.get("type") == "array" else "text"
    )
    if "mix" in schema.get("pattern", ""):
        return "`mix` or a number"
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    bounds = [
        f"from {low:g}" if low is not None else "",
        f"above {above:g}" if above is not None else "",
        f"to {schema['maximum']:.12g}" if "maximum" in schema else "",
        f"of {schema['maxLength']} characters at most" if "maxLength" in schema else "",
    ]
    return " ".join([kind, *filter(None, bounds)])


def default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def parameters(app: FastAPI) -> str:
    """Of the query; those that are the same on several routes stand together."""
    taken: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for path, operations in app.openapi()["paths"].items():
        for operation in operations.values():
            for one in operation.get("parameters", []):
                if one["in"] == "query":
                    about, schema = one.get("description", ""), one["schema"]
                    taken[one["name"], values(schema), default(schema), about].append(path)
    rows = [("parameter", "values", "default", "meaning", "routes"), ("---",) * 5]
    rows += [
        (
            f"`{name}`",
            value,
            given,
            about,
            ", ".join(dict.fromkeys(f"`{path.rsplit('/', 1)[1]}`" for path in paths)),
        )
        for (name, value, given, about), paths in sorted(taken.items())
    ]
    return "".join(line(*row) for row in rows)


def members(model: type[OpenAIRequest] | type[LiveConfig]) -> str:
    schema = model.model_json_schema()
    rows = [("member", "values", "default", "meaning"), ("---",) * 4]
    for name, part in schema["properties"].items():
        shown = "required" if name in schema.get("required", ()) else default(part)
        rows.append((f"`{name}`", values(part), shown, part.get("description", "")))
    return "".join(line(*row) for row in rows)


def errors(app: FastAPI) -> str:
    """Every problem, with the routes whose descriptions name it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            for response in operation["responses"].values():
                for content in response.get("content", {}).values():
                    for slug in content.get("examples", {}):
                        found[slug].add(f"{method.upper()} {path}")
    audio = found["decode-timeout"] | found["body-timeout"]
    rows = [("type", "status", "when", "what to do", "routes"), ("---",) * 5]
    for slug, kind in sorted(PROBLEM_TYPES.items(), key=lambda item: (item[1].status, item[0])):
        rows.append(
            (
                f"`{slug}`",
                str(kind.status),
                kind.title,
                kind.remedy,
                _where(slug, found[slug], audio),
            )
        )
    return "".join(line(*row) for row in rows)


def _where(slug: str, found: set[str], audio: set[str]) -> str:
    if slug in ANYWHERE:
        return ANYWHERE[slug]
    if found >= audio:
        return "with audio" if found == audio else "with audio, and " + _names(found - audio)
    if found < audio and len(found) > 2:
        return "with audio, but for " + _names(audio - found)
    return _names(found)


def _names(found: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(found))


def test_the_page_has_every_route_parameter_and_error(app: FastAPI) -> None:
    """After a change that is meant run `UPDATE_DOCS=1 pytest tests/service/test_http_api.py`."""
    tables = {
        "routes": routes(app),
        "parameters": parameters(app),
        "openai": members(OpenAIRequest),
        "live": members(LiveConfig),
        "errors": errors(app),
    }
    text = PAGE.read_text()
    if os.environ.get("UPDATE_DOCS"):
        text = TABLE.sub(lambda m: f"<!-- {m[1]} -->\n{tables[m[1]]}<!-- end -->", text)
        PAGE.write_text(text)
    assert dict(TABLE.findall(text)) == tables
