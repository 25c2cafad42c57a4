"""Pages of the documentation that hold tables written from the code."""

import os
import re
from pathlib import Path


def check_table(page: Path, table: re.Pattern[str], expected: str) -> None:
    """Compare the one table of a page with what it must be; with `UPDATE_DOCS=1` write it anew."""
    text = page.read_text()
    if os.environ.get("UPDATE_DOCS"):
        text = table.sub(lambda _: expected, text)
        page.write_text(text)
    assert table.findall(text) == [expected]
