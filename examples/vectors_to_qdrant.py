"""Vectors of a folder's sounds into Qdrant, and a search there. `pip install qdrant-client`.

python examples/vectors_to_qdrant.py my_sounds/ --like doorbell.wav
python examples/vectors_to_qdrant.py my_sounds/ --like doorbell.wav --qdrant http://127.0.0.1:6333
"""

import argparse
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams

import viola


def main() -> None:
    """Fill a collection, named after the space so that spaces never mix, and ask it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--like", type=Path, required=True)
    arguments.add_argument("--service", default="http://127.0.0.1:8000")
    arguments.add_argument("--qdrant", default=":memory:", help="an address, a folder, :memory:")
    given = arguments.parse_args()

    if given.qdrant.startswith("http"):
        qdrant = QdrantClient(url=given.qdrant)
    elif given.qdrant == ":memory:":
        qdrant = QdrantClient(":memory:")
    else:
        qdrant = QdrantClient(path=given.qdrant)
    with viola.Client(given.service) as client:
        asked = client.embed(given.like)
        name = f"sounds-{asked.space_id}"
        size = len(asked.embedding)
        if not qdrant.collection_exists(name):
            vectors = VectorParams(size=size, distance=Distance.COSINE)
            qdrant.create_collection(name, vectors_config=vectors)
        files = sorted(path for path in given.folder.rglob("*") if path.is_file())
        for item in client.embed_many(files, parallel=8):
            if item.error:
                print(f"{item.path.name}: {item.error}")
                continue
            about = {"file": str(item.path), "duration_s": item.answer.duration_s}
            id = str(uuid5(NAMESPACE_URL, str(item.path)))  # a file stays one point
            point = PointStruct(id=id, vector=item.answer.embedding.tolist(), payload=about)
            qdrant.upsert(name, [point])
        found = qdrant.query_points(name, query=asked.embedding.tolist(), limit=3)
        for point in found.points:
            print(f"{point.score:.3f}  {point.payload['file']}")
    qdrant.close()


if __name__ == "__main__":
    main()
