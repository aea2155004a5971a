"""The frame of all commands: help, exit codes, and one clear sentence for what goes wrong."""

import argparse
import importlib
import inspect
import json
import subprocess
import sys

import pytest
from command_line import sentences

from dsna_lib import training
from dsna_lib.cli.commands import COMMANDS
from dsna_lib.cli.main import UsageError, main, parser, sentence
from dsna_lib.config.tables import TITLES
from dsna_lib.data import Pictures, sources, voc
from dsna_lib.methods.base import MethodError
from dsna_lib.tables.definitions import TableError

HEAVY = ("torch", "torchvision", "timm", "numpy", "pandas", "matplotlib", "PIL", "accelerate", "distributed")
NAMES = [fill.__name__.replace("_", "-") for fill in COMMANDS]
DATA = ("make", "check", "download")
HELPS = [[], *([name] for name in NAMES), *(["data", name] for name in DATA)]


def test_no_help_needs_torch():
    """Nor anything else that takes long to import; in a process of its own, for this one has them all."""
    code = f"""
import contextlib, io, json, sys
from dsna_lib.cli import main
loaded = {{}}
for words in {HELPS!r}:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*words, "--help"]) == 0, words
    assert "exit codes:" in out.getvalue(), words
    loaded[" ".join(words)] = sorted(set({HEAVY!r}) & set(sys.modules))
print(json.dumps(loaded))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {" ".join(words): [] for words in HELPS}


def test_the_module_is_a_program():
    """Launchers start a module: ``accelerate launch -m dsna_lib.cli train ...``."""
    done = subprocess.run([sys.executable, "-m", "dsna_lib.cli", "train", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: dsna train ")
    failed = subprocess.run([sys.executable, "-m", "dsna_lib.cli", "paint"], capture_output=True, text=True)
    assert failed.returncode == 2


@pytest.mark.parametrize("words", [[name] for name in NAMES if name != "data"] + [["data", name] for name in DATA])
def test_what_runs_a_command_is_there(words):
    """The parser knows it by its name, for its module imports torch."""
    given = {"segment": ["a.jpg"], "table": ["I"], "reproduce": ["--recipe", "drawn"], "evaluate": ["--data", "voc"]}
    given["export"] = ["model.pth"]
    args = parser().parse_args([*words, *(["x"] if words[-1] in DATA[1:] else given.get(words[-1], []))])
    run = getattr(importlib.import_module(f"dsna_lib.cli.{args.module}"), args.function)
    assert inspect.signature(run).parameters.keys() == {"args"}


def test_help_documents_commands_and_exit_codes(run):
    code, out, _ = run("--help")
    assert code == 0
    listed = {line.split()[0] for line in out.splitlines() if line.startswith("    ") and line[4] != " "}
    assert listed >= set(NAMES)
    assert "train an attention model" in out
    assert all(number in out for number in ("  0  ", "  1  ", "  2  ", "  3  ", "  130  "))


@pytest.mark.parametrize(
    "command, words",
    [
        (
            "train",
            [
                "default: 20; with --quick: 6",
                "default: 0.001",
                "side of the training crop in pixels",
                "data set (in place of the recipe's):",
                "--recipe FILE",
                "-p KEY=VALUE",
                "default: 1,1.5",
            ],
        ),
        (
            "train-segmentation",
            [
                "default: 12; with --quick: 6",
                "--crops {rescaled,resized,whole}",
                "divide the rates by 10 after --drop-after",
            ],
        ),
        ("maps", ["default: 224", "default: float16", "pixels", "--jobs", "--scheduler"]),
        (
            "annotate",
            ["default: 0.7", "default: merged", "default: sec", "default: annotations", "default: 0)", "workers"],
        ),
        ("segment", ["default: 0.7,1,1.3, or 0.45,0.6,0.75", "default: segmentation", "--jobs", "--scheduler"]),
        ("evaluate", ["default: false_negative", "default: val", "Table I", "--jobs", "--scheduler"]),
        ("table", [*TITLES.values(), "default: drawn", "--jobs", "--scheduler", "--network", "default: results"]),
        ("reproduce", ["--dry-run", "--recipe FILE", "--jobs", "--scheduler"]),
        ("figure", ["--profile {cpu,colab,full}"]),
        ("data make", ["default: 1000", "default: 100", "default: 0", "pixels"]),
        ("data check", ["open every picture"]),
        ("data download", ["2 GB"]),
    ],
)
def test_help_shows_units_and_defaults(run, monkeypatch, command, words):
    monkeypatch.setenv("COLUMNS", "5000")
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    for word in words:
        assert word in out


@pytest.mark.parametrize(
    "command, named",
    [
        ("", "COMMAND"),
        ("paint", "paint"),
        ("train", "--data"),
        ("train --data coco", "coco"),
        ("train --data minivoc -p training.epochs=1", "--recipe"),
        ("train --data minivoc --epochs 0", "--epochs: 0 must be at least 1"),
        ("train --data minivoc --epochs many", "--epochs: 'many' must be a whole number"),
        ("train --data minivoc --epochs 1.5", "whole number"),
        ("train --data minivoc --dropout 1.5", "--dropout: 1.5 must be from 0 to 1"),
        ("train --data minivoc --backbone vgg61", "unknown backbone 'vgg61'"),
        ("train --data voc", "--root"),
        ("maps", "--data"),
        ("annotate a.jpg --labels cat --tau 0.5", "between 0.5 and 1"),
        ("annotate a.jpg --labels cat --crf best", "best"),
        ("annotate a.jpg --labels cat --data minivoc", "--data"),
        ("annotate --data minivoc --labels cat", "--labels"),
        ("annotate a.jpg --labels cat --jobs 0", "--jobs: 0 must be at least 1"),
        ("evaluate --data minivoc", "--model"),
        ("evaluate x --data minivoc --void skip", "skip"),
        ("evaluate x --data minivoc --record scores", "--model"),
        ("evaluate --data minivoc --model x.pth --scheduler tcp://127.0.0.1:9", "--out"),
        ("train --data minivoc --scales 1.5,1", "smaller first"),
        ("train --data minivoc --scales 1,inf", "--scales: inf must be a finite number above 0"),
        ("train --data minivoc --head-rate nan", "--head-rate: nan must be a finite number at least 0"),
        ("train --data minivoc --seed 4294967296", "--seed: 4294967296 must be from 0 to 4294967295"),
        ("data make --out drawn --size 32", "--size: 32 must be at least 48"),
        ("train --data minivoc --scales wide", "--scales"),
        ("train-segmentation --data minivoc --truth --network light", "--recipe"),
        ("train-segmentation --recipe drawn --truth", "name that model's file (--weights FILE)"),
        ("figure", "--list"),
        ("figure 99", "unknown figure or table '99'"),
        ("reproduce", "--recipe"),
        ("data", "ACTION"),
    ],
)
def test_wrong_usage_is_2(run, command, named):
    code, out, err = run(*command.split())
    assert (code, out) == (2, "")
    assert named in err


@pytest.mark.parametrize("command", ["maps", "annotate --labels cat", "segment"])
def test_a_picture_whose_name_leads_out_of_the_folder_is_refused(run, tmp_path, command):
    for name in ("...jpg", "..jpg"):
        code, out, err = run(*command.split(), "good.jpg", name, "--out", "here/made")
        assert (code, out) == (3, "")
        assert f"{name}: what is named after its id" in err
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(run, monkeypatch):
    words = ["annotate", "gone.jpg", "--labels", "cat", "--model", "gone.pth"]
    assert run(*words)[0] == 3
    assert run(*words, "--debug", traceback=True)[0] == 3
    monkeypatch.setenv("DSNA_DEBUG", "1")
    assert run(*words, traceback=True)[0] == 3


def test_interrupted_is_130(run, monkeypatch):
    def interrupt(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_once", interrupt)
    monkeypatch.setattr(sources, "load_split", lambda *given: Pictures([], ("cat",)))
    code, _, err = run("train", "--data", "minivoc")
    assert code == 130
    assert "interrupted" in err


def test_stdout_is_for_people_or_for_json_alone(run, monkeypatch):
    """Whoever prints, the library or what it uses."""
    counts = {"val": {"listed": 1, "pictures": 1, "labels": 1}}
    monkeypatch.setattr(voc, "check", lambda root: print("looking") or counts)
    code, out, err = run("data", "check", ".")
    assert (code, out, err) == (0, "looking\nval         1 listed, 1 pictures, 1 labels\n", "")
    code, shown, err = run("data", "check", ".", "--json")
    assert (code, json.loads(shown), err) == (0, {"done": 1, "splits": counts, "failed": {}}, out)


def test_one_process_of_several_speaks(run, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert run("figure", "--list") == run("figure", "--list", "--json") == (0, "", "")
    assert run("figure") == (2, "", "")
    monkeypatch.setenv("RANK", "0")
    assert "table-II" in run("figure", "--list")[1]


@pytest.mark.parametrize("name, value", [("RANK", "1"), ("WORLD_SIZE", "abc")])
def test_what_is_left_over_of_a_launch_is_said(run, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    code, out, err = run("figure", "--list")
    assert (code, out, len(sentences(err))) == (2, "", 1)
    assert f"{name} is {value}" in err


def test_an_unexpected_error_is_still_one_sentence(run, monkeypatch):
    monkeypatch.setattr(voc, "check", lambda root: {}["lost"])
    code, _, err = run("data", "check", ".")
    assert code == 3
    assert sentences(err) == ["dsna data check: error: unexpected KeyError: 'lost' (--debug shows where it happened)"]


def test_errors_of_worker_processes_lose_their_traceback():
    text = (
        "Caught PictureError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File ...\n"
    )
    error = ValueError(text + "dsna_lib.data.pictures.PictureError: a.jpg: no such picture\n")
    assert sentence(error, argparse.Namespace(flags=())) == "a.jpg: no such picture"


@pytest.mark.parametrize("kind, code", [(TableError, 2), (MethodError, 2), (UsageError, 2), (ValueError, 3)])
def test_who_is_to_blame(run, monkeypatch, kind, code):
    def refuse(root):
        raise kind("it cannot be")

    monkeypatch.setattr(voc, "check", refuse)
    assert run("data", "check", ".")[0] == code


def test_all_usage_errors_exist():
    """They are known by their names, which must not have changed."""
    module = importlib.import_module("dsna_lib.cli.main")
    for place in ("engine.errors", "engine.recipes", "book.chapters"):
        importlib.import_module(f"dsna_lib.{place}")
    known = {kind.__name__ for kind in _subclasses(Exception) if kind.__module__.startswith("dsna_lib")}
    assert known >= module.WRONG_USAGE


def _subclasses(kind: type) -> set[type]:
    return {kind}.union(*(_subclasses(inner) for inner in kind.__subclasses__()))


def test_main_is_what_the_program_calls(capsys):
    import dsna_lib.cli

    assert dsna_lib.cli.main is main
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dsna-book ")
    assert parser().prog == "dsna"
