"""A page of HTML in one file: text, tables, pictures; readable anywhere, without a network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem;
       margin: 1.5rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { margin: 2.4rem 0 .4rem; font-size: 1.25rem; } h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
figcaption, .facts { color: #555; font-size: .9rem; } .alarm { color: #a02020; }
.verdict { background: #eef5f7; border-left: 4px solid #1f6f8b; padding: .6rem .9rem;
           margin: 1rem 0; }
.verdict p { margin: .25rem 0; }
.scroll { overflow-x: auto; margin: .4rem 0; } .tiles { display: flex; flex-wrap: wrap; gap: 1rem; }
.tiles figure { flex: 1 1 18rem; max-width: 27rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .3rem .55rem; border-bottom: 1px solid #e3e3e3; vertical-align: top;
         text-align: left; }
th { font-weight: 600; color: #444; overflow-wrap: normal; }
.about th { min-width: 7rem; } .about td { overflow-wrap: anywhere; }
.numbers { overflow-wrap: normal; }
.numbers th, .numbers td { text-align: right; white-space: nowrap; }
.numbers th:first-child, .numbers td:first-child { text-align: left; white-space: normal;
                                                   min-width: 6rem; }
.upright { vertical-align: bottom; }
.upright span { writing-mode: vertical-rl; transform: rotate(180deg); }
.best { font-weight: 700; } .range { color: #666; font-size: .85em; }
.bar { display: grid; grid-template-columns: minmax(7rem, 14rem) 1fr 3.2rem; gap: .5rem;
       align-items: center; font-size: .9rem; margin: .15rem 0; }
@media (max-width: 34rem) { .bar { grid-template-columns: 1fr 3.2rem; }
                            .bar span:first-child { grid-column: 1 / 3; line-height: 1.1; } }
.track { background: #eee; height: .8rem; } .track div { height: 100%; }
figure { margin: .5rem 0; } img { max-width: 100%; height: auto; }
.scroll img { max-width: none; }
pre { background: #f6f6f6; padding: .8rem; font-size: .8rem; white-space: pre-wrap; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document of parts that the functions below make."""
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def heading(text: str) -> str:
    """The head of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """Text; `kind` is a class of the style."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>'


def verdict(sentences: Sequence[str]) -> str:
    """What a person wants to know first."""
    return f"<div class='verdict'>{''.join(paragraph(one) for one in sentences)}</div>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table that scrolls by itself where the screen is narrow."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<div class='scroll'><table><tr>{top}</tr>{body}</table></div>"


def bar(name: str, share: float, text: str, colour: str) -> str:
    """A name, a bar of a share in [0, 1], and the number in words."""
    width = 100 * min(1.0, max(0.0, share))
    return (
        f"<div class='bar'><span>{escape(name)}</span><div class='track'>"
        f"<div style='width:{width:.1f}%;background:{colour}'></div></div>"
        f"<span>{escape(text)}</span></div>"
    )


def tiles(pictures: Sequence[str]) -> str:
    """Pictures beside one another, as many as the screen is wide."""
    return f"<div class='tiles'>{''.join(pictures)}</div>"


def code(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"


def picture(png: bytes, caption: str, *, wide: bool = False) -> str:
    """A PNG file inside the page, with words below it; a `wide` one scrolls rather than shrinks."""
    data, text = base64.b64encode(png).decode(), escape(caption)
    image = f'<img alt="{text}" src="data:image/png;base64,{data}">'
    shown = f"<div class='scroll'>{image}</div>" if wide else image
    return f"<figure>{shown}<figcaption>{text}</figcaption></figure>"


def facts(values: Mapping[str, object]) -> str:
    """A table of names and what they are."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<div class='scroll'><table class='about'>{rows}</table></div>"
