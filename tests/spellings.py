"""Paths written in other ways."""

from collections.abc import Iterator


def spellings(path: str) -> Iterator[str]:
    """The path in other ways, some of which proxies, people and attackers take for the same."""
    for end in ("0A", "0D%0A", "00", "09", "7F", "1B", "C2%85", "E2%80%A8", "20", "3F", "23", "2F"):
        yield f"{path}%{end}"
    for end in ("/", "//", "/.", ";", ";a=b", "%3Bx", "/%2e%2e/x", "\\", "%5C", "%E2%80%8B"):
        yield f"{path}{end}"
    for start in ("/", "/.", "/x/..", "/%2e", "%2F", "%0A", "/%00"):
        yield f"{start}{path}"
    head, _, tail = path[1:].partition("/")
    yield f"/{head}//{tail}"
    yield f"/{head}%2F{tail}"
    yield f"/{head}%252F{tail}"
    yield f"/{head}%C0%AF{tail}"
    yield f"/{head}%EF%BC%8F{tail}"  # a fullwidth solidus
    yield path.upper()
    yield path.title()
    yield path.replace("e", "%65").replace("o", "%6f")
    yield path.replace("a", "%D0%B0")  # of the Cyrillic alphabet
    yield path.replace("s", "%C5%BF")  # a long s, whose capital is that of s
