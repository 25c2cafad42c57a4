"""Two gloo processes on one CPU compute what one process computes with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.ports import free_port
from tests.training.methods import EVERY
from tests.training.methods import settings as options_of
from tests.training.stores import write_noise
from training.data.corpus import Corpus
from training.distributed import World, sync_batch_norm
from training.loop import train
from training.recipe import Recipe, load
from training.record import read_metrics
from training.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")

ROOT = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")
SETTINGS = [
    "encoder.embed_dim=16",
    "encoder.n_channels=8",
    "objective.hidden_dim=16",
    "augment.mixup_bank=12",
    "run.steps=4",
    "run.log_every=1",
    "run.precision=float32",
    "run.sync_batch_norm=true",
]
LAUNCH = """
import sys
from models.nn import encoder
encoder.DROPOUT = 0.0  # each process drops for itself: equality needs none
from viola import main
main()
"""
ONE_AFTER_THE_OTHER = """
import os, runpy
os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
for name, port in PROGRAMS:
    os.environ["MASTER_PORT"] = str(port)  # where they meet for this one
    os.chdir(name)
    runpy.run_path("program.py", run_name="__main__")
    os.chdir("..")
"""
METHOD_NAMES = ["tribyol A", "tribyol B", "stiefel", "neumann", "direct_pred", "ccsl", "cssl"]
METHOD_NAMES += ["vicreg", "barlow twins", "byol, multi-crop"]
METHODS = """
import json
from pathlib import Path
from models.nn import encoder
from tests.training.test_distributed import recorded
from training.distributed import joined
encoder.DROPOUT = 0.0
with joined("cpu") as (world, device):
    found = {name: recorded(name, Path("STORE"), world) for name in NAMES}
    if world.is_main:
        Path("found.json").write_text(json.dumps(found))
"""
BFLOAT16 = """
import json, os
from pathlib import Path
from models.nn import encoder
from tests.training.test_distributed import SETTINGS
from training import checkpoint
from training.data.corpus import Corpus
from training.data.log_mels import compute
from training.distributed import joined
from training.recipe import load
from training.run import Run
import torch
encoder.DROPOUT = 0.0
with joined("cpu") as (world, device):
    recipe = load("tiny", [*SETTINGS, "run.precision=bfloat16", "data.log_mels=true"])
    asked = []
    def follow(clips, title):
        asked.append(title)
        return clips
    run = Run(recipe, Corpus(Path("STORE")), torch.device("cpu"), world, follow)
    run.start()
    found = [run.values(run.train_step()[0])["loss"] for _ in range(4)]
    read = []
    def make():
        read.append(world.rank)
        return run.checkpoint()
    told = world.from_main(make)
    same = all(torch.equal(a, run.objective.state_dict()[n]) for n, a in told.objective.items()
               if "running" not in n)
    try:
        world.from_main(lambda: checkpoint.load(Path("gone.pt")))
        error = ""
    except checkpoint.CheckpointError as raised:
        error = str(raised)
    answer = [world.rank, found, asked, read, same, error]
    Path(f"answer-{world.rank}.json").write_text(json.dumps(answer))
"""
OTHER_STORES = """
from pathlib import Path
from tests.training.test_distributed import SETTINGS
from training.data.corpus import Corpus
from training.distributed import joined
from training.recipe import load
from training.run import Run, TrainingError
import torch
with joined("cpu") as (world, device):
    try:
        Run(load("tiny", SETTINGS), Corpus(Path(STORES[world.rank])), torch.device("cpu"), world)
    except TrainingError as error:
        Path(f"refused-{world.rank}").write_text(str(error))
"""
LAYERS = """
import torch, torch.distributed as dist
from torch import nn
from training.distributed import World, sync_batch_norm
dist.init_process_group("gloo")
world = World(dist.get_rank(), dist.get_world_size())
torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(48))
sync_batch_norm(network, torch.device("cpu"))
x = torch.randn(8, 1, 6, 6)[world.rows(8)].requires_grad_()
weights = torch.randn(8, 48)[world.rows(8)]
(network(x) * weights).sum().backward()
state = {k: v for k, v in network.state_dict().items()}
gathered = world.gather(x.detach())
torch.save((x.grad, network[0].weight.grad, state, gathered), f"out-{world.rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


def launch(program: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / "program.py"
    script.write_text(program)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", "0", "--standalone", str(script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=240
    )


@pytest.fixture(scope="module")
def together(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one for each program, where two processes have run them one after the other.

    It is the launch that takes the time.
    """
    folder = tmp_path_factory.mktemp("together")
    others = [str(write_noise(folder / str(n), n)) for n in (4, 3)]
    programs = {
        "methods": METHODS.replace("NAMES", repr(METHOD_NAMES)).replace("STORE", str(store)),
        "bfloat16": BFLOAT16.replace("STORE", str(write_noise(folder / "10"))),
        "other-stores": OTHER_STORES.replace("STORES", repr(others)),
        "layers": LAYERS,
    }
    ports = [(name, free_port()) for name in programs]
    for name, program in programs.items():
        (folder / name).mkdir()
        (folder / name / "program.py").write_text(program)
    done = launch(ONE_AFTER_THE_OTHER.replace("PROGRAMS", repr(ports)), [], folder)
    assert done.returncode == 0, done.stderr
    return folder


def values(folder: Path, name: str) -> list[float]:
    return [line[name] for line in read_metrics(folder) if name in line]


def losses(folder: Path) -> list[float]:
    return values(folder, "loss")


def without_dropout(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr("models.nn.encoder.DROPOUT", 0.0)
    return recipe


def test_two_processes_train_as_one_and_one_goes_on_where_they_stopped(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    recipe = without_dropout(load("tiny", SETTINGS), monkeypatch)
    assert train(recipe, Corpus(store), one, CPU, console=quiet)
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    arguments = ["train", "tiny", "--store", str(store), "--out", str(two), *settings]
    done = launch(LAUNCH, [*arguments, "--device", "cpu"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "in 2 processes" in done.stderr
    assert done.stderr.count("done:") == 1  # one of them speaks
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert len(losses(two)) == 4

    longer = without_dropout(load("tiny", [*SETTINGS, "run.steps=6"]), monkeypatch)
    for folder in (one, two):
        assert train(longer, Corpus(store), folder, CPU, resume=True, console=quiet)
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)
    assert json.loads((two / "state.json").read_text())["step"] == 6


def recorded(name: str, store: Path, world: World) -> list[dict[str, float]]:
    """Loss and logs of each step of a method's run."""
    run = Run(load("tiny", [*SETTINGS, *options_of(EVERY[name])]), Corpus(store), CPU, world)
    run.start()
    return [run.values(run.train_step()[0]) for _ in range(run.total_steps)]


def test_every_method_trains_in_two_processes_as_in_one(
    store: Path, together: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Covariances and pairs are those of all rows."""
    monkeypatch.setattr("models.nn.encoder.DROPOUT", 0.0)
    in_two = json.loads((together / "methods" / "found.json").read_text())
    assert list(in_two) == METHOD_NAMES
    for name, found in in_two.items():
        steps = enumerate(zip(found, recorded(name, store, World()), strict=True), start=1)
        for step, (two, one) in steps:  # rounding grows from step to step
            assert two == pytest.approx(one, rel=step * 1e-3), name


def test_two_processes_in_bfloat16_equal_one_and_the_first_one_alone_reads_and_computes(
    together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch norm over both; log-mels once; a checkpoint or an error is sent to all."""
    store, folder = write_noise(tmp_path), together / "bfloat16"
    first, second = (json.loads((folder / f"answer-{n}.json").read_text()) for n in (0, 1))
    monkeypatch.setattr("models.nn.encoder.DROPOUT", 0.0)
    recipe = load("tiny", [*SETTINGS, "run.precision=bfloat16", "data.log_mels=true"])
    run = Run(recipe, Corpus(store), CPU)
    run.start()
    one = [run.values(run.train_step()[0])["loss"] for _ in range(4)]
    assert first[1] == second[1] == pytest.approx(one, rel=2**-7)  # what bfloat16 resolves
    assert [first[2], second[2]] == [["log-mels of the store"], []]
    assert [first[3], second[3]] == [[0], []]
    assert (first[4], second[4]) == (True, True)
    assert first[5] == second[5] == "no checkpoint at gone.pt"


def test_processes_of_different_stores_are_refused_and_none_of_them_waits(together: Path) -> None:
    """Uneven stores, such as a copy that has not come to its end, would be trained on silently."""
    folder = together / "other-stores"
    first, second = ((folder / f"refused-{n}").read_text() for n in (0, 1))
    assert "the store of another process is not that of the first process, 4 clips" in first
    assert f"{together / '3' / 'store'}: that of process 1, 3 clips" in second


def test_rows_that_no_process_would_have_are_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 7 is no multiple of 2 processes"):
        World(0, 2).rows(7)


def test_synchronised_batch_norm_equals_one_batch_norm_over_all_rows(together: Path) -> None:
    parts = [torch.load(together / "layers" / f"out-{rank}.pt") for rank in range(2)]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(48))
    x = torch.randn(8, 1, 6, 6, requires_grad=True)
    (network(x) * torch.randn(8, 48)).sum().backward()
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), x.grad, atol=1e-4, rtol=1e-4)
    summed = parts[0][1] + parts[1][1]
    torch.testing.assert_close(summed, network[0].weight.grad, atol=1e-4, rtol=1e-4)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(parts[0][2][name], value)
    assert torch.equal(parts[0][3], x.detach())


def test_a_process_alone_says_nothing_to_anyone() -> None:
    x = torch.randn(3, 2)
    world = World()
    assert world.gather(x) is x
    assert world.mean(x) is x
    assert world.any(True, CPU)
    assert not world.any(False, CPU)
    assert world.rows(6) == slice(0, 6)


@pytest.mark.parametrize(("processes", "batch"), [(3, 9), (5, 10), (6, 12), (7, 14)])
def test_a_batch_is_made_up_to_a_multiple_of_the_processes(processes: int, batch: int) -> None:
    recipe = load("tiny", SETTINGS).for_processes(processes)
    assert recipe.run.batch_size == batch
    assert World(1, processes).rows(batch) == slice(batch // processes, 2 * batch // processes)
    assert recipe.for_processes(processes) == recipe  # as a resumed run has it


def test_a_batch_may_be_so_many_segments_a_process() -> None:
    settings = ["run.batch_per_gpu=16", "run.base_batch_size=16", "optimizer.lr=0.1"]
    recipe = load("tiny", [*settings, "run.accumulate=4"]).for_processes(3)
    assert recipe.run.batch_size == 48
    assert recipe.scaled().optimizer.lr == pytest.approx(0.1 * 3**0.5)


def test_layers_that_are_synchronised_keep_their_weights_and_their_names() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).requires_grad_(False)
    nn.init.normal_(network[1].weight)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    sync_batch_norm(network, CPU)
    assert type(network[1]) is not nn.BatchNorm1d
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad for p in network.parameters())
