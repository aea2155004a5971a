"""The benchmarks run, and what they time is what they say."""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scripts
import tiny
import tiny_experiments
import torch
from torch import Tensor
from torch.nn import functional

from dsna_lib import backbones, maps
from dsna_lib.attention import AttentionModel, DecoupledAttention
from dsna_lib.book import photos
from dsna_lib.cli.main import parser
from dsna_lib.config import recipe
from dsna_lib.data import Pictures, Record, minivoc, read_image, write_mask
from dsna_lib.engine.files import read_json
from dsna_lib.engine.pools import Report, Workers


def script(name: str) -> ModuleType:
    return scripts.load(f"benchmarks/{name}.py")


@pytest.fixture(scope="module")
def one_pass() -> ModuleType:
    return script("one_pass")


@pytest.fixture
def batch() -> Tensor:
    return torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_rows(one_pass: ModuleType, batch: Tensor) -> None:
    rows = one_pass.measure(tiny.backbone(), batch, rounds=3)
    for name in ("backbone", "dsna", "dsna_lib.methods.cams", "multi-scale cam"):
        low, high = rows[name]["quartiles"]
        assert rows[name]["milliseconds_a_picture"] > 0
        assert 0 < low <= rows[name]["ratio"] <= high


@pytest.mark.parametrize("bf16", [False, True])
def test_a_batch_and_its_limits(one_pass: ModuleType, batch: Tensor, bf16: bool) -> None:
    rows = one_pass.measure(tiny.backbone(), batch.expand(2, -1, -1, -1), rounds=1, bf16=bf16)
    assert rows["multi-scale cam"] == {"skipped": "does not run: its pipeline takes one picture at a time"}
    assert "ratio" in rows["dsna"]
    assert "ratio" in rows["dsna_lib.methods.cams"]


def test_missing_package(one_pass: ModuleType, batch: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    rows = one_pass.measure(tiny.backbone(), batch, rounds=1)
    assert rows["grad-cam"] == {"skipped": "pytorch_grad_cam is not installed: pip install -e .[bench]"}
    assert "ratio" in rows["dsna"]


def test_own_errors_are_not_hidden(one_pass: ModuleType, batch: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pass.maps, "from_output", lambda output: int("no map"))
    with pytest.raises(ValueError, match="no map"):
        one_pass.measure(tiny.backbone(), batch, rounds=1)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("rival, module", [("torch-cam", "torchcam"), ("grad-cam", "pytorch_grad_cam")])
def test_every_grad_cam_gives_the_same_maps(one_pass: ModuleType, rival: str, module: str, count: int) -> None:
    pytest.importorskip(module, reason="pip install -e .[bench]")
    torch.manual_seed(0)
    pictures = torch.rand(count, 3, 32, 48)
    works = one_pass.contenders(tiny.backbone(), pictures)
    own = works["dsna_lib.methods.cams"]()
    assert own.shape == (count, 2, 8, 12)
    assert own.amax(dim=(-2, -1)).min() > 0.9  # no map is empty: the comparison means something
    theirs = works[rival]()
    if theirs.shape != own.shape:  # in the picture's size
        own = functional.interpolate(maps.min_max(own), (32, 48), mode="bilinear")
    torch.testing.assert_close(theirs, maps.min_max(own), atol=1e-4, rtol=0)


def test_multi_scale_cam_of_a_mirrored_picture_is_mirrored(one_pass: ModuleType, batch: Tensor) -> None:
    torch.manual_seed(0)
    backbone = tiny.backbone()
    made = []
    for pictures in (batch, batch.flip(-1)):
        torch.manual_seed(1)  # of the head
        made.append(one_pass.contenders(backbone, pictures)["multi-scale cam"]())
    assert made[0].shape == (1, 2, 32, 48)
    assert not torch.allclose(made[0], made[1], atol=1e-2)
    torch.testing.assert_close(made[0], made[1].flip(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(made[0].amax(dim=(-2, -1)), torch.ones(1, 2), atol=1e-2, rtol=0)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results go into a folder of their own, and models have the tiny backbone."""
    monkeypatch.setattr(backbones, "create", lambda *_, **__: tiny.backbone())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_command_line_writes_the_result(one_pass: ModuleType, in_folder: Path, capsys: pytest.CaptureFixture) -> None:
    one_pass.main(["--batch-sizes", "1", "2", "--rounds", "1", "--size", "32", "--name", "speed"])
    content = read_json("results/speed.json")
    assert set(content["values"]) == {"batch of 1", "batch of 2"}
    assert content["provenance"]["arguments"]["rounds"] == 1
    assert "one picture at a time" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        one_pass.main(["--rounds", "0"])


def test_both_training_loops_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("segmentation_speed")
    monkeypatch.setattr(module.minivoc, "load", lambda split: tiny.pictures(tmp_path, 10, masks=True))
    monkeypatch.setattr(module.networks, "create", lambda config: tiny.segmentation())
    shape = {"batch_size": 2, "crop": 17, "steps": 5, "rounds": 2, "precision": "no", "workers": 0}
    measured = module.steps(argparse.Namespace(backbone="tiny", train_last=None, **shape))
    assert measured["steps"] == 2 * (5 - 1 - module.SKIPPED)
    assert measured["own_milliseconds"] > 0
    assert measured["bare_milliseconds"] > 0
    assert 0 < measured["waiting_for_pictures"] < 1


def test_the_crf_is_timed_on_one_process_and_on_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of our own: processes take 5 seconds to start, and each then a second a picture."""
    module, now = script("segmentation_speed"), [0.0]
    make, refine_split = module.minivoc.make, module.crf.refine_split

    def refine(pictures: Pictures, truth: Path, out: Path, workers: Workers) -> Report:
        now[0] += 5 * (workers.jobs > 1) + len(pictures) / workers.jobs
        return refine_split(pictures, truth, out)

    monkeypatch.setattr(module.minivoc, "make", lambda root, workers, **options: make(root, **options))
    monkeypatch.setattr(module.pools, "SHARE", 1)
    monkeypatch.setattr(module.crf, "refine_split", refine)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    measured = module.crf_processes(argparse.Namespace(size=96))
    seconds = {"one_process_seconds": 1.0, "two_processes_seconds": 0.5}
    assert measured == seconds | {"ratio": 2.0, "pictures": 4}


def test_the_backends_of_the_crf_are_timed_in_turns_and_compared(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of our own: pydensecrf takes 2 seconds a photograph, PyTorch 3, with another label at 1 of 2."""
    module, now, turns = script("crf_backends"), [0.0], []
    made = {"pydensecrf": [[0.9, 0.6]], "torch": [[0.9, 0.4]]}  # of the first of two classes

    def marginals(image: np.ndarray, likely: np.ndarray, params: str, backend: str) -> np.ndarray:
        turns.append(backend)
        now[0] += {"pydensecrf": 2, "torch": 3}[backend]
        first = np.array(made[backend])
        return np.stack([first, 1 - first])

    photograph = np.zeros((1, 2, 3), np.uint8), np.zeros((2, 1, 2))
    monkeypatch.setattr(module.crf, "require", lambda backend: None)
    monkeypatch.setattr(module, "annotated", lambda size: [photograph, photograph])
    monkeypatch.setattr(module.crf, "marginals", marginals)
    monkeypatch.setattr(module, "time", SimpleNamespace(process_time=lambda: now[0]))
    module.main(["--rounds", "2", "--name", "backends"])
    seconds = {"pydensecrf_seconds": 2.0, "torch_seconds": 3.0, "ratio": 1.5}
    apart = {"pixels": 4, "other_labels": 2, "largest_difference": 0.2}
    assert read_json("results/backends.json")["values"] == seconds | apart
    assert turns == ["pydensecrf", "torch"] * 4


def test_the_crf_starts_from_annotations_of_the_four_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    module, asked = script("crf_backends"), []
    model = AttentionModel(tiny.backbone(), DecoupledAttention(8, 20)).eval()
    monkeypatch.setattr(module.attention, "load", lambda path, names: asked.append(path) or model)
    seen = list(module.annotated(size=64))
    assert asked == [module.checkpoints.ATTENTION]
    assert len(seen) == 4
    for image, likely in seen:
        assert max(image.shape) == 64
        assert likely.shape == (21, *image.shape[:2])
        assert len(np.flatnonzero(likely.any(axis=(1, 2)))) == 2


def test_the_cost_of_annotations_is_written(in_folder: Path, capsys: pytest.CaptureFixture) -> None:
    script("annotation_cost").main(["--batch-size", "1", "--rounds", "1", "--name", "cost"])
    content = read_json("results/cost.json")
    assert set(content["values"]["milliseconds_a_picture"]) == {"backbone", "annotated"}
    assert content["values"]["ratio"] > 0
    assert content["provenance"]["arguments"]["batch_size"] == 1
    assert "with maps and annotations" in capsys.readouterr().out


def test_a_network_learns_by_heart_and_no_folder_is_in_the_result(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("overfit")
    root = minivoc.make(in_folder / "drawn", train=3, val=1, size=64)
    monkeypatch.setattr(module, "SMALLEST", 0.0)
    sizes = ["--pictures", "2", "--batch-size", "2", "--steps", "3", "--crop", "33", "--precision", "no"]
    module.main(["--root", str(root), "--backbone", "tiny", *sizes, "--name", "overfit"])
    content = read_json("results/overfit.json")
    assert set(content["values"]["mean_iou"]) == {"single", "multi"}
    assert all(0 <= iou <= 100 for iou in content["values"]["mean_iou"].values())
    assert content["values"]["last_loss"] > 0
    assert content["provenance"]["arguments"]["steps"] == 3
    assert str(in_folder) not in Path("results/overfit.json").read_text()


def test_only_pictures_of_large_objects_are_learned_by_heart(tmp_path: Path) -> None:
    (record, *_) = tiny.pictures(tmp_path, 1, masks=True).records
    mask = np.zeros((20, 26), np.uint8)
    for covered, large in ((25, False), (26, True)):  # 5 % of 520 pixels
        mask.flat[:covered] = 1
        write_mask(record.mask, mask)
        assert script("overfit").all_large(record) is large


@pytest.mark.parametrize("right", [-12, 0, 8])
def test_displacement_of_cells_that_are_known_to_lie_off(right: int) -> None:
    def features(pictures: Tensor) -> Tensor:
        return functional.avg_pool2d(pictures, 8).roll(right // 4, -1)

    smooth = functional.interpolate(torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)), (192, 192))
    smooth = functional.avg_pool2d(smooth, 17, stride=1, padding=8)
    assert script("displacement").displacement(features, [smooth]) == pytest.approx(2 * right, abs=1)


def test_verdicts_on_made_up_trainings():
    """Firm once in twenty times without a difference, and always where it is large."""
    verdicts = script("verdicts")
    for apart in (True, False):
        assert verdicts.firm_share(3, 0.0, apart, 200) < 0.1
        assert verdicts.firm_share(3, 20.0, apart, 5) == 1


class Moments:
    """Instead of chance: one signal after the other, each once the command has made a few more files."""

    def __init__(self, made: Path, *sent: signal.Signals) -> None:
        self.made, self.sent = made, itertools.cycle(sent)

    def choice(self, known: Sequence[signal.Signals]) -> signal.Signals:
        return next(self.sent)

    def uniform(self, low: float, high: float) -> float:
        enough, last = self.files() + 2, monotonic() + 60
        while self.files() < enough and monotonic() < last:
            sleep(0.01)
        return 0.01

    def files(self) -> int:
        return sum(1 for _ in self.made.rglob("*"))


GOOD = """
import os, pathlib, signal, sys, time

def stop(number, frame):
    print("stopped", file=sys.stderr)
    os._exit(128 + number)

signal.signal(signal.SIGINT, stop), signal.signal(signal.SIGTERM, stop)
out = pathlib.Path(sys.argv[-1])
out.mkdir(exist_ok=True)
for k in range(15):
    if not (out / f"{k}.txt").exists():
        (out / "half").write_text(f"{k}")
        time.sleep(0.05)
        (out / "half").rename(out / f"{k}.txt")
"""
BAD = """
import os, pathlib, subprocess, sys, tempfile, time
out = pathlib.Path(sys.argv[-1])
out.mkdir(exist_ok=True)
tempfile.mkdtemp()
sleeping = subprocess.Popen(["sleep", "100"])
for k in range(15):
    if not (out / f"{k}.txt").exists():
        with (out / f"{k}.txt").open("w", buffering=1) as file:
            print(k, file=file)
            time.sleep(0.05)
            print(k, file=file)
sleeping.kill()
"""


def test_a_campaign_finds_what_a_stop_does_to_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("kills")
    monkeypatch.setattr(module, "LINGER", 0.1)
    for name, code in (("good", GOOD), ("bad", BAD)):
        (tmp_path / f"{name}.py").write_text(code)
    stopped = tmp_path / "stopped"
    how = [sys.executable, "good.py"], 3, Moments(stopped, *module.SIGNALS), tmp_path
    assert module.stop_again_and_again(*how) == module.Count(hits=3)
    count = module.stop_again_and_again([sys.executable, "bad.py"], 1, Moments(stopped, signal.SIGINT), tmp_path)
    assert (count.hits, len(count.differing), count.orphans, len(count.leftovers), count.refused) == (1, 1, 0, 1, [])
    assert "KeyboardInterrupt" in count.talkative[0]
    count = module.stop_again_and_again([sys.executable, "bad.py"], 1, Moments(stopped, signal.SIGKILL), tmp_path)
    assert (count.orphans, len(count.differing), count.talkative, count.leftovers) == (1, 1, [], [])
    assert not count.clean


def test_drawing_goes_on_after_a_stop(tmp_path: Path) -> None:
    module = script("kills")
    words = (*module.DRAW, "--train", "30", "--val", "2")
    assert module.stop_again_and_again(words, 1, Moments(tmp_path, signal.SIGTERM), tmp_path) == module.Count(hits=1)


def test_a_campaign_stops_commands_that_there_are() -> None:
    module = script("kills")
    for words in (*module.STAGES.values(), *module.NEEDED.values()):
        assert words[:3] == module.DSNA
        parser().parse_args([*words[3:], "--out", "here"])
    recipe.load("drawn", [f"{key}={value}" for key, value in module.RECIPE.items()])


def test_what_a_part_of_the_network_is_worth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant trains for as long as it is told, at least one pass, and is scored as a row of Table III."""
    ablation = script("network_ablation")
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    experiment = tiny_experiments.experiment(tmp_path)
    monkeypatch.setattr(ablation, "seconds_a_step", lambda *_: 0.5)
    network = ablation.changed(tiny_experiments.NETWORK, ablation.VARIANTS["SGD instead of AdamW"])
    assert (network.training.optimizer, network.training.head_rate) == ("sgd", 0.03)
    for seconds, passes in ((0.0, 1), (3.0, 3)):  # two steps a pass
        assert ablation.passes_in(seconds, network, experiment.train) == passes
        row = ablation.measure(network, experiment, passes)
        assert row["steps"] == 2 * passes
        assert all(0 <= row[column] <= 100 for column in ("single", "multi", "iou"))
    started = ablation.changed(network, ablation.VARIANTS["from ImageNet's weights"])
    assert (started.start, started.model) == ("weights", network.model)


def test_the_variants_differ_from_the_recipe_in_what_they_say() -> None:
    ablation, network = script("network_ablation"), recipe.load("drawn").network()
    made = {title: ablation.changed(network, changes) for title, changes in ablation.VARIANTS.items()}
    assert made.pop("the recipe") == network
    assert len({repr(each) for each in made.values()} | {repr(network)}) == len(ablation.VARIANTS)


def test_the_steps_of_the_ablation_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation, network = script("network_ablation"), tiny_experiments.NETWORK
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    pictures = tiny.pictures(tmp_path / "data", count=28, masks=True)
    assert 0 < ablation.seconds_a_step(network, pictures) < 10


def test_maps_are_looked_at_while_a_model_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step and at each point of the learning curve, in numbers and as two pictures' maps."""
    module = script("maps_by_step")
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    schedule = replace(tiny_experiments.RECIPE.training, held_out=0.5)
    experiment = tiny_experiments.experiment(tmp_path, training=schedule)
    monkeypatch.setattr(module, "KEPT", 1)  # of these pictures, none shows two classes
    found, watch = module.measure(experiment, seed=1)
    looks = len(found["step"])
    assert found["step"][0] == 0
    assert len(found["mean_average_precision"]) == looks - 1 == len(set(found["step"])) - 1
    for kind in module.KINDS:
        assert {len(found[kind][value]) for value in ("area", "on_object")} == {looks}
    assert len(watch.frames) == looks
    first, last = (bytes.fromhex(watch.frames[k]["expansive"][0]) for k in (0, -1))
    assert len(first) == len(last)
    assert first != last


def test_how_much_of_a_map_lies_on_the_object() -> None:
    """The left half of a picture is the object; the map has 1 there and 0.1 elsewhere."""
    truth, plane = np.zeros((4, 8), bool), np.full((4, 8), 0.1, np.float32)
    truth[:, :4], plane[:, :4] = True, 1
    area, mass = script("maps_by_step").covered(plane, truth)
    assert (area, round(mass, 4)) == (0.5, round(1 / 1.1, 4))


def test_similarity_is_of_pictures_with_several_classes() -> None:
    pictures = Pictures([Record(str(k), Path(f"{k}.png"), tuple(range(k))) for k in range(4)], ("a", "b", "c"))
    shown = script("similarity").with_several_classes(pictures)
    assert [record.id for record in shown.records] == ["2", "3"]


# --- the four photographs


def test_what_is_surely_the_object_and_surely_not() -> None:
    """A square of 4 of 10 x 10 pixels inside, the last two columns outside; polygons hold their corners."""
    four = script("four_photographs")
    places = four.Places([[(1, 1), (2, 1), (2, 2), (1, 2)]], [[(8, 0), (9, 0), (9, 9), (8, 9)]])
    mask = np.zeros((10, 10), np.uint8)
    mask[1, 1:3], mask[2, 1], mask[:5, 9] = 3, 4, 4
    assert four.shares(mask, 3, places) == {"object": 50.0, "any class": 75.0, "outside": 25.0}


def test_no_place_of_a_photograph_is_both(tmp_path: Path) -> None:
    four = script("four_photographs")
    records = photos.free(tmp_path).records
    assert [record.id for record in records] == list(four.PLACES)
    for record in records:
        inside, outside = (four.inside_of(each, read_image(record.image).shape) for each in four.PLACES[record.id])
        assert not (inside & outside).any()
        assert min(inside.mean(), outside.mean()) > 0.05


def test_the_budget_of_help() -> None:
    """Labels of all pictures, or outlines of a few: as many hours, and as many steps."""
    budget = script("help_budget")
    few = budget.affordable(1000, budget.effort.Counts(10, 1.5, 2.0))
    assert few * (8.5 + 2 * 79) <= 1000 * 10 < (few + 1) * (8.5 + 2 * 79)
    whole = recipe.load("drawn")
    changed = recipe.load("drawn", budget.smaller(whole, 1000, few))
    assert changed.data.drawn == few
    for before, after in ((whole, changed), (whole.networks["light"], changed.networks["light"])):
        steps = [
            each.training.epochs * (int(0.9 * pictures) // each.training.batch_size)
            for each, pictures in ((before, 1000), (after, few))
        ]
        assert steps[1] == pytest.approx(steps[0], rel=0.05)
    assert budget.passes(whole.training, 1000, 1) > whole.training.epochs, "one picture, a batch of what there is"
