"""The dashboard and the alerts ask for metrics, labels and values that exist."""

import json
import re
from pathlib import Path

import httpx
import pytest

FOLDER = Path(__file__).parents[3] / "monitoring"
METRIC = re.compile(r"\b(?:viola|process)_[a-z_]+\b")
SELECTOR = re.compile(r"\b((?:viola|process)_[a-z_]+)\{([^}]*)\}")
FROM_PROMETHEUS = {"instance", "job"}


def expressions(name: str) -> list[str]:
    """The queries in a file."""
    text = (FOLDER / name).read_text()
    if name.endswith(".json"):
        panels = json.loads(text)["panels"]
        return [target["expr"] for panel in panels for target in panel["targets"]]
    return re.findall(r"^\s*expr: (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["dashboard.json", "alerts.yaml"])
def test_every_metric_that_is_asked_for_is_on_the_page(client: httpx.Client, name: str) -> None:
    client.get("/livez")
    page = client.get("/metrics").text
    exist = set(re.findall(r"^([a-z_]+)[ {]", page, re.MULTILINE))
    exist |= set(re.findall(r"^# TYPE (\w+) gauge", page, re.MULTILINE))
    asked = [metric for expression in expressions(name) for metric in METRIC.findall(expression)]
    assert len(asked) >= 9
    assert set(asked) <= exist


@pytest.mark.parametrize("name", ["dashboard.json", "alerts.yaml"])
def test_every_label_value_that_is_asked_for_is_on_the_page(
    client: httpx.Client, name: str
) -> None:
    page = client.get("/metrics").text
    for expression in expressions(name):
        for metric, selectors in SELECTOR.findall(expression):
            for label, value in re.findall(r'(\w+)="([^"]*)"', selectors):
                if label not in FROM_PROMETHEUS:
                    assert re.search(rf'^{metric}\{{[^}}]*{label}="{re.escape(value)}"', page, re.M)


def test_panels_do_not_overlap_and_each_has_a_title() -> None:
    taken = set()
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert panel["title"]
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
