"""How the tables have come to be, step by step; run by Alembic at every start."""
