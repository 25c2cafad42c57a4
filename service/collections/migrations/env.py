"""Alembic's entry: runs the steps on the connection that `database.migrate` hands over."""

from alembic import context

from service.collections.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # of SQLite too: all steps or none
)
with context.begin_transaction():
    context.run_migrations()
