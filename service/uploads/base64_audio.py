"""Audio files inside JSON: base64, by itself or in a `data:` URI."""

import binascii

from service.problems import Problem, invalid_parameter

_SHOWN = 32  # characters of what was sent


def read_base64(text: str, name: str) -> bytes:
    """The bytes of a file; `name` is the place in the request that errors point to.

    Raises:
        Problem: it is not base64, in the standard alphabet and without line breaks.
    """
    try:
        return binascii.a2b_base64(_payload(text, name), strict_mode=True)  # copies no string
    except (binascii.Error, ValueError):
        raise _not_base64(text, name) from None


def _payload(text: str, name: str) -> str:
    """What follows the head of a `data:` URI; its media type is ignored: the bytes tell."""
    if text[:5].lower() != "data:":
        if text[:8].lower().startswith(("http://", "https://")):
            reason = f"{name} is an address; nothing is fetched: send the file itself in base64."
            raise invalid_parameter(name, reason, value=text[:_SHOWN])
        return text
    head, comma, payload = text.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        reason = f"{name} is a data: URI without base64: send data:audio/wav;base64,…"
        raise invalid_parameter(name, reason, value=text[:_SHOWN])
    return payload


def _not_base64(text: str, name: str) -> Problem:
    reason = (
        f"{name} is not base64 of an audio file: this service embeds audio, not text. Take the "
        "standard alphabet with its padding, without line breaks (`base64 -w0 clip.wav`)."
    )
    return invalid_parameter(name, reason, value=text[:_SHOWN])
