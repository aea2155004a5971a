"""The book's recipes: each can be read and kept, and says what the paper and the chapters say."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from dsna_lib import checkpoints
from dsna_lib.config import recipe as recipes
from dsna_lib.config.annotation import PRESETS, AnnotationConfig, CRFParams, preset
from dsna_lib.config.attention import HeadConfig, ModelConfig
from dsna_lib.config.drawn import DrawnConfig
from dsna_lib.config.recipe import DataConfig, MapConfig, NetworkConfig, Recipe, load
from dsna_lib.config.segmentation import InferenceConfig, SegmentationConfig
from dsna_lib.config.training import SegmentationTraining, TrainingConfig
from dsna_lib.engine import fields as options
from dsna_lib.engine.devices import native_precision
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.files import plain, read_json, write_json
from dsna_lib.engine.recipes import RecipeError

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
FILES = sorted(FOLDER.glob("*.toml"))
AUTO = native_precision()
CONFIGS = (
    Recipe,
    DataConfig,
    ModelConfig,
    HeadConfig,
    TrainingConfig,
    SegmentationTraining,
    MapConfig,
    AnnotationConfig,
    NetworkConfig,
    SegmentationConfig,
    InferenceConfig,
    CRFParams,
    DrawnConfig,
)


def test_the_books_recipes():
    assert [path.stem for path in FILES] == [
        *("colab", "drawn", "paper", "photographs-cpu", "photographs-resnet50", "photographs-vgg16")
    ]


def resolved(said: Any) -> Any:
    """What a recipe file says, with the precision that it leaves to the machine."""
    if isinstance(said, dict):
        return {key: AUTO if value == "auto" else resolved(value) for key, value in said.items()}
    return said


def holds(made: Any, said: Any) -> bool:
    """Whether a read recipe, as plain values, holds all that its file says."""
    if isinstance(said, dict):
        return all(key in made and holds(made[key], value) for key, value in said.items())
    return made == said


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_is_read_and_kept_whole_in_provenance(path, tmp_path):
    made = load(path)
    assert made == load(path.stem) == load(str(path))
    kept = plain(asdict(made))
    assert holds(kept, resolved(tomllib.loads(path.read_text(encoding="utf-8"))))
    assert set(kept) == {field.name for field in fields(Recipe)}
    write_json(tmp_path / "result.json", kept)
    assert read_json(tmp_path / "result.json") == kept
    assert made.title
    assert bool(made.networks) == ("III" in made.tables)
    assert made.tables
    assert load(path, ["seeds=2"]) == replace(made, seeds=2)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_can_be_read_in_a_minute(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 85
    assert max(map(len, lines)) <= 120


def test_the_recipe_of_the_paper_has_the_papers_numbers():
    paper = load("paper")
    assert paper.data == DataConfig(source="voc", train="train_aug", val="val", test="test")
    assert paper.attention == ModelConfig(backbone="vgg16", head="decoupled", dropout=0.5, output_stride=16)
    assert paper.attention.train_last is None
    training = paper.training
    assert (training.epochs, training.drop_after, training.batch_size, training.crop) == (20, 10, 15, 224)
    # The paper's 0.01 and 0.1 are rates of steps without momentum.
    effective = [rate / (1 - training.momentum) for rate in (training.backbone_rate, training.head_rate)]
    assert effective == pytest.approx([0.01, 0.1])
    assert (training.momentum, training.weight_decay, training.loss_over_classes) == (0.9, 5e-4, "mean")
    assert training.rate_factor(99, 10) == 1
    assert training.rate_factor(100, 10) == 0.1
    assert paper.maps.size == 224
    assert paper.annotation == AnnotationConfig(0.2, 0.3, tau=0.7, crf="sec")
    assert preset(paper.annotation.crf) == CRFParams(3, 3, 80, 13, 10, iterations=10)
    assert paper.seeds >= 3
    assert paper.tables == ("I", "II", "single-stream", "III", "IV", "V", "VI")


def test_the_papers_segmentation_networks():
    paper = load("paper")
    assert list(paper.networks) == ["vgg16", "resnet101"]
    largefov = paper.network()
    assert largefov == paper.network("vgg16")
    assert largefov.rows == ()
    assert largefov.model == SegmentationConfig(backbone="vgg16", dilation=12, dropout=0.5, pretrained_head=True)
    training = SegmentationTraining(
        epochs=12, drop_after=8, batch_size=15, backbone_rate=0.001, head_rate=0.01, crop=321, precision="auto"
    )
    assert largefov.training == training
    assert (training.momentum, training.weight_decay, training.schedule, training.crops) == (
        0.9,
        5e-4,
        "step",
        "rescaled",
    )
    resnet = paper.network("resnet101")
    assert resnet.rows == ("DSNA, merged", "full supervision")
    assert resnet.model == SegmentationConfig(backbone="resnet101", dilation=12, dropout=0.5)
    assert resnet.training == replace(training, batch_size=16, backbone_rate=0.0016, head_rate=0.016)
    for network in paper.networks.values():
        assert network.model.train_last is None
        assert network.inference == InferenceConfig(scales=(0.7, 1.0, 1.3), flip=False, crf="segmentation")
    assert PRESETS["segmentation"] == CRFParams(3, 2, 55, 3, 4, iterations=10)


def test_the_papers_numbers_are_the_defaults():
    """Whoever leaves a recipe's line out gets what the paper did."""
    paper = load("paper")
    assert paper.training == TrainingConfig(precision="auto")
    assert paper.network().training == SegmentationTraining(precision="auto")
    assert paper.annotation == AnnotationConfig()
    assert paper.network().inference == InferenceConfig()
    assert replace(paper.maps, precision="no") == MapConfig()


def test_the_drawn_recipe_is_that_of_the_chapters():
    drawn = load("drawn")
    assert drawn.data == DataConfig(source="minivoc", drawn=1000)
    assert drawn.attention == ModelConfig(backbone="efficientnet_lite0", dropout=0.5, train_last=5)
    assert drawn.training == TrainingConfig(
        epochs=4,
        optimizer="adamw",
        schedule="poly",
        warm_up=112,
        batch_size=16,
        backbone_rate=5e-4,
        head_rate=5e-3,
        weight_decay=0.01,
        crops="whole",
        crop=160,
        held_out=0.1,
        held_out_size=224,
        precision="no",
        workers=0,
    )
    assert (drawn.seeds, drawn.maps, drawn.annotation) == (5, MapConfig(), AnnotationConfig())
    light = drawn.network()
    assert list(drawn.networks) == ["light"]
    assert (light.rows, light.start) == ((), "attention")
    assert light.model == SegmentationConfig(
        backbone="efficientnet_lite0", decoder=True, channels=96, dilation=2, dropout=0.1
    )
    assert light.training == SegmentationTraining(
        epochs=9,
        optimizer="adamw",
        schedule="poly",
        warm_up=30,
        batch_size=8,
        backbone_rate=2e-4,
        head_rate=1e-3,
        weight_decay=0.02,
        crops="resized",
        shares=(0.4, 1.0),
        crop=129,
        held_out=0.1,
        held_out_size=161,
        precision="no",
        workers=0,
    )
    assert light.inference == InferenceConfig(scales=(0.7, 0.85, 1.0))


def test_the_recipe_for_a_hosted_gpu_is_the_drawn_one_with_more_of_everything():
    drawn, colab = load("drawn"), load("colab")
    assert colab.data == replace(drawn.data, drawn=2000)
    assert colab.attention == drawn.attention
    assert colab.training == replace(drawn.training, epochs=6, warm_up=336, workers=2, precision="auto")
    longer = {"epochs": 9, "warm_up": 45, "workers": 2, "precision": "auto"}
    assert colab.network() == replace(drawn.network(), training=replace(drawn.network().training, **longer))


def test_the_recipe_for_photographs_without_a_gpu():
    made = load("photographs-cpu")
    assert made.data == DataConfig(source="voc", train="train_aug")
    assert made.attention == ModelConfig(backbone="efficientnet_lite0", train_last=5)
    assert made.training == replace(
        load("photographs-vgg16").training, epochs=5, crop=256, backbone_rate=3e-4, precision="no"
    )
    assert made.seeds == 1
    assert made.note
    assert checkpoints.find(made.finished) == checkpoints.ATTENTION
    light, largefov = made.network(), made.network("largefov")
    assert light.rows == largefov.rows
    assert light.rows == ("CAM", "DSNA, expansive", "DSNA, discriminative", "DSNA, merged", "full supervision")
    assert (light.start, largefov.start) == ("attention", "weights")
    assert light.model == replace(load("drawn").network().model, dilation=4)
    assert largefov.model == SegmentationConfig(backbone="vgg16", dilation=8, train_last=7)
    assert light.training == replace(
        load("drawn").network().training,
        epochs=5,
        warm_up=50,
        batch_size=16,
        backbone_rate=3e-4,
        shares=(0.25, 1.0),
        crop=225,
        balance=0.75,
        held_out=0.06,
        held_out_size=257,
        workers=2,
    )
    short = {"crop": 225, "precision": "auto"}
    assert largefov.training == SegmentationTraining(epochs=4, drop_after=3, batch_size=5, crops="whole", **short)
    assert light.inference.scales == (0.45, 0.6, 0.75)
    assert largefov.inference.scales == (0.4, 0.5, 0.6)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        (["training.epoch=3"], "unknown key training.epoch; did you mean 'epochs'?"),
        (["networks.light.training.cropped=3"], "unknown key networks.light.training.cropped; did you mean 'crop'?"),
        (["training.epochs='3'"], "training.epochs='3' must be a whole number"),
        (["annotation.tau=0.5"], "annotation.tau=0.5 must be between 0.5 and 1"),
        (["annotation.tau=1"], "annotation.tau=1 must be between 0.5 and 1"),
        (["annotation.foreground_threshold=1.5"], "annotation.foreground_threshold=1.5 must be from 0 to 1"),
        (
            ["annotation.crf=seg"],
            "annotation.crf='seg': choose sec, segmentation, deeplab or none; did you mean 'sec'?",
        ),
        (
            ["attention.head=decoupling"],
            "attention.head='decoupling': choose decoupled, conventional or single_stream",
        ),
        (["data.source=vocs"], "data.source='vocs': choose minivoc, voc or folder; did you mean 'voc'?"),
        (["attention.class_names=['cat']"], "unknown key attention.class_names; there is backbone, head"),
        (["training.precision=bf"], "training.precision='bf': choose auto, no, bf16 or fp16; did you mean 'bf16'?"),
        (["training.scales=[1.5, 1.0]"], "training.scales=[1.5, 1.0] must be two numbers, the smaller first"),
        (["training.scales=[0, 1]"], "training.scales=0 must be above 0"),
        (["networks.light.inference.scales=[]"], "networks.light.inference.scales=[] must name at least one"),
        (["networks.light.training.schedule=cosine"], "networks.light.training.schedule='cosine': choose step or poly"),
        (["seeds=0"], "seeds=0 must be at least 1"),
        (["maps.precision=fp16"], "maps.precision='fp16': choose no or bf16; did you mean 'bf16'?"),
    ],
)
def test_wrong_values_are_refused_with_file_and_key(changes, message):
    with pytest.raises(RecipeError) as error:
        load("drawn", changes)
    assert str(error.value).startswith(f"{FOLDER / 'drawn.toml'}: {message}")


def test_a_recipe_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    there = "the book's are colab, drawn, paper, photographs-cpu, photographs-resnet50, photographs-vgg16"
    with pytest.raises(RecipeError) as error:
        load("papers")
    assert str(error.value) == f"papers: no such recipe; did you mean 'paper'?; {there}"
    with pytest.raises(RecipeError) as error:
        load(tmp_path / "zzz.toml")
    assert str(error.value) == f"{tmp_path / 'zzz.toml'}: no such recipe; {there}"
    with pytest.raises(RecipeError, match="no such recipe"):
        load(tmp_path)


def test_a_recipe_of_ones_own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('title = "mine"\n[networks.small.model]\nchannels = 8\n')
    made = load(path, ["training.epochs=1", "networks.other.training.epochs=2"])
    assert made.networks == {
        "small": NetworkConfig(model=SegmentationConfig(channels=8)),
        "other": NetworkConfig(training=SegmentationTraining(epochs=2)),
    }
    assert made.network() is made.networks["small"]


def test_the_recipes_of_an_installed_package(tmp_path, monkeypatch):
    """They lie within it then."""
    package = tmp_path / "site-packages" / "dsna_lib"
    (package / "config").mkdir(parents=True)
    (package / "recipes").mkdir()
    (package / "recipes" / "drawn.toml").write_text('title = "installed"\n')
    monkeypatch.setattr(recipes, "__file__", str(package / "config" / "recipe.py"))
    assert load("drawn").title == "installed"


def test_weights_of_a_backbone_may_be_none_in_a_recipe():
    """TOML has no word for it."""
    made = load("drawn", ["attention.weights=none", "attention.train_last=none", "networks.light.model.weights='none'"])
    assert made.attention.weights is made.attention.train_last is made.network().model.weights is None
    assert load("drawn").attention.weights == "imagenet"


def test_a_network_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(SettingError) as error:
        load("paper").network("vgg")
    assert str(error.value) == "the recipe has no network 'vgg'; did you mean 'vgg16'?; there is vgg16, resnet101"
    with pytest.raises(SettingError, match=r"the recipe has no segmentation network; add a table \[networks.NAME\]"):
        Recipe().network()


def test_a_crf_preset_that_is_not_there_is_refused_with_those_that_are():
    assert preset(CRFParams(iterations=1)) == CRFParams(iterations=1)
    assert preset("deeplab") is PRESETS["deeplab"]
    with pytest.raises(SettingError) as error:
        preset("deplab")
    message = "unknown CRF preset 'deplab': choose one of sec, segmentation, deeplab; did you mean 'deeplab'?"
    assert str(error.value) == message


# --- configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_says_what_it_is_and_its_default_is_allowed(config):
    told = [field for field in fields(config) if "help" in field.metadata]
    nested = {"data", "attention", "training", "maps", "annotation", "networks", "model", "inference"}
    assert {field.name for field in fields(config)} - {field.name for field in told} <= nested | {"class_names"}
    for field in told:
        assert field.metadata["help"]
        kind = options.types_of(config)[field.name]
        assert options.checked(field.default, kind, field.metadata, field.name) == field.default
        assert type(options.checked(field.default, kind, field.metadata, "")) is type(field.default)
    assert config() == config()


@pytest.mark.parametrize("config", CONFIGS)
def test_every_configuration_refuses_what_its_fields_refuse(config):
    for field in fields(config):
        low = field.metadata.get("low")
        if low is not None and options.types_of(config)[field.name] in (int, int | None):
            with pytest.raises(SettingError, match=f"{field.name}={low - 1} must be "):
                config(**{field.name: low - 1})
        if "help" in field.metadata:
            with pytest.raises(SettingError, match=f"^{field.name}="):
                config(**{field.name: object()})


def test_a_precision_that_follows_from_the_machine_is_the_one_that_a_run_records():
    assert TrainingConfig(precision="auto", device="cpu").precision == native_precision("cpu")
    assert TrainingConfig(precision="auto").identity()["precision"] == AUTO


@pytest.mark.parametrize("config", [TrainingConfig, SegmentationTraining])
def test_the_identity_of_a_training_leaves_out_only_what_changes_nothing_learned(config):
    identity = config().identity()
    free = {"workers", "device", "memory", "checkpoint_every", "held_out_size"}
    assert set(config(jitter=0.1).identity()) == {field.name for field in fields(config)} - free
    assert set(config(jitter=0.1).identity()) - set(identity) == {"jitter"}  # models from before it are found
    assert plain(identity) == identity
    assert config(workers=7, memory=0.5, checkpoint_every=3, device="cpu", held_out_size=99).identity() == identity


def test_the_rates_of_the_two_schedules():
    step, poly = (SegmentationTraining(epochs=10, drop_after=8, schedule=name) for name in ("step", "poly"))
    assert [step.rate_factor(at, 10) for at in (0, 79, 80, 99)] == [1, 1, 0.1, 0.1]
    assert [poly.rate_factor(at, 10) for at in (0, 50, 100, 110)] == [1, pytest.approx(0.5**0.9), 0, 0]


def test_a_quick_training():
    quick = TrainingConfig.quick(seed=5)
    assert (quick.epochs, quick.drop_after, quick.precision, quick.seed) == (6, 4, AUTO, 5)
    assert TrainingConfig.quick(epochs=2).epochs == 2


def test_a_head_names_itself_as_a_row_does():
    assert str(HeadConfig()) == "decoupled, dropout 0.5"
    assert str(HeadConfig("single_stream", 0)) == "single_stream, dropout 0"
    assert str(HeadConfig(dropout_after="activation")) == "decoupled, dropout 0.5 after the activation"


# --- import cost ------------------------------------------------------------------------------------------------------

IMPORT = """
import sys
import dsna_lib.config.recipe
print(*{"torch", "numpy", "PIL", "scipy", "pandas", "timm"} & set(sys.modules))
"""


def test_configurations_are_imported_without_torch():
    """For ``--help``, which should answer at once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == []
