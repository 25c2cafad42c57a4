"""`/docs`: the API to read and to try out, with no request to anywhere else."""

import re
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from service import installation
from service.traffic.access import open_to_all

router = APIRouter(include_in_schema=False)

_ASSETS = "/web/swagger"  # Swagger UI 5.35.0, as published in the package swagger-ui-dist
_ADDRESS = re.compile(r"[A-Za-z0-9.:\[\]/_-]+", re.ASCII)
_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"


web = StaticFiles(directory=str(files("service").joinpath("web")))
router.mount("/web", open_to_all(web), name="web")


@router.get("/openapi.json")
@open_to_all
async def show_openapi(request: Request) -> JSONResponse:
    """The API as a document; behind a proxy that adds a prefix to paths, with that prefix."""
    document, root = request.app.openapi(), _root(request)
    return JSONResponse({**document, "servers": [{"url": root}]} if root else document)


@router.get("/docs")
@open_to_all
async def show_docs(request: Request) -> HTMLResponse:
    """Swagger UI; the policy keeps it from loading anything from elsewhere."""
    root = _root(request)
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="Viola",
        swagger_js_url=f"{root}{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{root}{_ASSETS}/favicon-32x32.png",
        swagger_ui_parameters={
            "spec": _of_this_installation(request),
            "validatorUrl": None,
            "tryItOutEnabled": True,
        },
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


def _of_this_installation(request: Request) -> dict[str, Any]:
    """The document that the page shows; the address is that which the page was asked for at."""
    state, root = request.app.state, _root(request)
    catalogue = state.context.catalogue
    given = f"{request.url.netloc}{root}"
    document = installation.described(
        request.app.openapi(),
        models=list(catalogue.models),
        classifiers=list(catalogue.classifiers),
        has_keys=bool(state.gate.keyring),
        address=given if _ADDRESS.fullmatch(given) else installation.WRITTEN_ADDRESS,
    )
    return {**document, "servers": [{"url": root}]} if root else document


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")
