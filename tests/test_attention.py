"""The attention heads against the paper's equations in NumPy, their gradients, dropout, and model files."""

from __future__ import annotations

import math

import numpy as np
import numpy_reference as reference
import pytest
import tiny
import torch

from dsna_lib import attention, backbones
from dsna_lib.attention import (
    AttentionModel,
    AttentionOutput,
    ConventionalAttention,
    DecoupledAttention,
    ModelConfig,
    SingleStreamAttention,
    classification_loss,
)
from dsna_lib.backbones import CheckpointError

SHAPES = [(0, 1, 4, 3, 3, 5), (1, 2, 5, 2, 6, 2), (2, 3, 3, 4, 1, 1), (3, 2, 6, 1, 4, 7)]


def weights(convolution: torch.nn.Conv2d) -> tuple[np.ndarray, np.ndarray]:
    return convolution.weight.detach().numpy()[:, :, 0, 0], convolution.bias.detach().numpy()


def random_features(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


@pytest.mark.parametrize("seed, n, d, c, h, w", SHAPES)
def test_conventional_is_eq_1_to_4(seed, n, d, c, h, w):
    torch.manual_seed(seed)
    head = ConventionalAttention(d, c).double()
    x = random_features(seed, n, d, h, w)
    out = head(x)
    assert out.expansive.shape == (n, 1, h, w)
    assert out.discriminative.shape == (n, c, h, w)
    for k in range(n):
        scores, a = reference.conventional(x[k].numpy(), *weights(head.attention), *weights(head.classifier))
        np.testing.assert_allclose(out.scores[k].detach(), scores, rtol=1e-10)
        np.testing.assert_allclose(out.expansive[k].detach(), a, rtol=1e-10)
        dense = reference.dense_scores(x[k].numpy(), *weights(head.classifier))
        np.testing.assert_allclose(out.discriminative[k].detach(), dense, rtol=1e-9)


@pytest.mark.parametrize("seed, n, d, c, h, w", SHAPES)
@pytest.mark.parametrize("epsilon", [0.1, 0.7])
def test_decoupled_is_eq_5_to_9(seed, n, d, c, h, w, epsilon):
    torch.manual_seed(seed)
    head = DecoupledAttention(d, c, epsilon=epsilon).double().eval()
    x = random_features(seed, n, d, h, w)
    out = head(x)
    for k in range(n):
        scores, a, s = reference.decoupled(
            x[k].numpy(), *weights(head.expansive), *weights(head.discriminative), epsilon
        )
        np.testing.assert_allclose(out.scores[k].detach(), scores, rtol=1e-9)
        np.testing.assert_allclose(out.expansive[k].detach(), a, rtol=1e-10)
        np.testing.assert_allclose(out.discriminative[k].detach(), s, rtol=1e-9)


@pytest.mark.parametrize("seed, n, d, c, h, w", SHAPES)
def test_single_stream_is_the_spatial_mean(seed, n, d, c, h, w):
    torch.manual_seed(seed)
    head = SingleStreamAttention(d, c).double().eval()
    x = random_features(seed, n, d, h, w)
    out = head(x)
    assert out.expansive is None
    for k in range(n):
        scores, s = reference.single_stream(x[k].numpy(), *weights(head.discriminative))
        np.testing.assert_allclose(out.scores[k].detach(), scores, rtol=1e-9)
        np.testing.assert_allclose(out.discriminative[k].detach(), s, rtol=1e-9)


def test_decoupled_by_hand():
    """Two places, one channel: x = 0 and 2; expansive logits 0 and 2, scores 1 and -1."""
    head = DecoupledAttention(1, 1).eval()
    for parameter, value in zip(head.parameters(), (1.0, 0.0, -1.0, 1.0), strict=True):
        parameter.data.fill_(value)
    out = head(torch.tensor([0.0, 2.0]).view(1, 1, 1, 2))
    z = [math.log(2) + 0.1, math.log(1 + math.exp(2)) + 0.1]
    a = [z[0] / sum(z), z[1] / sum(z)]
    np.testing.assert_allclose(out.expansive.detach().ravel(), a, rtol=1e-6)
    np.testing.assert_allclose(out.discriminative.detach().ravel(), [1, -1], rtol=1e-6)
    assert out.scores.item() == pytest.approx(a[0] - a[1], rel=1e-5)


def test_conventional_by_hand_applies_attention_once():
    """Equal attention on 1 and 3 pools to their mean; applied twice it would be half of it."""
    head = ConventionalAttention(1, 1)
    for parameter, value in zip(head.parameters(), (0.0, 0.0, 1.0, 0.5), strict=True):
        parameter.data.fill_(value)
    out = head(torch.tensor([1.0, 3.0]).view(1, 1, 1, 2))
    assert out.expansive.ravel().tolist() == [0.5, 0.5]
    assert out.scores.item() == pytest.approx(2.5)


def test_extreme_logits_stay_finite_and_every_place_keeps_attention():
    head = DecoupledAttention(1, 1).eval()
    head.expansive.weight.data.fill_(1.0)
    a = head(torch.tensor([-1000.0, 0.0, 1000.0]).view(1, 1, 1, 3)).expansive
    assert torch.isfinite(a).all()
    assert (a > 0).all()
    assert a.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("make", [ConventionalAttention, DecoupledAttention, SingleStreamAttention])
def test_training_needs_no_float64(make):
    model = AttentionModel(tiny.backbone(), make(8, 3)).to("meta")
    with tiny.NoFloat64():
        output = model(torch.rand(2, 3, 32, 32, device="meta"))
        classification_loss(output.scores, torch.ones(2, 3, device="meta")).backward()
    assert all(each.grad.device.type == "meta" for each in model.parameters())


@pytest.mark.parametrize("make", [ConventionalAttention, DecoupledAttention, SingleStreamAttention])
def test_gradients(make):
    """Of scores and of both maps, with respect to the features and every parameter."""
    torch.manual_seed(0)
    head = make(3, 2).double().eval()
    names = [name for name, _ in head.named_parameters()]

    def outputs(x, *parameters):
        out = torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), (x,))
        return tuple(part for part in out if part is not None)

    x = random_features(0, 2, 3, 2, 3).requires_grad_()
    parameters = [p.detach().clone().requires_grad_() for p in head.parameters()]
    assert torch.autograd.gradcheck(outputs, (x, *parameters))


@pytest.mark.parametrize("dropout_after", ["convolution", "activation"])
def test_gradients_in_training_with_dropout_off(dropout_after):
    head = DecoupledAttention(3, 2, dropout=0.0, dropout_after=dropout_after).double().train()
    assert torch.autograd.gradcheck(lambda x: head(x)[:3], random_features(1, 1, 3, 2, 3).requires_grad_())


def test_the_loss_reaches_backbone_and_both_branches():
    model = tiny.model().train()
    out = model(torch.rand(2, 3, 16, 24))
    classification_loss(out.scores, torch.eye(3)[:2]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dropout_after", ["convolution", "activation"])
def test_dropout_acts_on_the_expansive_branch_only_and_in_training_only(dropout_after):
    torch.manual_seed(0)
    head = DecoupledAttention(6, 3, dropout=0.5, dropout_after=dropout_after)
    x = torch.rand(2, 6, 5, 4)
    head.eval()
    still, again = head(x), head(x)
    assert torch.equal(still.expansive, again.expansive)
    head.train()
    moving, other = head(x), head(x)
    assert not torch.equal(moving.expansive, other.expansive)
    assert not torch.allclose(moving.expansive, still.expansive)
    assert torch.equal(moving.discriminative, still.discriminative)
    torch.testing.assert_close(moving.expansive.sum(dim=(-2, -1)), torch.ones(2, 3))  # normalized after dropout


def test_dropout_is_element_wise():
    """Whole channels are not dropped together: within one channel some places fall and some stay."""
    torch.manual_seed(0)
    head = DecoupledAttention(4, 2).train()
    dropped = head.dropout_before(torch.ones(1, 4, 10, 10)) == 0
    share = dropped.float().mean(dim=(-2, -1))
    assert ((share > 0.2) & (share < 0.8)).all()


def test_the_two_places_of_dropout_differ():
    """After the convolution a dropped logit is 0, so z = log 2 + epsilon; after F a dropped z is 0."""
    x = torch.rand(1, 3, 8, 8)
    torch.manual_seed(0)
    before_f = DecoupledAttention(3, 1).train()(x).expansive
    torch.manual_seed(0)
    after_f = DecoupledAttention(3, 1, dropout_after="activation").train()(x).expansive
    assert (before_f > 0).all()
    assert 10 < (after_f == 0).sum() < 54
    torch.testing.assert_close(after_f.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("rate", [0.0, 1e-9])
def test_without_dropout_training_equals_inference(rate):
    head = DecoupledAttention(3, 2, dropout=rate)
    x = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(head.train()(x).scores, head.eval()(x).scores)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("make, channels", [(ConventionalAttention, 1), (DecoupledAttention, 4)])
def test_attention_sums_to_one_over_space(make, channels, mode):
    a = make(6, 4).train(mode)(torch.randn(3, 6, 5, 9)).expansive
    assert a.shape == (3, channels, 5, 9)
    assert (a >= 0).all()
    torch.testing.assert_close(a.sum(dim=(-2, -1)), torch.ones(3, channels))


def test_raw_discriminative_scores_have_either_sign():
    s = DecoupledAttention(6, 4).eval()(torch.randn(3, 6, 5, 9)).discriminative
    assert s.min() < 0 < s.max()


def test_bad_head_arguments():
    with pytest.raises(ValueError, match="dropout_after='later': choose"):
        DecoupledAttention(3, 2, dropout_after="later")
    with pytest.raises(ValueError, match="1.5"):
        DecoupledAttention(3, 2, dropout=1.5)
    with pytest.raises(ValueError, match="head='triple': choose decoupled, conventional or single_stream"):
        attention.create(ModelConfig(("cat",), head="triple", weights=None))


@pytest.mark.parametrize("seed", range(3))
def test_loss_is_eq_10(seed):
    scores = random_features(seed, 4, 5)
    labels = (random_features(seed + 9, 4, 5) > 0).double()
    by_picture = [reference.loss(p, y) for p, y in zip(scores.numpy(), labels.numpy(), strict=True)]
    assert classification_loss(scores, labels, "sum").item() == pytest.approx(np.mean(by_picture), rel=1e-5)
    assert classification_loss(scores, labels).item() == pytest.approx(np.mean(by_picture) / 5, rel=1e-5)


def test_loss_by_hand_and_its_errors():
    assert classification_loss(torch.zeros(2, 3), torch.ones(2, 3)).item() == pytest.approx(math.log(2))
    assert classification_loss(torch.tensor([[200.0, -200.0]]), torch.tensor([[1.0, 0.0]])).item() == 0
    with pytest.raises(ValueError, match=r"\(2, 3\) and labels \(2, 4\)"):
        classification_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="over_classes='max'"):
        classification_loss(torch.zeros(2, 3), torch.zeros(2, 3), "max")


def test_a_model_returns_its_features_too():
    model = tiny.model()
    pictures = torch.rand(2, 3, 16, 24)
    out = model(pictures)
    assert isinstance(out, AttentionOutput)
    assert out.features.shape == (2, 8, 4, 6)
    torch.testing.assert_close(out.features, model.backbone(pictures))
    torch.testing.assert_close(out.scores, model.head(out.features).scores)


# Model files


@pytest.fixture
def tiny_backbones(monkeypatch):
    """Models of the tiny backbone instead of a real one."""
    monkeypatch.setattr(backbones, "create", lambda name, stride, weights: tiny.backbone())


@pytest.mark.parametrize("head", ["decoupled", "conventional", "single_stream"])
def test_save_and_load(tmp_path, tiny_backbones, head):
    config = ModelConfig(("cat", "dog"), head=head, dropout=0.3, weights=None)
    model = attention.create(config)
    attention.save(model, tmp_path / "deep" / "model.pth")
    loaded = attention.load(tmp_path / "deep" / "model.pth", ["cat", "dog"])
    assert loaded.config == config
    assert tiny.same(model.state_dict(), loaded.state_dict())
    assert not loaded.training
    assert not loaded.head.training


def test_half_precision_is_half_as_large_and_loads_as_float(tmp_path, tiny_backbones):
    model = attention.create(ModelConfig(("cat", "dog"), weights=None))
    attention.save(model, tmp_path / "half.pth", half=True)
    stored = torch.load(tmp_path / "half.pth", weights_only=True)["state"]
    assert {t.dtype for t in stored.values()} == {torch.float16}
    loaded = attention.load(tmp_path / "half.pth")
    assert loaded.head.expansive.weight.dtype == torch.float32
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(loaded(x).scores, model(x).scores, rtol=1e-2, atol=1e-3)


def test_frozen_imagenet_stages_are_not_stored_again(tmp_path):
    torch.manual_seed(0)
    model = attention.create(ModelConfig(("cat", "dog"), train_last=1))
    attention.save(model, tmp_path / "model.pth")
    stored = torch.load(tmp_path / "model.pth", weights_only=True)["state"]
    last = len(model.backbone.stages) - 1
    assert {k.split(".")[2] for k in stored if k.startswith("backbone")} == {str(last)}
    loaded = attention.load(tmp_path / "model.pth")
    assert tiny.same(model.state_dict(), loaded.state_dict())
    assert loaded.backbone.trained_stages == 1


def test_a_model_file_for_other_classes_is_refused(tmp_path, tiny_backbones):
    attention.save(attention.create(ModelConfig(("cat", "dog"), weights=None)), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"model.pth: knows 2 classes \(cat, dog.*the data has 3 \(cat, cow"):
        attention.load(tmp_path / "model.pth", ("cat", "cow", "dog"))


def test_a_checkpoint_that_is_no_model_file_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="other.pth: is a checkpoint, but no model file of this book"):
        attention.load(tmp_path / "other.pth")


def test_a_model_file_with_a_tensor_of_another_shape_is_refused(tmp_path, tiny_backbones):
    attention.save(attention.create(ModelConfig(("cat", "dog"), weights=None)), tmp_path / "model.pth")
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    content["state"]["head.expansive.bias"] = torch.zeros(7)
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"head.expansive.bias has shape \(7,\) there and \(2,\) here"):
        attention.load(tmp_path / "model.pth")


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.0])
def test_a_truncated_model_file_is_refused(tmp_path, tiny_backbones, keep):
    path = tmp_path / "model.pth"
    attention.save(attention.create(ModelConfig(("cat", "dog"), weights=None)), path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="model.pth: is no PyTorch checkpoint, or a truncated one"):
        attention.load(path)


def test_a_model_file_that_lacks_a_layer_is_refused(tmp_path, tiny_backbones):
    """Otherwise the head would silently stay random."""
    attention.save(attention.create(ModelConfig(("cat", "dog"), weights=None)), tmp_path / "model.pth")
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    del content["state"]["head.expansive.weight"]
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="it lacks head.expansive.weight"):
        attention.load(tmp_path / "model.pth")
