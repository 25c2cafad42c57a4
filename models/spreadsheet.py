"""Text tables as spreadsheets write them: which encoding, and what stands between the cells."""

import codecs
import csv
import io
from pathlib import Path

SEPARATORS = (",", ";", "\t")
"""Between cells: the second where a comma is the decimal point, the third in "Unicode text"."""


class SpreadsheetError(ValueError):
    """A file that is no text in an encoding that can be told."""


def text_of(path: Path) -> str:
    """The text of a file: UTF-8, or UTF-16 if it begins with the mark of that.

    Raises:
        SpreadsheetError: it is neither, with the remedy.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpreadsheetError(
            f"{path}, line {line}, is not text in UTF-8; save it so, in a spreadsheet as 'CSV "
            "UTF-8', or convert it with iconv"
        ) from None
    if "\0" in text:
        raise SpreadsheetError(
            f"{path} holds bytes of 0, as UTF-16 without its mark and files that are no text do; "
            "save it as text in UTF-8, in a spreadsheet as 'CSV UTF-8'"
        )
    return text


def rows(text: str, *, strict: bool = False) -> "csv.DictReader[str]":
    """The rows of a table by column; a cell that is missing is empty.

    The separator is the one that divides the first line into most cells. `strict` refuses quotes
    that are not closed.
    """
    separator = max(SEPARATORS, key=lambda separator: _cells_of_the_first_line(text, separator))
    content = io.StringIO(text, newline="")
    return csv.DictReader(content, restval="", strict=strict, delimiter=separator)


def _cells_of_the_first_line(text: str, separator: str) -> int:
    first = io.StringIO(text, newline="")
    return len(next(csv.reader(first, delimiter=separator), []))
