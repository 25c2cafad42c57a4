"""What clients may call things: collections, classifiers, items, labels.

Names stand in paths. One of dots alone is taken for a folder by whoever puts an address together:
to delete the item `..` of a collection would be to delete the collection.
"""

import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from models.sources import normal

MAX_NAME, MAX_ID, MAX_LABEL = 64, 128, 128  # letters

_PART = "[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*"
NAME = f"^({_PART}:)?{_PART}$"
"""Of a collection or a classifier: `sounds`, or `birds:sounds` of the group birds."""
GROUP_MARK = ":"  # ends the name of a group, and stands in the name of no key
ID = r"^[\w.:@+=~,-]*[\w:@+=~,-][\w.:@+=~,-]*$"
KEY = r"^[0-9a-f]{32}$"
"""The id of a job or an upload, which the service has made."""
CHANNEL = r"^(mix|[0-9]{1,2})$"
WEB_ADDRESS = r"^https?://[!-~]+$"
_CONTROL = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of characters, ends of lines

NAME_RULE = (
    f"up to {MAX_NAME} letters of ASCII, digits and `._-`, and not dots alone: it stands in paths; "
    "GROUP:NAME of a group."
)
ID_RULE = (
    f"1 to {MAX_ID} letters, digits and `._:@+=~,-`, not dots alone; no slash, since it stands in "
    "paths."
)

IN_WORDS = {
    NAME: NAME_RULE.removesuffix("."),
    ID: ID_RULE.removesuffix("."),
    KEY: "32 digits and letters from a to f, as the service told it when it was made",
    CHANNEL: "a channel's number, from 0 to 99, or mix",
    WEB_ADDRESS: "an address that begins with https:// or http://, in ASCII without spaces",
}
"""What each pattern asks for, in words for refusals."""


def is_name(text: str) -> bool:
    """Whether a collection or a classifier may be called so."""
    return len(text) <= MAX_NAME and re.fullmatch(NAME, text) is not None and text.isprintable()


def group_in(name: str) -> str | None:
    """The group that owns what has this name: `birds:` for `birds:sounds`, None for `sounds`."""
    group, mark, _ = name.partition(GROUP_MARK)
    return group + mark if mark else None


def checked_label(text: str) -> str:
    """A label that files of labels can hold: one line.

    Raises:
        ValueError: it holds something else, or begins or ends with a space.
    """
    if any(unicodedata.category(character) in _CONTROL for character in text):
        raise ValueError("a label is one line without control characters")
    if text != text.strip():
        raise ValueError("a label has no spaces at its ends")
    return text


def without_nul(text: str) -> str:
    """A text that every database can hold.

    Raises:
        ValueError: it holds NUL.
    """
    if "\0" in text:
        raise ValueError("a text holds no NUL")
    return text


def _one_form_of(given: Any) -> Any:
    return normal(given) if isinstance(given, str) else given


Name = Annotated[str, Field(pattern=NAME, max_length=MAX_NAME)]
ItemId = Annotated[
    str, Field(pattern=ID, max_length=MAX_ID, description=ID_RULE), BeforeValidator(_one_form_of)
]
LabelName = Annotated[
    str,
    Field(min_length=1, max_length=MAX_LABEL),
    AfterValidator(checked_label),
    BeforeValidator(_one_form_of),
]
