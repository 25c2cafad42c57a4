"""Vectors of a folder's sounds into PostgreSQL, and a search there.

pip install "psycopg[binary]" pgvector
python examples/vectors_to_pgvector.py my_sounds/ --like doorbell.wav
python examples/vectors_to_pgvector.py my_sounds/ --like doorbell.wav --database postgresql://db/sounds
"""

import argparse
from pathlib import Path

import psycopg
from pgvector.psycopg import register_vector

import viola

TABLE = """
CREATE TABLE IF NOT EXISTS sounds (
    space_id text,  -- only vectors of one space may be compared
    file text,
    seconds double precision,
    embedding vector,
    PRIMARY KEY (space_id, file)
)
"""
PUT = """
INSERT INTO sounds VALUES (%s, %s, %s, %s)
ON CONFLICT (space_id, file)
DO UPDATE SET seconds = excluded.seconds, embedding = excluded.embedding
"""
CLOSEST = """
SELECT 1 - (embedding <=> %(asked)s), file FROM sounds WHERE space_id = %(space_id)s
ORDER BY embedding <=> %(asked)s LIMIT 3
"""


def main() -> None:
    """Fill a table and ask it for what is alike; `<=>` is the distance by cosine."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--like", type=Path, required=True)
    arguments.add_argument("--service", default="http://127.0.0.1:8000")
    arguments.add_argument("--database", default="postgresql://localhost")
    given = arguments.parse_args()

    with viola.Client(given.service) as client, psycopg.connect(given.database) as database:
        database.execute("CREATE EXTENSION IF NOT EXISTS vector")
        database.execute(TABLE)
        register_vector(database)
        files = sorted(path for path in given.folder.rglob("*") if path.is_file())
        for item in client.embed_many(files, parallel=8):
            if item.error:
                print(f"{item.path.name}: {item.error}")
                continue
            found = item.answer
            row = (found.space_id, str(item.path), found.duration_s, found.embedding)
            database.execute(PUT, row)
        asked = client.embed(given.like)
        wanted = {"asked": asked.embedding, "space_id": asked.space_id}
        for cosine, file in database.execute(CLOSEST, wanted):
            print(f"{cosine:.3f}  {file}")


if __name__ == "__main__":
    main()
