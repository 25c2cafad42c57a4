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
        ("filename*=undefined''a.wav", "a.wav"),
        ("filename*=idna''a%FF.wav", "aÿ.wav"),
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


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "nothing", "undefined", "punycode"])
@pytest.mark.parametrize("name", [b"na\xc3\xafve.wav", b"na\xefve.wav"])
def test_the_charset_of_a_form_means_nothing(
    client: httpx.Client, charset: str, name: bytes
) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n' % name
    field = b'\r\n--b\r\nContent-Disposition: form-data; name="dimensions"\r\n\r\n4\r\n--b--\r\n'
    headers = {"Content-Type": f"{FORM['Content-Type']}; charset={charset}"}
    answer = client.post(URL, content=head + encoded(tone()) + field, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["file"] == "naïve.wav"
    assert len(answer.json()["data"][0]["embedding"]) == 4


@pytest.mark.parametrize("url", [URL, f"{URL}?stream=true"])
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(b"", id="in the file"),
        pytest.param(b"\r\n--b", id="in a boundary"),
        pytest.param(b"\r\n--b\r\nContent-Disp", id="in a head"),
        pytest.param(
            b'\r\n--b\r\nContent-Disposition: form-data; name="dimensions"\r\n\r\n1',
            id="in a field",
        ),
    ],
)
def test_a_form_that_was_cut_off_is_refused(client: httpx.Client, url: str, end: bytes) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    answer = client.post(url, content=head + encoded(tone()) + end, headers=FORM)
    assert answer.status_code == 400
    assert "ends before its last boundary" in answer.json()["detail"]
