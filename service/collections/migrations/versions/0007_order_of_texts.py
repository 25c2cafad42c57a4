"""Texts of metadata in one Unicode form, and in one order whatever the language of the server."""

import unicodedata
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

ROWS = 10_000  # that are looked at together
MAX_NAME = 64  # letters

values = sa.table(
    "metadata_values", sa.column("item"), sa.column("name"), sa.column("text", sa.Text)
)


def upgrade() -> None:
    """Change the order of the column, and write what is in another form anew."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute('ALTER TABLE metadata_values ALTER COLUMN "text" TYPE text COLLATE "C"')
    for item, name, held in list(_in_another_form()):
        row = sa.and_(values.c.item == item, values.c.name == name)
        form = unicodedata.normalize("NFC", name)
        if len(form) > MAX_NAME:  # a few letters are written as two in this form: it stays
            form = name
        same = sa.and_(values.c.item == item, values.c.name == form)
        if form != name:  # what was given in both forms is found by one of them
            op.execute(sa.delete(values).where(same))
        text = None if held is None else unicodedata.normalize("NFC", held)
        op.execute(sa.update(values).where(row).values(name=form, text=text))


def _in_another_form() -> Iterator[tuple[int, str, str | None]]:
    """Rows by their keys, those whose name or text is not in the form NFC."""
    columns = values.c.item, values.c.name
    last: tuple[Any, Any] | None = None
    while True:
        query = sa.select(values).order_by(*columns).limit(ROWS)
        if last is not None:
            query = query.where(sa.tuple_(*columns) > sa.tuple_(*map(sa.literal, last)))
        rows = op.get_bind().execute(query).all()
        for item, name, held in rows:
            if not all(unicodedata.is_normalized("NFC", text) for text in (name, held or "")):
                yield item, name, held
        if len(rows) < ROWS:
            return
        item, name, _ = rows[-1]
        last = item, name
