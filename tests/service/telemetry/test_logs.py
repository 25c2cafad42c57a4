"""What stands in the log, and where it goes."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

import viola
from service.telemetry.logs import configure, to_stderr
from tests.service.conftest import write_model

LEVELS = (None, "service", "httpx")  # of the loggers that `configure` sets; None: the root


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """No log is set up yet; those of the other tests stay as they are."""
    root, before = logging.getLogger(), [logging.getLogger(name).level for name in LEVELS]
    handlers, config = root.handlers[:], structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**config)
    root.handlers[:] = handlers
    for name, level in zip(LEVELS, before, strict=True):
        logging.getLogger(name).setLevel(level)


def test_details_are_told_of_the_service_alone_and_no_addresses_that_it_calls(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("debug")
    logging.getLogger("a.library").debug("< authorization: Bearer KEY")
    logging.getLogger("a.library").info("started")
    logging.getLogger("httpx").info("POST https://a.example/KEY")
    logging.getLogger("httpcore.http11").debug("webhook-signature KEY")
    logging.getLogger("service.jobs").debug("a detail")
    told = capsys.readouterr().err
    assert "a detail" in told
    assert "started" in told
    assert "KEY" not in told


def test_nothing_less_severe_than_is_asked_for_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning")
    for name in ("service.jobs", "a.library"):
        logging.getLogger(name).info("too little")
        logging.getLogger(name).warning("enough")
    told = capsys.readouterr().err
    assert (told.count("too little"), told.count("enough")) == (0, 2)


def test_what_a_command_logs_is_no_part_of_its_output(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.onnx", "tiny")
    (tmp_path / "viola.sqlite").write_bytes(b"no database" * 1000)
    command = ["search", "a.wav", "--data", str(tmp_path), "--model", str(model)]
    ended = CliRunner().invoke(viola.build(), command)
    assert ended.exit_code == 2
    assert "the database of the collections fails" in ended.stderr
    assert ended.stdout == ""


def test_a_command_leaves_the_logs_of_a_service_in_its_process_as_they_are() -> None:
    configure("info")
    to_stderr()
    assert isinstance(structlog.get_config()["logger_factory"], structlog.stdlib.LoggerFactory)
