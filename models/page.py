"""A page of HTML in one file: text, tables, pictures; readable anywhere, without a network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 74rem;
       margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { margin-top: 2.6rem; font-size: 1.25rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; } figcaption, .facts { color: #555; }
.alarm { color: #a02020; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .65rem; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
th { font-weight: 600; color: #444; text-align: left; }
.numbers th, .numbers td { text-align: right; }
.numbers th:first-child, .numbers td:first-child { text-align: left; }
.best { font-weight: 700; } .range { color: #777; font-size: .85em; }
figure { margin: .5rem 0; } img { max-width: 100%; height: auto; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .8rem; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document of parts that the functions below make."""
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def heading(text: str) -> str:
    """The head of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """Text; `kind` is a class of the style."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>'


def code(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"


def picture(png: bytes, caption: str) -> str:
    """A PNG file inside the page, with words below it."""
    data, text = base64.b64encode(png).decode(), escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def facts(values: Mapping[str, object]) -> str:
    """A table of names and what they are."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<table>{rows}</table>"
