"""``dsna evaluate``."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import SIZE, picture, sentences

from dsna_lib import attention
from dsna_lib.data import voc, write_mask
from dsna_lib.data.minivoc import CLASS_NAMES as ANIMALS
from dsna_lib.engine import runs
from dsna_lib.engine.pools import Workers


def test_void_policies(run, original):
    shutil.copytree(original / "SegmentationClass", "void")
    write_mask("void/one.png", np.full((40, 56), 255, np.uint8))
    recall = {}
    for void in ("false_negative", "background", "ignore"):
        words = ["evaluate", "void", "--data", "voc", "--root", original, "--void", void, "--json"]
        recall[void] = json.loads(run(*words)[1])["rows"]["void"]["per_class"]["cat"]["recall"]
    assert recall == {"false_negative": 50.0, "background": 50.0, "ignore": 100.0}


def test_an_empty_split(on_voc, root):
    (root / "ImageSets/Segmentation/val.txt").write_text("")
    code, _, err = on_voc("evaluate", root)
    assert code == 2
    assert "split val" in err
    assert "no pictures" in err


def test_evaluate_by_the_protocol_of_table_1(on_voc, original):
    code, out, err = on_voc("evaluate", original, "--crf", "sec", "--out", "kept", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert list(result["rows"]) == ["expansive", "discriminative", "merged", "merged_crf"]
    assert result["labels"] == "the true image labels"
    assert "true image labels" in err
    assert len(list(Path("kept/merged_crf").glob("*.png"))) == 4
    code, out, _ = on_voc("evaluate", original, "--limit", 2, "--kinds", "merged")
    assert code == 0
    assert "2 pictures of val, annotated with their true image labels." in out
    assert sorted(path.name for path in Path().iterdir()) == ["kept"]


def test_a_single_stream_model_has_one_map(run, original, tmp_path):
    model = attention.create(attention.ModelConfig(voc.CLASS_NAMES, weights=None, head="single_stream"))
    attention.save(model, "single.pth")
    data = ["--data", "voc", "--root", original, "--model", "single.pth", *SIZE]
    assert list(json.loads(run("evaluate", *data, "--json")[1])["rows"]) == ["discriminative"]
    code, _, err = run("annotate", *data)
    assert code == 2
    assert "this model has discriminative" in err
    path = picture(tmp_path / "photo.png")
    assert run("annotate", path, "--labels", "cat", "--no-crf", "--model", "single.pth", *SIZE)[0] == 0
    names = {p.name for p in Path("annotations/photo").iterdir()}
    assert names == {"cat_discriminative.png", "annotation.png", "overlay.png"}


@pytest.mark.parametrize("damage", ["missing", "size", "class"])
def test_evaluate_names_a_bad_annotation(run, original, damage):
    shutil.copytree(original / "SegmentationClass", "made")
    if damage == "missing":
        Path("made/two.png").unlink()
    else:
        write_mask("made/two.png", np.full((40, 56) if damage == "class" else (9, 9), 77, np.uint8))
    code, out, err = run("evaluate", "made", "--data", "voc", "--root", original)
    assert (code, out) == (3, "")
    assert len(sentences(err)) == 1
    assert "made/two.png" in err


def test_minivoc_is_drawn_when_it_is_needed(run, tmp_path, monkeypatch):
    assert run("data", "make", "--out", "mini", "--train", 2, "--val", 2, "--size", 48)[0] == 0
    attention.save(attention.create(attention.ModelConfig(ANIMALS, weights=None)), "animals.pth")
    words = ["evaluate", "--data", "minivoc", "--root", "mini", "--model", "animals.pth", *SIZE]
    code, out, err = run(*words, "--record", "scores", "--note", "a toy")
    assert code == 0, err
    kept = json.loads(Path("results/scores.json").read_text())
    assert set(kept["values"]["rows"]) == {"expansive", "discriminative", "merged"}
    assert kept["provenance"]["labels"] == "the true image labels"
    assert (kept["provenance"]["note"], kept["provenance"]["pictures"]) == ("a toy", 2)
    assert (kept["provenance"]["crf"], kept["provenance"]["trained"]) == (
        "none",
        {"file": runs.file_digest("animals.pth")},
    )
    assert kept["provenance"]["protocol"].startswith("64 x 64 input, fp32, predicted void")
    assert "expansive" in out


@pytest.mark.parametrize(
    "words, who", [(["--jobs", 3], Workers(3)), (["--scheduler", "tcp://far:1"], Workers(1, "tcp://far:1"))]
)
def test_shares_are_annotated_and_counted_by_the_workers(run, on_voc, original, executor, words, who):
    masks = ["evaluate", original / "SegmentationClass", "--data", "voc", "--root", original, *words]
    code, out, _ = run(*masks)
    assert (code, executor) == (0, [who])
    assert "100.0     100.0     100.0" in out
    executor.clear()
    code, out, err = on_voc("evaluate", original, "--kinds", "merged", "--out", "kept", "--json", *words)
    assert code == 0, err
    assert executor == [who] * 2
    code, alone, _ = on_voc("evaluate", original, "--kinds", "merged", "--json")
    assert json.loads(alone)["rows"] == json.loads(out)["rows"]


def test_a_record_outside_its_folder_is_refused_before_anything_is_measured(run, original):
    words = ["evaluate", "--data", "voc", "--root", original, "--model", "gone.pth", "--record", "../x"]
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert sentences(err) == [
        "dsna evaluate: error: a result named '../x' would lie outside the folder results; choose another name"
    ]
