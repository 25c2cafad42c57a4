"""What the documentation comes to: lines and words of each page, commands and snippets in it.

`tests/test_documentation.py` checks all of these: commands by their names and options, requests by
path and parameters, Python by running it, JSON by parsing it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.test_documentation import PAGES, blocks, commands

CHECKED = ("viola", "make", "curl")


def main() -> None:
    rows = []
    for page in PAGES:
        text = page.read_text()
        called = sum(len(commands(page, name)) for name in CHECKED)
        snippets = sum(len(blocks(page, kind)) for kind in ("python", "json"))
        rows.append((page.name, len(text.splitlines()), len(text.split()), called, snippets))
    rows.append(("all", *(sum(row[column] for row in rows) for column in range(1, 5))))
    print("| page | lines | words | commands | snippets |\n|---|---:|---:|---:|---:|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
