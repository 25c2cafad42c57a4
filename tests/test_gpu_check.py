"""The GPU suite rehearsed on a CPU: every stage, its rows, what comes back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu_check.py"


def rehearse(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--rehearse", "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=out.parent)


@pytest.mark.slow
def test_the_whole_suite_can_be_rehearsed_on_a_cpu(tmp_path: Path) -> None:
    done = rehearse(tmp_path / "out", "--minutes", "60")  # limits alone
    table = (tmp_path / "out" / "table.md").read_text()
    assert done.returncode == 0, table
    assert table in done.stdout
    for expected in (
        "| environment | packages | all | yes |",
        "| suite | gpu tests |",
        "| throughput | v1, eager |",
        "| throughput | light, eager |",
        "| throughput | times the authors' flow |",
        "| losses | losses, bfloat16 beside eager float32 |",
        "| provider | CUDA provider |",
        "| training | viola train | stopped with 0 | yes |",
        "| training | brought back | encoder.safetensors",
    ):
        assert expected in table
    assert "NO" not in table
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["encoder"] == "AudioNTT2022"
    size = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert size < 64 << 20


@pytest.mark.slow
def test_a_stage_that_fails_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    store = tmp_path / "no-store"
    done = rehearse(tmp_path / "out", "--store", str(store), "--only", "losses", "provider")
    assert done.returncode == 1
    assert "| losses | the stage | failed: " in done.stdout
    assert "| provider | CUDA provider | skipped" in done.stdout
