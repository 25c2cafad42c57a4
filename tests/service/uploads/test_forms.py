import httpx
import pytest

from service.uploads.forms import with_plain_name
from tests.service.conftest import encoded, tone

URL = "/v1/audio/embeddings"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("filename*=UTF-8''na%C3%AFve.wav", "naïve.wav"),
        ("filename*=utf-8'en'a.wav", "a.wav"),
        ("filename*=iso-8859-1''na%EFve.wav", "naïve.wav"),
        ("filename*=\"UTF-8''a%20b.wav\"", "a b.wav"),
        ("filename*=nothing''a.wav", "a.wav"),
        ("filename*=UTF-8''%22%5C%0Aa", '"\\\ufffda'),
        ("filename*=UTF-8''%FF", "\ufffd"),
        ("filename=\"b.wav\"; filename*=UTF-8''a.wav", "b.wav"),
        ("filename*=UTF-8''a.wav; filename=b.wav", "b.wav"),
    ],
)
def test_a_file_may_be_named_as_in_mail(client: httpx.Client, disposition: str, name: str) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="file"; {disposition}\r\n\r\n'
    body = head.encode("latin-1") + encoded(tone()) + b"\r\n--b--\r\n"
    answer = client.post(URL, content=body, headers=FORM)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["file"] == name


@pytest.mark.parametrize("rest", [b'; filename="a"', b"", b"; filename*=", b"; filename*=x"])
def test_what_has_a_plain_name_or_none_stays_as_it_is(rest: bytes) -> None:
    disposition = b'form-data; name="file"' + rest
    assert with_plain_name(disposition) == disposition
