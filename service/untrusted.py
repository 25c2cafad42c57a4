"""Text that came from a client, made safe to echo and to log."""

MAX_CHARS = 128


def printable(text: str, max_chars: int = MAX_CHARS) -> str:
    """`text` cut to `max_chars`, with U+FFFD for whatever could move a cursor or fake a log line.

    Control and format characters, line separators and lone surrogates count as such.
    """
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text[: max_chars + 1])
    return shown if len(shown) <= max_chars else shown[: max_chars - 1] + "…"
