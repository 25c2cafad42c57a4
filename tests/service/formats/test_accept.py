"""Which of several media types a client would rather have."""

import pytest

from service.formats.accept import negotiated

OFFERED = ("application/json", "application/x-npy", "text/event-stream")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json;q=0.5, application/x-npy", "application/x-npy"),
        ("application/json;q=0.5, application/x-npy;q=0.4", "application/json"),
        ("application/x-npy;q=0.9, */*;q=0.1", "application/x-npy"),
        ("*/*, application/json;q=0", "application/x-npy"),
        ("application/*;q=0.2, text/*;q=0.8", "text/event-stream"),
        ("text/event-stream, application/json", "text/event-stream"),  # among equals the first
        ("*/*, application/x-npy", "application/x-npy"),  # and what is named before what is not
        ("APPLICATION/X-NPY ; Q=1.0", "application/x-npy"),
        ("application/x-npy;version=1;q=0.3, application/json;q=0.2", "application/x-npy"),
        ("application/x-npy;q=high", "application/json"),
        ("application/x-npy;q=nan, text/event-stream;q=7", "application/json"),
        ("image/png", "application/json"),
        ("application/json;q=0", "application/json"),  # nothing is acceptable: disregarded
        (",;,q=1,", "application/json"),
    ],
)
def test_the_highest_quality_wins(accept: str, chosen: str) -> None:
    assert negotiated(accept, OFFERED) == chosen
