"""`/`: the page that people see. Its files lie in `service/web/` and come from nowhere else."""

import secrets
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from service.traffic.access import open_to_all

router = APIRouter(include_in_schema=False)

_PAGE = files("service").joinpath("web", "page", "index.html").read_text("utf-8")

# `blob:` is a sound that was dropped, which its own page plays; scripts and workers are files of
# ours alone. The nonce is for the style sheet that the waveform brings with it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/")
@open_to_all
async def show_page() -> HTMLResponse:
    """Drop a sound, see what it is and what is like it. The page calls the same API as everyone."""
    nonce = secrets.token_urlsafe(16)
    page = HTMLResponse(_PAGE.replace("{nonce}", nonce))
    page.headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
    page.headers["Cache-Control"] = "no-store"
    page.headers["Referrer-Policy"] = "no-referrer"
    return page
