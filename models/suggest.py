"""Did you mean: the known name that an unknown one is probably a slip of."""

from collections.abc import Iterable
from difflib import get_close_matches

LIKENESS = 0.7  # of `difflib`: "step" for "steps" is 0.89, "foo" for "port" 0.29


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question to put behind an error, or nothing where no known name is close."""
    closest = get_close_matches(name, list(known), n=1, cutoff=LIKENESS)
    return f"; did you mean {closest[0]}?" if closest else ""
