import os
import signal
from collections.abc import Iterator

import pytest

from training import signals
from training.signals import stop_on_signal

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def as_in_a_shell() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt and SIGHUP is not ignored, whatever started the tests."""
    before = {number: signal.getsignal(number) for number in ALL}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ALL)
def test_a_signal_that_comes_twice_at_once_is_one(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert not stop.is_set()
        for _ in range(2):
            signal.raise_signal(number)
        assert stop.is_set()
    assert signal.getsignal(number) == before


def test_a_later_signal_acts_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "AT_ONCE_S", -1.0)
    with stop_on_signal() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_run_under_nohup_goes_on() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_on_signal() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.is_set()


def test_what_is_printed_once_the_terminal_is_gone_is_no_error() -> None:
    terminal, end = os.openpty()
    stdout = os.dup(1)
    try:
        os.dup2(end, 1)
        os.close(terminal)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(1, b"lost")
        with stop_on_signal() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.is_set()
        assert os.write(1, b"nowhere") == 7
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(end)
