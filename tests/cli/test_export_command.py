"""``dsna export``."""

import json
import sys
from pathlib import Path

from tiny import needs_onnx

from dsna_lib import checkpoints, export


@needs_onnx
def test_export_a_model_file(run, model_file):
    code, out, _ = run("export", model_file, "--size", "64", "--license", "CC0", "--json")
    assert code == 0
    said = json.loads(out)
    assert (said["done"], said["file"], said["license"], said["input"]["size"]) == (1, "model.onnx", "CC0", 64)
    assert json.loads(Path("export/model.json").read_text()).items() <= said.items()


def test_a_model_that_ships_is_known_by_its_name(run, monkeypatch):
    asked = []
    made = {"input": {"shape": ["pictures", 3, "height", "width"]}, "bytes": 7_200_000, "difference": 2e-5}
    monkeypatch.setattr("dsna_lib.cli.export.write", lambda *given, **more: asked.append((*given, more)) or made)
    code, out, _ = run("export", "efficientnet_lite0_voc", "--size", "256")
    assert code == 0
    assert "efficientnet_lite0_voc.onnx: 7.2 MB, for pictures of height x width pixels\n" in out
    assert out.endswith("differs from PyTorch by 2e-05\n")
    assert asked == [(checkpoints.ATTENTION, Path("export"), {"size": 256, "terms": checkpoints.LICENSE})]
    assert run("export", "mine.pth")[0] == 0
    assert asked[1] == (Path("mine.pth"), Path("export"), {"terms": ""})


def test_what_is_missing_is_said_in_one_sentence(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = run("export", "efficientnet_lite0_voc")
    assert code == 3
    assert err == 'dsna export: error: an export needs onnx: pip install "dsna-book[export]"\n'
    monkeypatch.setattr(export, "_require", lambda: None)
    code, _, err = run("export", "nowhere.pth")
    assert (code, err) == (3, "dsna export: error: nowhere.pth: no such weight file\n")
