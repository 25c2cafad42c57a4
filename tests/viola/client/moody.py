"""A server that answers as it was told, for what clients do about failures."""

from http.server import BaseHTTPRequestHandler
from typing import Any

import viola

QUICK = viola.Retries(first_s=0.001, budget_s=1.0)


class Moody(BaseHTTPRequestHandler):
    """Refuses, breaks off, and answers in the end; keeps the bodies that came whole."""

    protocol_version = "HTTP/1.1"
    moods: list[str] = []
    bodies: list[int] = []

    def do_POST(self) -> None:
        n_bytes, announced = 0, int(self.headers["Content-Length"] or 0)
        while part := self.rfile.read(min(announced - n_bytes, 1 << 20)):
            n_bytes += len(part)
        self.bodies.append(n_bytes)
        match self.moods.pop(0):
            case "hang up":
                self.connection.close()
                self.close_connection = True
            case "busy":
                self._answer(
                    503, b'{"type":"/problems/overloaded","detail":"busy"}', retry_after="0"
                )
            case "gateway":
                self._answer(502, b"<html>bad gateway</html>")
            case "cut short":
                self._answer(200, b'{"model":', announced=1000)
                self.close_connection = True
            case "elsewhere":
                self._answer(308, b"", location="https://sounds.example/v1")
            case "not gzip":
                self._answer(200, b"plain", content_encoding="gzip")
            case "portal":
                self._answer(200, b"<html>please sign in</html>")
            case "other":
                self._answer(200, b'{"status": "fine"}')
            case "answer":
                content = b'{"model":"m","space_id":"s","data":[{"duration_s":1,"embedding":[1]}]}'
                self._answer(200, content)

    do_GET = do_DELETE = do_POST

    def _answer(
        self, status: int, content: bytes, announced: int | None = None, **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(announced or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...
