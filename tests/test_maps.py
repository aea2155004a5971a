"""Map normalization and Eq. 11 against NumPy; one forward pass a batch for all maps."""

from __future__ import annotations

import numpy as np
import numpy_reference as reference
import pytest
import tiny
import torch
from torch.nn import functional

from dsna_lib import maps
from dsna_lib.attention import (
    AttentionModel,
    AttentionOutput,
    ConventionalAttention,
    ModelConfig,
    SingleStreamAttention,
    create,
)
from dsna_lib.data import PictureError, transforms
from dsna_lib.engine.errors import SettingError


def triple(seed: int, c: int = 4, h: int = 3, w: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    a = rng.random((c, h, w))
    a /= a.sum(axis=(1, 2), keepdims=True)
    return torch.tensor(a), torch.tensor(rng.normal(size=(c, h, w))), torch.tensor(rng.normal(size=c) * 2)


def test_min_max_by_hand():
    got = maps.min_max(torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[-4.0, 0.0], [-2.0, -3.0]]]))
    torch.testing.assert_close(got, torch.tensor([[[0, 0.25], [0.5, 1]], [[0, 1.0], [0.5, 0.25]]]))


@pytest.mark.parametrize("value", [0.0, 0.3, -7.0, 1e30])
def test_a_constant_map_gives_zeros(value):
    assert torch.equal(maps.min_max(torch.full((2, 3, 4), value)), torch.zeros(2, 3, 4))


def test_positive_part_by_hand():
    got = maps.positive_part(torch.tensor([[[-1.0, 2.0], [4.0, 0.0]], [[-1.0, -2.0], [-4.0, -3.0]]]))
    torch.testing.assert_close(got, torch.tensor([[[0, 0.5], [1, 0]], [[0.0, 0], [0, 0]]]))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("normalize", ["positive_part", "min_max"])
@pytest.mark.parametrize("present", [None, (0, 2), (3,)])
def test_merge_is_eq_11(seed, normalize, present):
    a, s, p = triple(seed)
    mask = None if present is None else torch.tensor([k in present for k in range(4)])
    got = maps.merge(a, s, p, mask, getattr(maps, normalize))
    want = reference.merged(a.numpy(), s.numpy(), p.numpy(), present, getattr(reference, normalize))
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert 0 <= got.min() <= got.max() <= 1


def test_merge_over_present_classes_gives_one_label_the_expansive_map():
    a, s, p = triple(0)
    got = maps.merge(a, s, p, torch.tensor([0, 1, 0, 0]))
    torch.testing.assert_close(got[1], maps.min_max(a)[1])
    torch.testing.assert_close(got[0], maps.positive_part(s)[0])


def test_merge_does_not_care_whether_its_input_is_normalized_already():
    a, s, p = triple(1)
    torch.testing.assert_close(
        maps.merge(maps.min_max(a), maps.positive_part(s), p), maps.merge(a, s, p), atol=1e-12, rtol=0
    )


def test_merge_takes_batches():
    parts = [triple(seed) for seed in (0, 1)]
    batched = maps.merge(*(torch.stack(column) for column in zip(*parts, strict=True)))
    for k, part in enumerate(parts):
        torch.testing.assert_close(batched[k], maps.merge(*part))


@pytest.mark.parametrize("shapes", [((3, 2, 2), (3, 2, 3), (3,)), ((3, 2, 2), (3, 2, 2), (4,))])
def test_merge_refuses_shapes_that_do_not_belong_together(shapes):
    with pytest.raises(ValueError, match=r"must have one shape \(..., C, h, w\)"):
        maps.merge(*(torch.zeros(shape) for shape in shapes))


def test_score_weight_sums_to_one():
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(maps.score_weight(scores).sum(dim=-1), torch.ones(2))
    weight = maps.score_weight(scores, torch.tensor([[True, True, False], [False, False, True]]))
    torch.testing.assert_close(weight, torch.tensor([[0.26894142, 0.73105858, 0], [0, 0, 1]]))
    assert maps.score_weight(scores, torch.zeros(2, 3)).tolist() == [[0, 0, 0]] * 2


def test_a_single_class_is_weighted_by_its_sigmoid():
    scores = torch.tensor([[0.0], [-2.0]])
    expected = torch.tensor([[0.5], [0.11920292]])
    torch.testing.assert_close(maps.score_weight(scores), expected)
    torch.testing.assert_close(
        maps.score_weight(scores, torch.tensor([[True], [False]])), expected * torch.tensor([[1.0], [0]])
    )
    a, s = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    torch.testing.assert_close(maps.merge(a, s, scores[1]), torch.tensor([[[0.88079708, 0.11920292]]]))


def test_from_output_of_each_head():
    x = torch.randn(2, 8, 3, 5)
    decoupled = maps.from_output(tiny.model().head(x))
    assert set(decoupled) == set(maps.MAP_KINDS)
    conventional = maps.from_output(ConventionalAttention(8, 3)(x))
    assert set(conventional) == set(maps.MAP_KINDS)
    assert conventional["expansive"].shape == (2, 3, 3, 5)
    single = maps.from_output(SingleStreamAttention(8, 3).eval()(x))
    assert set(single) == {"discriminative"}
    for maps_of_head in (decoupled, conventional, single):
        for m in maps_of_head.values():
            assert m.dtype == torch.float32
            assert 0 <= m.min() <= m.max() <= 1


def test_from_output_of_half_precision():
    a, s, p = (t.bfloat16()[None] for t in triple(0))
    assert {m.dtype for m in maps.from_output(AttentionOutput(p, a, s)).values()} == {torch.float32}


@pytest.fixture
def pictures(tmp_path):
    return tiny.pictures(tmp_path, 7)


def test_similarities_are_cosines_of_all_pairs():
    planes = torch.tensor(np.random.default_rng(0).random((4, 3, 5)))
    flat = planes.flatten(1).numpy()
    expected = [
        flat[i] @ flat[j] / np.linalg.norm(flat[i]) / np.linalg.norm(flat[j]) for i in range(4) for j in range(i + 1, 4)
    ]
    np.testing.assert_allclose(maps.similarities(planes), expected)
    assert maps.similarities(planes[:1]).shape == (0,)
    assert maps.similarities(torch.stack([planes[0], 0 * planes[0]])).item() == 0


def test_every_map_comes_from_one_forward_pass_in_order(pictures):
    model = tiny.model()
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    made = list(maps.iterate_maps(model, pictures, size=32, batch_size=3))
    assert [picture.index for picture in made] == list(range(7))
    assert len(calls) == 3  # 3 + 3 + 1 pictures
    for k, picture in enumerate(made):
        assert picture.size == (20 + k, 26)
        assert set(picture.maps) == set(maps.MAP_KINDS)
        assert all(m.shape == (3, 8, 8) for m in picture.maps.values())
        assert picture.features.shape == (8, 8, 8)
        again = model.head(picture.features[None].clone())
        torch.testing.assert_close(picture.maps["merged"], maps.from_output(again)["merged"][0])
        torch.testing.assert_close(picture.scores, again.scores[0])


def test_the_order_asked_for_is_kept(pictures):
    assert [f.index for f in maps.iterate_maps(tiny.model(), pictures, [5, 0, 3], 32, 2)] == [5, 0, 3]
    assert list(maps.iterate_maps(tiny.model(), pictures, [], 32)) == []


def test_training_transform_and_mode_are_ignored(pictures):
    model = tiny.model().train()
    plain = next(maps.iterate_maps(model, pictures, size=32))
    random = next(maps.iterate_maps(model.train(), pictures.with_transform(lambda image: image * 0), size=32))
    torch.testing.assert_close(plain.maps, random.maps)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_pictures_are_collected_and_the_rest_goes_on(pictures, workers):
    pictures.records[0].image.write_bytes(b"")
    pictures.records[1].image.unlink()
    pictures.records[4].image.write_bytes(b"no picture")
    failed = {}
    made = list(maps.iterate_maps(tiny.model(), pictures, size=32, batch_size=2, workers=workers, failed=failed))
    assert [picture.index for picture in made] == [2, 3, 5, 6]
    assert sorted(failed) == ["p00", "p01", "p04"]
    assert all(f"{i}.png" in reason for i, reason in failed.items())
    assert "no such picture" in failed["p01"]


def test_unreadable_pictures_raise_without_a_place_for_failures(pictures):
    pictures.records[2].image.unlink()
    with pytest.raises(PictureError, match="p02.png: no such picture"):
        list(maps.iterate_maps(tiny.model(), pictures, size=32))


def test_half_precision_is_close(pictures):
    full = next(maps.iterate_maps(tiny.model(), pictures, size=32))
    half = next(maps.iterate_maps(tiny.model(), pictures, size=32, precision="bf16"))
    assert half.features.dtype == half.scores.dtype == torch.float32
    torch.testing.assert_close(half.scores, full.scores, atol=0.05, rtol=0.05)


def test_out_of_memory_says_what_to_lower(pictures):
    class Hungry(AttentionModel):
        def forward(self, pictures):
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = tiny.model()
    with pytest.raises(
        RuntimeError, match="memory with 4 pictures of 32 pixels; lower `batch_size`, `size` or `scales`"
    ):
        next(maps.iterate_maps(Hungry(model.backbone, model.head), pictures, size=32, batch_size=4))


def test_another_maker_makes_the_maps(pictures):
    model, seen = tiny.model(), []

    def maker(network, batch, present):
        seen.append(present)
        output = network(batch)
        return output, {"own": output.discriminative * present[..., None, None]}

    made = list(maps.iterate_maps(model, pictures, size=24, batch_size=3, maker=maker))
    torch.testing.assert_close(torch.cat(seen).float(), pictures.targets())
    for picture in made:
        assert list(picture.maps) == ["own"]
        absent = [c for c in range(len(tiny.NAMES)) if c not in pictures.records[picture.index].labels]
        assert picture.maps["own"][absent].abs().sum() == 0
        assert picture.maps["own"].abs().sum() > 0


def test_a_maker_may_take_gradients(pictures):
    def maker(network, batch, present):
        output = network(batch)
        with torch.enable_grad():
            x = output.features.clone().requires_grad_()
            (slope,) = torch.autograd.grad(network.head(x).scores.sum(), x)
        return output, {"slope": slope}

    picture = next(maps.iterate_maps(tiny.model(), pictures, size=24, maker=maker))
    assert picture.maps["slope"].abs().sum() > 0


def test_several_scales_and_mirror_images_are_averaged_on_the_first_grid(pictures):
    """Against one pass a view, put together by hand."""
    model, scales = tiny.model(), (1.0, 1.5)
    made = next(maps.iterate_maps(model, pictures, size=32, scales=scales, flip=True))
    image, expected = pictures[0]["image"], []
    for scale in scales:
        shown = transforms.inference(round(32 * scale))(image)[None]
        for mirrored in (False, True):
            output, own = maps.attention_maps(model, shown.flip(-1) if mirrored else shown, torch.ones(1, 3))
            own |= {"features": output.features}
            turned = {kind: grid.flip(-1) if mirrored else grid for kind, grid in own.items()}
            small = {kind: functional.interpolate(grid, (8, 8), mode="bilinear") for kind, grid in turned.items()}
            expected.append(small | {"scores": output.scores})
    mean = {name: torch.stack([view[name] for view in expected]).mean(dim=0)[0].detach() for name in expected[0]}
    for name, own in (made.maps | {"features": made.features, "scores": made.scores}).items():
        torch.testing.assert_close(own, mean[name], msg=name)
    plain = next(maps.iterate_maps(model, pictures, size=32))
    assert not torch.allclose(made.maps["merged"], plain.maps["merged"])


def test_the_first_scale_sets_the_grid(pictures):
    grids = [
        next(maps.iterate_maps(tiny.model(), pictures, size=32, scales=s)).features.shape for s in ((1, 2), (2, 1))
    ]
    assert grids == [(8, 8, 8), (8, 16, 16)]


def test_pictures_of_other_classes_are_refused(pictures):
    model = create(ModelConfig(("cat", "dog"), "vgg16", weights=None))
    message = r"the model knows 2 classes \(cat, dog, ...\), the pictures have 3 classes \(red, green, blue, ...\)"
    with pytest.raises(SettingError, match=message):
        next(maps.iterate_maps(model, pictures, size=32))


def test_a_size_that_the_backbone_cannot_take_is_one_sentence(pictures):
    model = create(ModelConfig(tiny.NAMES, "vgg16", weights=None))
    with pytest.raises(SettingError, match="vgg16 makes no features of 8 x 8 pixels"):
        next(maps.iterate_maps(model, pictures, size=8))
