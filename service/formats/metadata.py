"""What may be kept of an item beside its vectors: texts, numbers and truth values by name."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from models.sources import normal
from service.naming import without_nul
from service.parameters import at_most

MAX_METADATA = 32  # keys of an item
MAX_KEY = 64  # letters of one
MAX_METADATA_BYTES = 8 << 10  # of an item's keys and texts: lists tell those of a thousand items
MAX_WHOLE = 2**53  # beyond which whole numbers are no longer told apart
MAX_NUMBER = 2**63  # beyond which a whole number may have lost digits before it is looked at
VALUES = "a text, a number, true or false"


def _kept_as_it_is(given: Any) -> Any:
    """Refuse what is no single value, and a number that would be kept as another one.

    A parser of JSON gives whole numbers beyond 64 bits as floats, their last digits lost.
    """
    if not isinstance(given, str | bool | int | float):
        raise ValueError(f"expected {VALUES}; what is not known is left out")
    if isinstance(given, float) and not abs(given) < MAX_NUMBER:
        raise ValueError(f"numbers are kept below {MAX_NUMBER}: send it as a text")
    if isinstance(given, int) and abs(given) > MAX_WHOLE:
        raise ValueError(f"whole numbers are kept up to {MAX_WHOLE}: send it as a text")
    return given


def _fits(name: str) -> str:
    """Refuse a name whose letters take more than they seem to in the form that is compared."""
    if (n_letters := len(normal(name))) > MAX_KEY:
        raise ValueError(f"a name has {n_letters} letters in Unicode's NFC; at most {MAX_KEY} may")
    return name


def _one_form(metadata: dict[str, Any]) -> dict[str, Any]:
    """Refuse names that filters could not tell apart: one name in two Unicode forms."""
    forms = [normal(name) for name in metadata]
    if twice := next((form for form in forms if forms.count(form) > 1), None):
        raise ValueError(f"{twice!r} is there twice, in two Unicode forms")
    return metadata


def _short(metadata: dict[str, Any]) -> dict[str, Any]:
    """Refuse metadata that a thousand times would be too much for an answer."""
    texts = [*metadata, *(value for value in metadata.values() if isinstance(value, str))]
    n_bytes = sum(len(text.encode()) for text in texts)
    if n_bytes > MAX_METADATA_BYTES:
        raise ValueError(f"names and texts take {n_bytes} bytes; at most {MAX_METADATA_BYTES} may")
    return metadata


Text = Annotated[str, Field(max_length=512), AfterValidator(without_nul)]


def _kind_of_scalar(given: Any) -> str:
    if isinstance(given, str):
        return "(text)"
    return "(truth)" if isinstance(given, bool) else "(number)"


# By its kind, so that what is refused is told of that kind alone
Scalar = Annotated[
    Annotated[bool, Tag("(truth)")]
    | Annotated[int | float, Tag("(number)")]
    | Annotated[Text, Tag("(text)")],
    Discriminator(_kind_of_scalar),
    BeforeValidator(_kept_as_it_is),
]
Key = Annotated[
    str,
    Field(min_length=1, max_length=MAX_KEY),
    AfterValidator(without_nul),
    AfterValidator(_fits),
]
Metadata = Annotated[
    dict[Key, Scalar],
    Field(
        max_length=MAX_METADATA,
        description=f"Texts, numbers and truth values by name, {MAX_METADATA_BYTES} bytes.",
    ),
    AfterValidator(_short),
    AfterValidator(_one_form),
    at_most(MAX_METADATA),
]
