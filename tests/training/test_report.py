import json
import re
from pathlib import Path

import numpy as np

from models import page
from training import report
from training.recipe import load
from training.record import Record


def folder_of_a_run(folder: Path) -> Path:
    recipe = load("tiny", ["name=<b>mine</b>"])
    contents = {
        "recipe": recipe.model_dump(mode="json"),
        "data": {"clips": 7, "hours": 1.5, "sources": {"rain": 0.5, "piano": 1.0}},
        "environment": {"gpus": [], "host": "box", "commit": "abc"},
        "state": {"state": "failed", "step": 3, "total_steps": 9, "message": "no disk <left>"},
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    with Record(folder, 0) as record:
        for step in (1, 2, 3):
            values = {"loss": 4.0 / step, "lr": 1e-3, "seconds": 1800.0 * step}
            record.scalars(step, {**values, "probe/esc10": 0.1 * step})
        record.alarm(3, "all inputs get the same vector")
        record.views(3, {"log-mel": np.zeros((2, 64, 20), np.float32)})
    return folder


def test_a_report_tells_state_data_alarms_and_scores(tmp_path: Path) -> None:
    path = report.write(folder_of_a_run(tmp_path))
    text = path.read_text()
    for expected in (
        "failed: no disk &lt;left&gt;",
        "3 of 9",
        "7 clips, 1.50 h",
        "time spent training</th><td>1 h 30 min",
        "30.0 %, best 30.0 % at step 3",
        "Step 3: all inputs get the same vector.",
        "&lt;b&gt;mine&lt;/b&gt;",
        "box, GPUs: none",
    ):
        assert expected in text
    assert text.index(">piano<") < text.index(">rain<")  # most hours first
    assert text.count("<img") == 3 + 1  # loss, rate and probe; the views


def test_a_report_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    text = report.write(folder_of_a_run(tmp_path)).read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_a_run_that_was_killed_at_once_has_a_report_too(tmp_path: Path) -> None:
    text = report.write(tmp_path).read_text()
    assert "running" in text
    assert "<img" not in text


def test_a_page_escapes_what_it_is_given() -> None:
    parts = [page.facts({"<a>": "<b>"}), page.code("<c>"), page.paragraph("<d>", '"x')]
    text = page.page("<e>", parts)
    assert not re.search("<[a-e]>", text)
