"""What becomes of requests when files, clients, decoders and the service itself misbehave.

    python benchmarks/faults.py [--mutations] [--attacks] [--memory] [--doors] [--kills] [--drain]
        [--files 10000] [--seconds 15]

All tables unless some are named, in Markdown. The service is a process of its own; each table tells
statuses, requests without any answer, deaths of the service, decoders that were replaced, and the
highest RSS of the service and its decoders together, in MB.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # broken files are made as the tests make them

from benchmarks.fault_tables import attacks, doors, drain, kills, memory, mutations

TABLES = {
    "mutations": mutations,
    "attacks": attacks,
    "memory": memory,
    "doors": doors,
    "kills": kills,
    "drain": drain,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, table in TABLES.items():
        parser.add_argument(f"--{name}", action="store_true", help=table.table.__doc__)
    parser.add_argument("--files", type=int, default=10_000, help="different mutated ones")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each row of kills")
    asked = parser.parse_args()
    for name in [name for name in TABLES if getattr(asked, name)] or TABLES:
        TABLES[name].table(asked)


if __name__ == "__main__":
    main()
