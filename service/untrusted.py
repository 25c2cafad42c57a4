"""Text that came from a client, made safe to echo, to log and to open in a spreadsheet."""

MAX_CHARS = 128
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would compute


def printable(text: str, max_chars: int = MAX_CHARS) -> str:
    """`text` cut to `max_chars`, with U+FFFD for whatever could move a cursor or fake a log line.

    Control and format characters, line separators and lone surrogates count as such.
    """
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text[: max_chars + 1])
    return shown if len(shown) <= max_chars else shown[: max_chars - 1] + "…"


def cell(text: str) -> str:
    """A text as it stands in a CSV: spreadsheets take what begins so for a formula, and run it."""
    return f"'{text}" if len(text) > 1 and text.startswith(FORMULA) else text


def text_of(cell: str) -> str:
    """The text that stands in a cell, see `cell`."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell
