"""The page on running the book: its commands exist, and what it counts is what the defaults amount to."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from dsna_lib.cli.main import parser
from dsna_lib.config.segmentation import SCALES
from dsna_lib.config.training import SegmentationTraining
from dsna_lib.data import voc
from dsna_lib.training import TrainingConfig

PAGE = (Path(__file__).resolve().parents[1] / "book" / "running.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
# The options of the launcher and those of the command that it launches.
LAUNCHES = re.findall(r"accelerate launch (.*?)-m dsna_lib\.cli ([^'\n]*)", PAGE.replace("\\\n", " "))


def commands(block: str) -> list[list[str]]:
    """What follows `dsna`, or its module, on each logical line; comments and the rest of a shell's line left out."""
    lines = block.replace("\\\n", " ").splitlines()
    matches = [re.search(r"(?:(?<![\w/.])(?:\.venv/bin/)?dsna|-m dsna_lib\.cli) ([^'\n]*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in matches if match]


def test_shell_understands_every_block() -> None:
    assert len(BLOCKS) > 5
    for block in BLOCKS:
        checked = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("words", [words for block in BLOCKS for words in commands(block)], ids=" ".join)
def test_every_command_exists(words: list[str]) -> None:
    parser().parse_args(words)


def test_the_launchers_options_exist() -> None:
    known = set(launch_command_parser()._option_string_actions)
    used = {option for launcher, _ in LAUNCHES for option in re.findall(r"--[a-z_]+", launcher)}
    assert used
    assert used <= known


@pytest.mark.parametrize("launcher, command", LAUNCHES)
def test_batches_divide_over_the_processes(launcher: str, command: str) -> None:
    options = parser().parse_args(shlex.split(command))
    batch = getattr(options, "batch_size", TrainingConfig().batch_size)
    assert batch % int(re.search(r"--num_processes (\d+)", launcher)[1]) == 0


@pytest.mark.parametrize("config, size", [(TrainingConfig(), 224), (SegmentationTraining(), 321)])
def test_steps_are_those_of_the_defaults(config: TrainingConfig, size: int) -> None:
    batches = voc.SPLIT_SIZES["train_aug"] // config.batch_size
    assert f"| {config.epochs} epochs of {batches} batches of {config.batch_size} pictures |" in PAGE
    assert f"| {config.epochs * batches:,} steps at {size} x {size} |" in PAGE
    assert config.crop == size


def test_a_hundred_steps_are_the_part_that_the_page_says() -> None:
    config = TrainingConfig()
    limit, factor = int(re.search(r"--limit (\d+) --epochs 1 ", PAGE)[1]), int(re.search(r"multiply by (\d+)", PAGE)[1])
    steps = config.epochs * (voc.SPLIT_SIZES["train_aug"] // config.batch_size)
    assert limit // config.batch_size * factor == steps


def test_pictures_and_scales_are_counted_right() -> None:
    assert f"| {voc.SPLIT_SIZES['train_aug']:,} pictures |" in PAGE
    assert f"| {voc.SPLIT_SIZES['val']:,} pictures |" in PAGE
    assert len(SCALES) == 3
