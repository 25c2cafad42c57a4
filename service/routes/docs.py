"""`/docs`: the API to read and to try out, with no request to anywhere else."""

from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from service.traffic.access import open_to_all

router = APIRouter(include_in_schema=False)

_ASSETS = "/web/swagger"  # Swagger UI 5.35.0, as published in the package swagger-ui-dist
_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"


web = StaticFiles(directory=str(files("service").joinpath("web")))
router.mount("/web", open_to_all(web), name="web")


@router.get("/")
@open_to_all
async def go_to_docs(request: Request) -> RedirectResponse:
    """People who type the address want the documentation."""
    return RedirectResponse(f"{_root(request)}/docs")


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
        swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True},
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")
