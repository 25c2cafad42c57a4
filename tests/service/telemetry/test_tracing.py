"""Spans for an OpenTelemetry collector, here one of our own that keeps what it gets."""

import importlib.util
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from service.settings import Settings, SettingsError
from service.telemetry import tracing
from tests.service.conftest import Serve, encoded, tone

URL = "/v1/audio/embeddings"


class Collector(BaseHTTPRequestHandler):
    """Takes every request, and decodes it as spans."""

    spans: list[Any]

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            import gzip

            body = gzip.decompress(body)
        sent = ExportTraceServiceRequest.FromString(body)
        for resource in sent.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[HTTPServer]:
    pytest.importorskip("opentelemetry.sdk")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    Collector.spans = []
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_request_is_a_span_with_its_stages_below_it(serve: Serve, collector: HTTPServer) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with serve(otel_endpoint=f"http://127.0.0.1:{collector.server_port}") as client:
        file = {"file": ("secret.wav", encoded(tone()))}
        answer = client.post(URL, files=file, headers={"traceparent": parent})
        assert answer.status_code == 200
    spans = {span.name: span for span in Collector.spans}
    request = spans.pop(f"POST {URL}")
    assert request.trace_id.hex() == parent.split("-")[1]
    assert request.parent_span_id.hex() == parent.split("-")[2]
    assert {"receive", "decode", "infer", "render"} <= set(spans)
    assert {span.parent_span_id for span in spans.values()} == {request.span_id}
    assert "secret" not in str(Collector.spans)


def test_what_is_refused_is_in_its_span_by_status_alone(
    serve: Serve, collector: HTTPServer
) -> None:
    with serve(otel_endpoint=f"http://127.0.0.1:{collector.server_port}") as client:
        client.post(URL, content=b"secret")
    assert not any(span.events for span in Collector.spans)
    assert "secret" not in str(Collector.spans)


def test_nothing_is_recorded_unless_the_setting_is_there(
    client: httpx.Client, collector: HTTPServer, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    with serve() as other:
        assert other.post(URL, content=encoded(tone())).status_code == 200
    assert Collector.spans == []


def test_a_collector_that_is_gone_costs_no_request(serve: Serve, collector: HTTPServer) -> None:
    with serve(otel_endpoint="http://127.0.0.1:9") as client:
        assert client.post(URL, content=encoded(tone())).status_code == 200


def test_without_the_extra_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="otel"):
        tracing.provider(Settings(otel_endpoint="http://collector:4318"))
    assert importlib.util.find_spec("opentelemetry.trace") is not None
