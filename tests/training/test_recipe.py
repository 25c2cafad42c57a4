import json
import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from tests.pages import check_table
from training import recipe
from training.recipe import RecipeError
from training.section import settings_of


@pytest.mark.parametrize("name", recipe.named_recipes())
def test_every_named_recipe_is_valid_and_carries_its_name(name: str) -> None:
    assert recipe.load(name).name == name


def test_the_v1_recipe_has_the_papers_values() -> None:
    v1 = recipe.load("byol-a-v1")
    assert (v1.encoder.name, v1.encoder.embed_dim) == ("AudioNTT2020", 2048)
    assert (v1.augment.mixup_alpha, v1.augment.mixup_bank, v1.augment.fader_gain) == (0.4, 2048, 0)
    assert (v1.augment.crop_scale, v1.augment.canvas_time) == ((0.6, 1.5), 1.5)
    assert (v1.optimizer.lr, v1.objective.ema_decay) == (3e-4, 0.99)
    assert (v1.run.batch_size, v1.run.epochs, v1.run.seed) == (256, 100, 42)
    assert (v1.data.pad, v1.data.segment_samples, v1.data.segment_frames) == ("both", 15_200, 96)


def test_the_v2_recipe_has_the_papers_values() -> None:
    v2 = recipe.load("byol-a-v2")
    assert (v2.encoder.name, v2.encoder.embed_dim) == ("AudioNTT2022", 3072)
    assert (v2.augment.mixup_alpha, v2.augment.fader_gain) == (0.2, 1.0)
    assert (v2.optimizer.lr, v2.data.pad) == (1e-4, "end")
    assert (v2.objective.hidden_dim, v2.objective.projection_dim) == (4096, 256)


def test_settings_lie_over_the_file() -> None:
    changed = recipe.load(
        "tiny", ["run.steps=3", "encoder.name=AudioNTT2022", "encoder.embed_dim=1100"]
    )
    assert (changed.run.steps, changed.encoder.name, changed.encoder.embed_dim) == (
        3,
        "AudioNTT2022",
        1100,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["run.stepz=3"], "run.stepz"),
        (["run.batch_size=0"], "run.batch_size"),
        (["encoder.name=AudioNTT2022", "encoder.embed_dim=512"], "above 1024"),
        (["augment.crop_scale=[1.5, 0.6]"], "crop_scale is 1.5, 0.6"),
        (["augment.crop_scale_frequency=[0, 1]"], "crop_scale_frequency is 0, 1"),
        (["run.epochs=inf"], "run.epochs: is inf; input should be a finite number"),
        (["run.epochs=1e308"], r"run.epochs: is 1e\+308; .* less than or equal to 1000000000"),
        (["run.steps=0"], "run.steps: is 0; input should be greater than 0"),
        (["run=3"], "run: is 3; expected a section"),
        (["run.steps"], "expected section.key=value"),
        (["run.seed=9223372036854775808"], "run.seed"),
        (["name.x=1"], "name is a value"),
        (["encoder.norm=instance"], "encoder.norm"),
        (["encoder.norm=group", "encoder.n_channels=6"], "n_channels is 6; group norm needs"),
        (["objective.norm=group", "objective.hidden_dim=100"], "needs a multiple of 16"),
        (["augment.noise_ratio=2"], "augment.noise_ratio"),
        (["run.steps=true"], "run: steps is True; expected no true or false"),
        (["data.weights={a=false}"], "data: weights is .*; expected no true"),
        (["run.steps=1000000000000000000000"], "run.steps: is 1000000000000000000000; "),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.load("tiny", settings)


def test_the_recipes_of_the_hardware_are_v2_on_a_gpu_and_the_light_encoder_on_a_cpu() -> None:
    gpu = recipe.load(recipe.for_device("cuda"))
    assert (gpu.encoder.name, gpu.encoder.embed_dim) == ("AudioNTT2022", 3072)
    for n, rate in ((1, 2), (3, 6), (8, 16)):  # times the 256 of the paper
        several = gpu.for_processes(n)
        assert several.run.batch_size == 512 * n
        assert several.run.n_steps(1) == round(20_000_000 / (512 * n))
        assert several.scaled().optimizer.lr == pytest.approx(1e-4 * rate**0.5)
        assert several.scaled().objective.ema_decay == pytest.approx(0.99**rate)
    run = gpu.run
    assert None not in (run.log_every_s, run.checkpoint_every_s, run.views_every_s)
    cpu = recipe.load(recipe.for_device("cpu"))
    assert (cpu.encoder.name, cpu.encoder.embed_dim) == ("StridedConv", 512)
    assert recipe.load("light") == cpu  # its name from before


def test_a_length_is_given_in_one_way() -> None:
    assert recipe.load("tiny", ["run.steps=9"]).run.n_steps(1) == 9
    with pytest.raises(RecipeError, match="run: steps and segments are both given"):
        recipe.load("tiny", ["run.segments=80"])


def test_an_unknown_recipe_lists_those_that_ship() -> None:
    with pytest.raises(RecipeError, match="byol-a-v1, byol-a-v2"):
        recipe.load("byol-a-v9")


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "marked.toml"
    path.write_text("[run]\nsteps = 3\n", encoding="utf-8-sig")
    assert recipe.load(str(path)).run.steps == 3


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = ")
    with pytest.raises(RecipeError, match="is not TOML"):
        recipe.load(str(path))
    path = tmp_path / "recipe.json"
    path.write_text("[1, 2]")
    with pytest.raises(RecipeError, match="holds a list; expected sections"):
        recipe.load(str(path))


def test_epochs_count_segments_as_clips() -> None:
    assert recipe.load("byol-a-v2").run.n_steps(2560) == 1000
    assert recipe.load("byol-a-v2", ["run.steps=7"]).run.n_steps(2560) == 7


def test_rates_follow_the_batch_size() -> None:
    settings = ["optimizer.lr=0.1", "objective.ema_decay=0.9", "run.base_batch_size=64"]
    for name, lr in (("adam", 0.2), ("lars", 0.4)):
        given = recipe.load("tiny", [*settings, "run.batch_size=256", f"optimizer.name={name}"])
        scaled = given.scaled()
        assert scaled.optimizer.lr == pytest.approx(lr)
        assert scaled.objective.ema_decay == pytest.approx(0.9**4)
        assert scaled.scaled() == scaled
        assert given.optimizer.lr == 0.1
    assert recipe.load("tiny").scaled() == recipe.load("tiny")


def test_the_light_encoder_has_channels_and_a_hidden_layer_of_its_own() -> None:
    settings = ["encoder.n_channels=8", "encoder.embed_dim=24", "encoder.hidden_dim=40"]
    encoder = recipe.load("light", settings).encoder.build()
    assert encoder.fc[0].weight.shape == (40, 8 * 4 * 8)
    assert encoder.fc[3].weight.shape == (24, 40)
    wide = recipe.load("byol-a-v2", ["encoder.hidden_dim=48"]).encoder.build()
    assert wide.fc[0].weight.shape == (48, 1024)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("run.step=5", "run.step: there is no such setting; did you mean run.steps?"),
        ("objective.projecton_dim=5", "did you mean objective.projection_dim?"),
        ("run.zebra=1", "run.zebra: there is no such setting$"),
    ],
)
def test_a_slip_of_a_setting_is_told_what_was_meant(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("?", r"\?")):
        recipe.load("tiny", [setting])


def test_a_slip_of_a_recipes_name_is_told_what_was_meant() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'defualt'; did you mean default\?"):
        recipe.load("defualt")


PAGE = Path(__file__).parent.parent.parent / "docs" / "recipe.md"
TABLE = re.compile(r"(?<=\| setting \| default \| \|\n\|---\|---\|---\|\n)(?:\|.*\n)+")


def row(name: str, field: FieldInfo) -> str:
    """A setting as the page has it."""
    default = "required" if field.is_required() else json.dumps(field.default)
    about = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{name}` | {default} | {about} |\n"


def test_the_documentation_lists_every_setting_of_a_recipe() -> None:
    """After a change that is meant run `UPDATE_DOCS=1 pytest tests/training/test_recipe.py`."""
    table = "".join(row(name, field) for name, field in settings_of(recipe.Recipe).items())
    check_table(PAGE, TABLE, table)
