import io

import pytest
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from models import progress
from models.progress import TITLE, Bar, tracked


def log() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def said(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_log_gets_a_line_of_the_texts_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    console = log()
    hours = TextColumn("{task.fields[hours]:.1f} h")
    with Bar(TITLE, BarColumn(), MofNCompleteColumn(), hours, console=console) as bar:
        task = bar.add_task("preparing", total=40, hours=0.0)
        for n in range(40):
            now[0] += 1
            bar.update(task, advance=1, hours=n / 10)
    assert said(console) == [
        "preparing  10/40  0.9 h",
        "preparing  20/40  1.9 h",
        "preparing  30/40  2.9 h",
        "preparing  40/40  3.9 h",
    ]


def test_short_work_and_silent_work_leave_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    console = log()
    assert list(tracked(iter("abc"), "reading", console, 3)) == ["a", "b", "c"]
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    with Bar(TITLE, console=console, silent=True) as bar:
        bar.advance(bar.add_task("checking", total=2))
    assert said(console) == []


def test_items_are_followed_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    console = log()
    for _ in tracked(range(3), "log-mels", console):
        pass
    told = [line.split("  ")[:2] for line in said(console)]
    assert told == [["log-mels", f"{n}/3"] for n in (1, 2, 3)]


def test_a_terminal_has_a_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Bar(TITLE, BarColumn(), MofNCompleteColumn(), console=console) as bar:
        bar.advance(bar.add_task("checking", total=2), 2)
    assert any("checking" in line and "━" in line and "2/2" in line for line in said(console))
