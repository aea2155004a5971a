"""``dsna maps`` and ``dsna annotate``."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import KINDS, SIZE, picture, sentences
from PIL import Image

from dsna_lib import attention, checkpoints, crf
from dsna_lib.config import recipe
from dsna_lib.data import read_mask, voc
from dsna_lib.engine import cluster, files, pools
from dsna_lib.engine.files import read_json
from dsna_lib.engine.pools import Workers


def test_maps_of_a_data_set(run, original, model_file):
    words = ["maps", "--data", "voc", "--root", original, "--model", model_file, *SIZE, "--json"]
    code, out, _ = run(*words)
    assert code == 0
    assert json.loads(out) == {"done": 4, "folder": "maps", "written": 4, "skipped": 0, "failed": {}}
    with np.load("maps/two.npz") as two:
        assert two["classes"].tolist() == ["dog", "person"]
        assert two["class_names"].tolist() == list(voc.CLASS_NAMES)
        assert two["scores"].shape == (20,)
        assert two["size"].tolist() == [40, 56]
        for kind in KINDS:
            assert two[kind].shape == (2, 4, 4)
            assert two[kind].dtype == np.float16
            assert 0 <= two[kind].min() <= two[kind].max() <= 1
        assert two["expansive"].max() == 1
    Path("maps/two.npz").unlink()
    code, out, _ = run(*words)
    assert (json.loads(out)["written"], json.loads(out)["skipped"]) == (1, 3)
    code, _, err = run(*words, "--all-classes")  # what is there holds fewer classes
    assert code == 3
    assert "maps was made with classes 'present', not 'all'; use another folder or delete it" in err


def test_maps_of_pictures(run, model_file, tmp_path):
    good = picture(tmp_path / "good.png")
    code, _, err = run("maps", good, tmp_path / "gone.png", "--model", model_file, *SIZE, "--dtype", "float32")
    assert code == 1
    assert sentences(err) == [f"dsna maps: gone: {tmp_path / 'gone.png'}: no such picture"]
    with np.load("maps/good.npz") as maps:
        assert maps["merged"].shape == (20, 4, 4)
        assert maps["merged"].dtype == np.float32
    assert run("maps", good, "--labels", "cat", "--model", model_file, *SIZE)[0] == 0
    with np.load("maps/good.npz") as maps:
        assert maps["merged"].shape == (1, 4, 4)


def test_annotate_writes_everything(annotate, tmp_path):
    path = picture(tmp_path / "photo.jpg")
    code, out, err = annotate(path, "--labels", "cat, person", "--json")
    assert code == 0, err
    (shown,) = json.loads(out)["pictures"]
    views = {f"{name}_{kind}.png" for name in ("cat", "person") for kind in KINDS} | {"overlay.png"}
    folder = Path("annotations/photo")
    assert {p.name for p in folder.iterdir()} == views | {"annotation.png", "annotation_crf.png"}
    for name in views:
        with Image.open(folder / name) as view:
            assert (view.size, view.mode) == ((56, 40), "RGB")
    allowed = {0, voc.CLASS_NAMES.index("cat") + 1, voc.CLASS_NAMES.index("person") + 1}
    before, after = read_mask(folder / "annotation.png", (40, 56)), read_mask(folder / "annotation_crf.png", (40, 56))
    assert set(np.unique(before)) <= allowed | {255}
    assert set(np.unique(after)) <= allowed
    assert shown["labels"] == ["cat", "person"]
    assert sum(shown["share"].values()) == pytest.approx(1, abs=1e-3)
    assert shown["share"]["void"] == pytest.approx((before == 255).mean(), abs=1e-3)
    assert shown["share_crf"]["cat"] == pytest.approx((after == 8).mean(), abs=1e-3)
    assert all(0 < p < 1 for p in shown["probability"].values())
    code, out, _ = annotate(path, "--labels", "dog", "--no-crf")
    assert code == 0
    assert "dog" in out
    assert "sure" in out
    assert {p.name for p in folder.iterdir()} == {
        "dog_expansive.png", "dog_discriminative.png", "dog_merged.png", "annotation.png", "overlay.png"
    }  # fmt: skip


def test_annotate_uses_the_shipped_model(run, model_file, tmp_path, monkeypatch):
    path = picture(tmp_path / "photo.png")
    monkeypatch.setattr(checkpoints, "ATTENTION", model_file)
    assert run("annotate", path, "--labels", "cat", "--no-crf", *SIZE)[0] == 0
    assert Path("annotations/photo/cat_merged.png").is_file()
    monkeypatch.setattr(checkpoints, "ATTENTION", tmp_path / "gone.pth")
    code, _, err = run("annotate", path, "--labels", "cat")
    assert code == 3
    assert "pass --model FILE" in err


def test_annotate_guesses_labels_only_when_asked(annotate, tmp_path):
    path = picture(tmp_path / "photo.png")
    code, _, err = annotate(path)
    assert code == 2
    assert "labels are needed" in err
    code, out, _ = annotate(path, "--labels", "auto", "--no-crf")
    assert code == 0
    assert "predicted" in out
    code, out, _ = annotate(path, "--labels", "auto", "--no-crf", "--json")
    assert json.loads(out)["labels_predicted"] is True
    assert json.loads(out)["pictures"][0]["labels"]


@pytest.mark.parametrize(
    "labels, named",
    [
        ("kat", ["unknown class 'kat'", "did you mean 'cat'", "aeroplane", "tvmonitor"]),
        ("unicorns", ["unknown class 'unicorns'", "aeroplane"]),
        ("", ["--labels is empty", "aeroplane"]),
        (" , ", ["--labels is empty", "aeroplane"]),
    ],
)
def test_unknown_and_missing_classes(annotate, tmp_path, labels, named):
    code, _, err = annotate(picture(tmp_path / "photo.png"), "--labels", labels)
    assert code == 2
    assert len(sentences(err)) == 1
    for words in named:
        assert words in err
    assert not Path("annotations").exists()


def form_rgba(path):
    return picture(path.with_suffix(".png"), mode="RGBA")


def form_grey(path):
    return picture(path.with_suffix(".png"), mode="L")


def form_cmyk(path):
    return picture(path.with_suffix(".jpg"), mode="CMYK")


def form_16_bit(path):
    values = np.linspace(0, 65535, 40 * 56).reshape(40, 56).astype(np.uint16)
    Image.fromarray(values).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def form_palette(path):
    return picture(path.with_suffix(".gif"), mode="P")


def form_rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: 40 x 56 pixels on disk are shown as 56 x 40
    return picture(path.with_suffix(".jpg"), size=(40, 56), exif=exif)


@pytest.mark.parametrize("form", [form_rgba, form_grey, form_cmyk, form_16_bit, form_palette, form_rotated])
def test_forms_of_pictures(annotate, tmp_path, form):
    path = form(tmp_path / "photo")
    code, _, err = annotate(path, "--labels", "cat")
    assert code == 0, err
    for name in ("annotation", "annotation_crf", "overlay"):
        with Image.open(f"annotations/photo/{name}.png") as made:
            assert made.size == (56, 40)


def test_one_pixel(annotate, tmp_path):
    code, _, err = annotate(picture(tmp_path / "dot.png", (1, 1)), "--labels", "cat,dog")
    assert code == 0, err
    assert read_mask("annotations/dot/annotation.png").shape == (1, 1)
    assert read_mask("annotations/dot/annotation_crf.png").shape == (1, 1)


def test_20_megapixels(annotate, tmp_path):
    Image.new("RGB", (5472, 3648), "gray").save(tmp_path / "large.jpg")
    code, out, err = annotate(tmp_path / "large.jpg", "--labels", "cat", "--json", "--max-side", 300)
    assert code == 0, err
    assert json.loads(out)["pictures"][0]["crf_size"] == [300, 200]
    folder = Path("annotations/large")
    assert read_mask(folder / "annotation.png").shape == read_mask(folder / "annotation_crf.png").shape == (3648, 5472)
    with Image.open(folder / "cat_merged.png") as view:
        assert view.size == (300, 200)


def test_bad_pictures_are_named_and_the_others_done(annotate, tmp_path):
    good, last = picture(tmp_path / "good.png"), picture(tmp_path / "last.png")
    cut = picture(tmp_path / "cut.jpg")
    cut.write_bytes(cut.read_bytes()[:700])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    bad = [tmp_path / "gone.jpg", cut, tmp_path / "text.jpg", tmp_path / "empty.png"]
    code, out, err = annotate(good, *bad, last, "--labels", "cat", "--no-crf", "--json")
    assert code == 1
    result = json.loads(out)
    assert [shown["picture"] for shown in result["pictures"]] == [str(good), str(last)]
    assert result["failed"].keys() == {"gone", "cut", "text", "empty"}
    assert len(sentences(err)) == 4
    for path in bad:
        assert sum(str(path) in line for line in sentences(err)) == 1
    assert Path("annotations/last/annotation.png").is_file()
    assert annotate(*bad, "--labels", "cat", "--no-crf")[0] == 3  # nothing could be done


def test_a_picture_twice_and_two_of_one_stem(annotate, tmp_path):
    path = picture(tmp_path / "photo.png")
    code, out, _ = annotate(path, path, "photo.png", "--labels", "cat", "--no-crf", "--json")
    assert (code, len(json.loads(out)["pictures"])) == (0, 1)
    other = picture(tmp_path / "photo.jpg")
    code, _, err = annotate(path, other, "--labels", "cat")
    assert code == 2
    assert str(path) in err
    assert str(other) in err


def test_no_pydensecrf(annotate, tmp_path, without_pydensecrf):
    paths = [picture(tmp_path / name) for name in ("a.png", "b.png")]
    code, _, err = annotate(*paths, "--labels", "cat", "--crf-backend", "pydensecrf")
    assert code == 3
    assert len(sentences(err)) == 1
    assert "let PyTorch compute the dense CRF (--crf-backend torch)" in err
    assert not Path("annotations").exists()
    assert annotate(*paths, "--labels", "cat", "--crf-backend", "pydensecrf", "--no-crf")[0] == 0
    assert annotate(*paths, "--labels", "cat")[0] == 0
    for name in ("a", "b"):
        assert Path(f"annotations/{name}/annotation_crf.png").is_file()


def test_full_disk(annotate, tmp_path, monkeypatch):
    good, second = picture(tmp_path / "good.png"), picture(tmp_path / "second.png")
    written = []

    def opened(path, mode):
        written.append(path)
        if len(written) <= 5:  # three heat maps, the overlay and the annotation of the first picture
            return open(path, mode)
        path.touch()
        return open("/dev/full", "wb")

    monkeypatch.setattr(files, "open", opened, raising=False)
    code, _, err = annotate(good, second, "--labels", "cat", "--no-crf")
    assert code == 3
    assert len(sentences(err)) == 1
    assert "No space left on device" in err
    assert "annotations/second/cat_expansive.png" in err
    assert read_mask("annotations/good/annotation.png").shape == (40, 56)
    assert list(Path("annotations/second").iterdir()) == []


def test_unwritable_folder(annotate, tmp_path):
    good, other = picture(tmp_path / "good.png"), picture(tmp_path / "other.png")
    Path("file").touch()
    for out in ("file", "file/inside"):
        code, _, err = annotate(good, "--labels", "cat", "--out", out)
        assert code == 3
        assert f"cannot write into the folder {out}" in err
    Path("annotations").mkdir()
    Path("annotations/good").touch()  # only this picture's folder is in the way
    code, _, err = annotate(good, other, "--labels", "cat", "--no-crf")
    assert code == 1
    assert "annotations/good" in err
    assert Path("annotations/other/annotation.png").is_file()


def test_bad_checkpoints(run, model_file, original, tmp_path):
    path = picture(tmp_path / "photo.png")
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "cut.pth").write_bytes(model_file.read_bytes()[:5000])
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name, words in (
        ("gone.pth", "no such weight file"),
        ("text.pth", "is no PyTorch checkpoint"),
        ("cut.pth", "is no PyTorch checkpoint, or a truncated one"),
        ("other.pth", "is a checkpoint, but no model file of this book"),
    ):
        code, _, err = run("annotate", path, "--labels", "cat", "--model", tmp_path / name)
        assert code == 3
        assert len(sentences(err)) == 1
        assert f"{tmp_path / name}: {words}" in err
    two = attention.create(attention.ModelConfig(("cat", "dog"), weights=None))
    attention.save(two, tmp_path / "two.pth")
    code, _, err = run("annotate", "--data", "voc", "--root", original, "--model", tmp_path / "two.pth")
    assert code == 3
    assert "knows 2 classes (cat, dog, ...), the data has 20 (aeroplane" in err


def test_no_gpu(run, model_file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = picture(tmp_path / "photo.png")
    code, _, err = run("annotate", path, "--labels", "cat", "--model", model_file, "--device", "cuda")
    assert code == 3
    assert sentences(err) == [
        "dsna annotate: error: a GPU was asked for, but this machine shows no GPU; use --device cpu"
    ]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_out_of_memory(annotate, tmp_path, monkeypatch, error):
    def starve(*_):
        raise error

    monkeypatch.setattr(attention.AttentionModel, "forward", starve)
    code, _, err = annotate(picture(tmp_path / "photo.png"), "--labels", "cat")
    assert code == 3
    assert "out of memory" in err
    assert "lower --batch-size" in err


def test_after_out_of_memory_the_same_folder_takes_a_smaller_size(run, original, model_file, monkeypatch):
    words = ["maps", "--data", "voc", "--root", original, "--model", model_file, "--device", "cpu", "--size"]
    code, _, err = run(*words, 1_000_000)
    assert (code, len(sentences(err))) == (2, 1)
    assert "would have more than 32,768; lower --size" in err
    with monkeypatch.context() as patch:
        patch.setattr(attention.AttentionModel, "forward", starving)
        code, _, err = run(*words, 64)
    assert (code, len(sentences(err))) == (3, 1)
    assert "out of memory: lower --batch-size or --size or --scales" in err
    assert run(*words, 32)[0] == 0
    assert "maps was made with size 32, not 48" in run(*words, 48)[2]


def starving(*_):
    raise MemoryError


def test_out_of_memory_in_the_crf_names_the_picture(annotate, tmp_path, monkeypatch):
    def refine(image, *_):
        if image.shape[0] == 40:
            raise MemoryError
        return np.zeros(image.shape[:2], np.uint8)

    monkeypatch.setattr(crf, "refine", refine)
    paths = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", (30, 30))]
    code, _, err = annotate(*paths, "--labels", "cat")
    assert code == 1
    assert "dsna annotate: a: out of memory: lower" in err
    assert "--max-side" in err
    assert Path("annotations/b/annotation_crf.png").is_file()


def test_annotate_a_data_set_and_evaluate_it(run, on_voc, original):
    words = ["annotate", original, "--split", "val", "--kinds", "merged,expansive", "--json"]
    code, out, err = on_voc(*words)
    assert code == 0, err
    assert json.loads(out) == {
        "done": 4, "folder": "annotations", "kinds": ["merged", "expansive", "merged_crf"],
        "written": 4, "skipped": 0, "failed": {},
    }  # fmt: skip
    for kind in ("merged", "expansive", "merged_crf"):
        assert len(list(Path("annotations", kind).glob("*.png"))) == 4
    code, out, _ = on_voc(*words)
    assert (json.loads(out)["written"], json.loads(out)["skipped"]) == (0, 4)

    data = ["--data", "voc", "--root", original, "--split", "val"]
    code, out, _ = run("evaluate", "annotations/merged_crf", *data, "--json")
    assert code == 0
    row = json.loads(out)["rows"]["merged_crf"]
    assert 0 <= row["iou"] <= 100
    assert row["per_class"]["sheep"]["iou"] is None
    code, out, _ = run("evaluate", original / "SegmentationClass", *data, "--per-class")
    assert code == 0
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert lines["SegmentationClass"] == ["100.0"] * 3
    assert lines["cat"] == ["100.0"] * 3
    assert lines["sheep"] == ["nan"] * 3


@pytest.mark.parametrize("command", ["annotate", "maps"])
def test_a_scale_beyond_all_memory_is_named(on_voc, original, command):
    code, _, err = on_voc(command, original, "--scales", "1,1e308")
    assert code == 2
    assert "at scale 1e+308 a picture of 64 pixels a side would have more than 32,768; lower --scales" in err


def test_which_annotations_are_refined(on_voc, original):
    words = ["annotate", original, "--split", "val", "--kinds", "merged,expansive", "--out", "made", "--json"]
    code, out, err = on_voc(*words, "--refine", "expansive,merged")
    assert code == 0, err
    assert json.loads(out)["kinds"] == ["merged", "expansive", "expansive_crf", "merged_crf"]
    for kind in ("expansive", "merged"):
        assert len(list(Path("made", f"{kind}_crf").glob("*.png"))) == 4
    code, _, err = on_voc("annotate", original, "--out", "other", "--refine", "discriminative")
    assert code == 2
    assert "--refine discriminative: choose of what is made, merged" in err
    assert not Path("other").exists()


def test_another_model_does_not_go_on_in_the_folder(run, on_voc, original, tmp_path):
    assert on_voc("annotate", original, "--no-crf")[0] == 0
    attention.save(attention.create(attention.ModelConfig(voc.CLASS_NAMES, weights=None)), "other.pth")
    words = ["annotate", "--data", "voc", "--root", original, "--no-crf", *SIZE]
    code, _, err = run(*words, "--model", "other.pth")
    assert code == 3
    assert "annotations was made with model" in err
    assert on_voc("annotate", original, "--crf", "sec")[0] == 0
    code, _, err = on_voc("annotate", original, "--crf", "deeplab")
    assert code == 3
    assert "merged_crf was made with crf 'sec', not 'deeplab'" in err


def change_a_picture(root: Path) -> None:
    picture(root / "JPEGImages/two.jpg", (56, 40))


def change_a_label(root: Path) -> None:
    table = json.loads((root / "image_labels.json").read_text())
    (root / "image_labels.json").write_text(json.dumps(table | {"two": ["sheep"]}))


def contents(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*.[pn][np][gz]")}


@pytest.mark.parametrize("change", [change_a_picture, change_a_label])
@pytest.mark.parametrize("words", [["annotate", "--split", "val"], ["maps"], ["evaluate"]])
def test_what_was_made_of_other_data_is_made_again(on_voc, root, words, change):
    words = [words[0], root, *words[1:]]
    code, _, err = on_voc(*words, "--out", "out")
    assert code == 0, err
    before = contents("out")
    change(root)
    code, out, _ = on_voc(*words, "--out", "out")
    assert code == 0
    if words[0] != "evaluate":
        said = "1 were made again, for they were not of these pictures and labels: two"
        assert out.splitlines()[-1].endswith(f"1 written, 3 were there, 0 failed; {said}")
    assert on_voc(*words, "--out", "whole")[0] == 0
    assert contents("out") == contents("whole") != before
    code, out, _ = on_voc(*words, "--out", "out", "--json")
    assert "renewed" not in json.loads(out)


def test_maps_of_all_classes_do_not_depend_on_labels(on_voc, root):
    assert on_voc("maps", root, "--all-classes")[0] == 0
    change_a_label(root)
    _, out, _ = on_voc("maps", root, "--all-classes", "--json")
    assert (json.loads(out)["written"], json.loads(out)["skipped"]) == (0, 4)


@pytest.mark.parametrize("command, name", [("annotate", "merged/two.png"), ("annotate", "merged_crf/two.png"),
                                           ("maps", "two.npz")])  # fmt: skip
def test_a_file_that_was_cut_short_is_not_there(on_voc, original, command, name):
    assert on_voc(command, original, "--out", "out")[0] == 0
    before = (Path("out") / name).read_bytes()
    for size in (0, len(before) // 2):
        (Path("out") / name).write_bytes(before[:size])
        assert on_voc(command, original, "--out", "out")[0] == 0
        assert (Path("out") / name).read_bytes() == before


def test_bad_pictures_of_a_data_set(on_voc, root):
    (root / "JPEGImages/one.jpg").unlink()
    (root / "JPEGImages/three.jpg").write_bytes(b"\xff\xd8 no more")
    code, out, err = on_voc("annotate", root, "--json")
    assert code == 1
    assert json.loads(out)["failed"].keys() == {"one", "three"}
    assert {path.stem for path in Path("annotations/merged_crf").glob("*.png")} == {"two", "four"}
    assert "one.jpg: no such picture" in err
    code, out, err = on_voc("evaluate", root, "--json")
    assert code == 1
    assert json.loads(out)["done"] == 2
    assert "three.jpg: cannot be read" in err


def test_no_pydensecrf_for_a_data_set(on_voc, original, without_pydensecrf):
    for command in ("annotate", "evaluate"):
        code, _, err = on_voc(command, original, "--crf", "sec", "--crf-backend", "pydensecrf")
        assert code == 3
        assert "let PyTorch compute the dense CRF (--crf-backend torch)" in err
    assert not Path("annotations").exists()
    assert on_voc("annotate", original)[0] == 0
    assert len(list(Path("annotations/merged_crf").glob("*.png"))) == 4
    code, out, _ = on_voc("evaluate", original, "--crf", "sec", "--json")
    assert code == 0
    assert "merged_crf" in json.loads(out)["rows"]


@pytest.mark.parametrize(
    "command, words, named",
    [
        ("annotate", ["--split", "vall"], "no split 'vall' here; there is train, val"),
        ("annotate", ["--kinds", "merged,best"], "this model has expansive, discriminative, merged"),
        ("annotate", ["--kinds", ""], "this model has"),
        ("evaluate", ["--kinds", "best"], "this model has"),
    ],
)
def test_unknown_split_and_kind(on_voc, original, command, words, named):
    code, _, err = on_voc(command, original, *words)
    assert code == 2
    assert named in err


def test_thresholds_are_the_papers_unless_one_is_given(on_voc, annotate, original, monkeypatch):
    from dsna_lib import annotate as library

    asked, real = [], library.annotate_labeled

    def spy(maps, features, labels, size, foreground_threshold=0.2, *others):
        asked.append(foreground_threshold)
        return real(maps, features, labels, size, foreground_threshold, *others)

    monkeypatch.setattr(library, "annotate_labeled", spy)
    path = original / "JPEGImages/one.jpg"
    for words in ([], ["--foreground-threshold", 0.7]):
        assert annotate(path, "--labels", "cat", "--no-crf", *words)[0] == 0
        assert on_voc("annotate", original, "--no-crf", "--limit", 1, "--out", f"of{len(words)}", *words)[0] == 0
    assert asked == [0.2, 0.2, 0.7, 0.7]
    code, _, err = on_voc("annotate", original, "--no-crf", "--out", "of0", "--foreground-threshold", 0.7)
    assert code == 3
    assert "of0 was made with foreground_threshold 0.2, not 0.7" in err


def test_pictures_are_shown_as_the_recipe_of_the_shipped_model_has_it(on_voc, annotate, original, monkeypatch):
    from dsna_lib.cli import pictures

    asked, real = [], pictures.iterate_maps

    def spy(*given, scales, flip, **more):
        asked.append((scales, flip))
        return real(*given, scales=scales, flip=flip, **more)

    monkeypatch.setattr(pictures, "iterate_maps", spy)
    for words in ([], ["--scales", "1"]):
        assert annotate(original / "JPEGImages/one.jpg", "--labels", "cat", "--no-crf", *words)[0] == 0
    usual = recipe.load("photographs-cpu").maps
    assert usual == pictures.SHOWN
    assert asked == [(usual.scales, usual.flip), ((1.0,), usual.flip)]


def test_a_folder_says_what_made_it(on_voc, original, root):
    assert on_voc("annotate", original)[0] == 0
    made, refined = (read_json(Path("annotations", name)) for name in ("run.json", "merged_crf/run.json"))
    assert (made["stage"], made["state"], made["metrics"]) == ("annotate", "finished", {"pictures": 4})
    assert made["identity"].keys() == {"model", "size", "scales", "flip", "precision", "foreground_threshold"}
    assert (refined["stage"], refined["state"]) == ("refine", "finished")
    assert refined["identity"] == {"crf": "sec", "tau": 0.7}
    assert not list(Path("annotations").rglob("made_by.json"))
    (root / "JPEGImages/one.jpg").unlink()
    assert on_voc("annotate", root, "--out", "other")[0] == 1
    assert read_json("other/run.json")["state"] == "running"


def test_two_processes_do_what_one_does(on_voc, original, monkeypatch):
    monkeypatch.setattr(pools, "SHARE", 2)
    assert on_voc("annotate", original, "--batch-size", 1, "--out", "one")[0] == 0
    code, out, err = on_voc("annotate", original, "--batch-size", 1, "--out", "two", "--jobs", 2, "--json")
    assert code == 0, err
    assert json.loads(out)["written"] == 4
    for kind in ("merged", "merged_crf"):
        names = sorted(path.name for path in Path("one", kind).glob("*.png"))
        assert len(names) == 4
        for name in names:
            assert Path("one", kind, name).read_bytes() == Path("two", kind, name).read_bytes()


@pytest.mark.parametrize(
    "words, who", [(["--jobs", 3], Workers(3)), (["--scheduler", "tcp://far:1"], Workers(1, "tcp://far:1"))]
)
def test_shares_go_to_the_workers(on_voc, original, executor, words, who):
    """Maps, annotations and the CRF: as many shares as there are pictures, with the same files as without."""
    for command, more in (("maps", ["--all-classes"]), ("annotate", ["--batch-size", 1])):
        code, out, err = on_voc(command, original, *more, "--batch-size", 1, *words, "--json")
        assert code == 0, err
        assert json.loads(out)["written"] == 4
    assert executor == [who] * 3
    assert len(list(Path("maps").glob("*.npz"))) == len(list(Path("annotations/merged_crf").glob("*.png"))) == 4


def test_a_scheduler_that_does_not_answer(on_voc, original, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_WITHIN", 0.5)
    code, out, err = on_voc("annotate", original, "--scheduler", "tcp://127.0.0.1:9")
    assert (code, out) == (3, "")
    (said,) = sentences(err)
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in said
    assert "start one with dask scheduler, or leave out --scheduler" in said
