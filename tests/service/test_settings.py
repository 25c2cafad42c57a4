import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from service.settings import Settings, SettingsError, load_settings
from tests.pages import check_table


def test_a_setting_is_read_from_the_environment_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIOLA_MAX_FILES", "3")
    monkeypatch.setenv("VIOLA_MODELS", "/models/one.onnx")
    settings = load_settings()
    assert (settings.max_files, settings.models) == (3, Path("/models/one.onnx"))


def test_an_option_wins_over_the_environment_unless_it_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIOLA_PORT", "9000")
    monkeypatch.setenv("VIOLA_HOST", "0.0.0.0")
    settings = load_settings(port=9001, host=None)
    assert (settings.port, settings.host) == (9001, "0.0.0.0")


def test_a_variable_that_is_like_none_gets_no_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIOLA_FOO", "1")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert "mean" not in str(refused.value)
    assert "VIOLA_FOO is not a setting; known are, behind VIOLA_: MODELS," in str(refused.value)


def test_a_misspelt_variable_is_refused_with_the_likely_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIOLA_MAX_BODY_BYTE", "1000")
    with pytest.raises(SettingsError, match="did you mean VIOLA_MAX_BODY_BYTES"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("VIOLA_PORT", "http"), ("VIOLA_MAX_FILES", "0"), ("VIOLA_LOG_LEVEL", "loud")],
)
def test_a_value_that_cannot_be_used_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}='{value}' is not accepted"):
        load_settings()


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize(
    "name", ["HOST", "DATA", "MODELS", "MODELS_CACHE", "DEFAULT_HEAD", "DATABASE_URL", "PORT"]
)
def test_an_empty_variable_is_neither_this_folder_nor_every_address(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"VIOLA_{name}", value)
    with pytest.raises(SettingsError, match=f"VIOLA_{name}=.* is not accepted: it is empty; unset"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("DECODE_CPU_S", "inf", "not finite"),
        ("MIN_BODY_BYTES_PER_S", "inf", "not finite"),
        ("DECODE_WALL_S", "1e7", "at most 1000000$"),
        ("UPLOAD_KEPT_HOURS", "1e9", "at most 876000$"),
        ("MAX_KEPT_DAYS", "1e9", "at most 36500$"),
        ("DECODE_MEMORY_BYTES", "9" * 20, "at most 1000000000000000$"),
        ("MAX_JOBS", "9" * 20, "at most 1000000000000000$"),
        ("MAX_STREAMS", "100000", "less than or equal to 1024"),
        ("THREADS", "100000", "less than or equal to 1024"),
        ("DECODE_WORKERS", "100000", "less than or equal to 1024"),
    ],
)
def test_a_number_of_which_every_request_would_fail_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(f"VIOLA_{name}", value)
    with pytest.raises(SettingsError, match=f"VIOLA_{name}='{value}' is not accepted: .*{reason}"):
        load_settings()


def test_what_kubernetes_adds_for_a_service_called_viola_is_not_mistaken_for_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIOLA_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("VIOLA_PORT_8000_TCP", "tcp://10.0.0.1:8000")
    assert load_settings().port == 8000
    monkeypatch.setenv("VIOLA_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(SettingsError, match="enableServiceLinks"):
        load_settings()


@pytest.mark.parametrize(
    "value", ["https://a.example/", "a.example", "https://A.example", "https://*.example", "null"]
)
def test_what_no_browser_calls_an_origin_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("VIOLA_CORS_ORIGINS", f"https://b.example {value}")
    with pytest.raises(SettingsError, match="is no origin"):
        load_settings()


def test_origins_are_those_of_pages_and_of_applications(monkeypatch: pytest.MonkeyPatch) -> None:
    origins = ("*", "http://localhost:3000", "https://a.example", "capacitor://localhost")
    monkeypatch.setenv("VIOLA_CORS_ORIGINS", ",".join(origins))
    assert load_settings().cors_origins == origins


def test_an_unknown_setting_is_an_error_in_code_too() -> None:
    with pytest.raises(ValueError, match="max_file"):
        Settings(max_file=1)


PAGE = Path(__file__).parent.parent.parent / "docs" / "deploy.md"
TABLE = re.compile(r"(?<=\| `VIOLA_` \| default \| \|\n\|---\|---\|---\|\n)(?:\|.*\n)+")


def row(name: str, field: FieldInfo) -> str:
    """A setting as the page has it."""
    default, text = field.default, ""
    if isinstance(default, Path):
        text = "the models that ship"
    elif isinstance(default, bool):
        text = "on" if default else "off"
    elif isinstance(default, int) and default >= 2**20:
        text = f"{default // 2**20} MiB"
    elif default not in (None, ()):
        text = f"{default:g}" if isinstance(default, float) else str(default)
    return f"| `{name.upper()}` | {text} | {field.description} |\n"


def test_the_documentation_lists_every_setting_with_its_default() -> None:
    """After a change that is meant run `UPDATE_DOCS=1 pytest tests/service/test_settings.py`."""
    table = "".join(row(name, field) for name, field in Settings.model_fields.items())
    check_table(PAGE, TABLE, table)


@pytest.mark.parametrize(
    ("asked", "workers_and_threads"),
    [
        ({}, (4, 1)),
        ({"threads": 2}, (2, 2)),
        ({"inferences": 1}, (1, 4)),
        ({"inferences": 3, "threads": 2}, (3, 2)),
        ({"threads": 16}, (1, 16)),
    ],
)
def test_inferences_and_their_threads_share_the_machine(
    asked: dict[str, int], workers_and_threads: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.settings.available_cpus", lambda: 4)
    assert Settings(**asked).workers_and_threads == workers_and_threads  # type: ignore[arg-type]


def test_a_large_machine_gives_each_inference_several_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.settings.available_cpus", lambda: 64)
    assert Settings().workers_and_threads == (8, 8)
