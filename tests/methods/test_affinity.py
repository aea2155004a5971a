"""What AffinityNet and IRN share: paths, pairs, the walk and what is sure; each method's own part; and runs of both."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_experiments
import torch
from tiny_experiments import RECIPE
from torch.nn import functional

from dsna_lib.data.pictures import VOID
from dsna_lib.methods import affinity, learned
from dsna_lib.methods.affinity import Joined, pair_loss, paths, sure, walk
from dsna_lib.methods.affinity_net import AFFINITY_NET, background
from dsna_lib.methods.base import prepare
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.irn import IRN_METHOD
from dsna_lib.methods.later import printed_later


@pytest.mark.parametrize(("grid", "radius"), [((4, 5), 3), ((7, 9), 5), ((2, 3), 5), ((1, 1), 5)])
def test_each_pair_within_the_radius_once_and_the_way_between(grid: tuple[int, int], radius: int) -> None:
    found = paths(grid, radius).tolist()
    places = [divmod(k, grid[1]) for k in range(grid[0] * grid[1])]
    near = {
        (a, b)
        for a, (y, x) in enumerate(places)
        for b, (v, u) in enumerate(places)
        if a < b and (y - v) ** 2 + (x - u) ** 2 < radius**2
    }
    assert sorted((way[0], way[-1]) for way in found) == sorted(near)
    for way in found:
        (y, x), (v, u) = places[way[0]], places[way[-1]]
        for a, b in pairwise(way):  # no step skips a place
            assert max(abs(places[a][0] - places[b][0]), abs(places[a][1] - places[b][1])) <= 1
        for step in way:  # and none is further than half a place from the line
            (p, q), length = places[step], ((v - y) ** 2 + (u - x) ** 2) ** 0.5
            assert abs((v - y) * (q - x) - (u - x) * (p - y)) / length <= 0.5**0.5 + 1e-9


def test_the_loss_against_numpy() -> None:
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((2, 20)) < 0.3, VOID, rng.integers(0, 3, (2, 20))).astype(np.uint8)
    ends = paths((4, 5))[:, [0, -1]]
    a = rng.random((2, len(ends)))
    kinds: dict[str, list[float]] = {"object": [], "background": [], "other": []}
    for n in range(2):
        for (i, j), value in zip(ends.tolist(), a[n], strict=True):
            if VOID in (labels[n, i], labels[n, j]):
                continue
            kind = "other" if labels[n, i] != labels[n, j] else "object" if labels[n, i] else "background"
            kinds[kind].append(-np.log(value if kind != "other" else 1 - value))
    want = np.mean(kinds["object"]) / 2 + np.mean(kinds["background"]) / 2 + np.mean(kinds["other"])
    got = pair_loss(torch.from_numpy(a), torch.from_numpy(labels), ends)
    assert got.item() == pytest.approx(want, rel=1e-3)  # but for what keeps logarithms finite
    assert pair_loss(torch.from_numpy(a), torch.full((2, 20), VOID), ends) == 0


def test_the_walk_against_steps() -> None:
    rng = np.random.default_rng(1)
    ends, maps = paths((3, 4), 3)[:, [0, -1]], rng.random((2, 3, 4))
    a = rng.random(len(ends))
    joined = np.eye(12)
    for (i, j), value in zip(ends.tolist(), a, strict=True):
        joined[i, j] = joined[j, i] = value**2
    want = maps.reshape(2, 12)
    for _ in range(6):
        want = np.stack([[joined[i] @ row / joined[i].sum() for i in range(12)] for row in want])
    got = walk(torch.from_numpy(maps).float(), torch.from_numpy(a), ends, power=2, steps=6)
    np.testing.assert_allclose(got.flatten(1).numpy(), want, rtol=1e-4)


def test_a_walk_fills_its_region_and_ends_at_the_boundary() -> None:
    """Two regions side by side: what lies on one place of the left one spreads evenly over it alone."""
    way = paths((4, 6))
    region = (torch.arange(24) % 6 > 2).float()
    same = (region[way[:, 0]] == region[way[:, -1]]).float()
    maps = torch.zeros(1, 4, 6)
    maps[0, 0, 0] = 1
    far = walk(maps, same, way[:, [0, -1]], power=8)[0]
    assert far[:, :3].min() > 0.5 * far[:, :3].max() > 0
    assert far[:, 3:].max() == 0


def test_what_is_sure() -> None:
    """Both are asked for after refining, which may take a class away."""
    little, much = (np.array([[[b] * 4], [[0.9, 0.4, 0.04, 0.3]], [[0.1, 0.6, 0.0, 0.2]]]) for b in (0.05, 0.5))
    assert sure(little, much, [0, 2], lambda annotation: annotation).tolist() == [[1, 3, 0, VOID]]
    assert sure(little, much, [0, 2], lambda annotation: np.where(annotation == 3, 0, annotation)).tolist() == [
        [1, 0, 0, VOID]
    ]


def test_affinity_net_by_hand() -> None:
    """Features (0, 0), (1, 3) and what an ELU makes (-1, -1): mean distances of 2, 1 and 3."""
    output = torch.tensor([[0.0, 1.0, -1e9], [0.0, 3.0, -1e9]]).view(1, 2, 1, 3)
    way = torch.tensor([[0, 1], [0, 2], [1, 2]])
    want = torch.tensor([[-2.0, -1.0, -3.0]]).exp()
    torch.testing.assert_close(AFFINITY_NET.affinity(output, way), want)
    maps = torch.tensor([[[1.0, 0.5, 0.0]], [[0.0, 0.25, 0.0]]])
    assert background(maps, 4).tolist() == [[0, 0.0625, 1]]
    little, much = AFFINITY_NET.backgrounds(maps)
    assert (little <= much).all()
    assert (little < much).any()
    planes = AFFINITY_NET.walked(maps, output[0], lambda each: each * 2)
    torch.testing.assert_close(planes, 2 * torch.cat([background(maps, 16)[None], maps]))


def test_irn_by_hand() -> None:
    """A boundary of 0.9 between two places leaves them an affinity of 0.1, wherever on the way it is."""
    boundary = torch.tensor([[0.2, 0.9, 0.1, 0.3]])
    output = torch.logit(boundary)[None, None]
    way = torch.tensor([[0, 1, 2], [2, 2, 3], [0, 0, 1], [2, 3, 3]])
    torch.testing.assert_close(IRN_METHOD.affinity(output, way), torch.tensor([[0.1, 0.7, 0.1, 0.7]]))
    maps = torch.tensor([[[1.0, 1.0, 0.5, 0.0]], [[0.0, 0.5, 0.0, 0.0]]])
    planes = IRN_METHOD.walked(maps, output[0], lambda each: each)
    want = torch.tensor([[0.8, 0.1, 0.45, 0.0], [0.0, 0.05, 0.0, 0.0]]) / 0.8
    torch.testing.assert_close(planes[:, 0], torch.cat([torch.full((1, 4), 0.25), want]))
    assert planes.argmax(dim=0).tolist() == [[1, 0, 1, 0]]
    assert [each.unique().item() for each in IRN_METHOD.backgrounds(maps)] == pytest.approx([0.05, 0.3])


@pytest.mark.parametrize("method", [AFFINITY_NET, IRN_METHOD], ids=str)
def test_two_regions_are_learned_from_pairs(method: affinity.AffinityMethod) -> None:
    """Two halves of different colors, with void where they meet."""
    torch.manual_seed(0)
    network = Joined(tiny.backbone(), method.channels)
    pictures = torch.rand(4, 3, 16, 16) * 0.2
    pictures[:, 0, :, 8:] += 0.8
    masks = torch.full((4, 16, 16), VOID, dtype=torch.uint8)
    masks[..., :6], masks[..., 10:] = 0, 2
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss = method._loss(network(pictures), {"mask": masks})
        loss.backward()
        optimizer.step()
    output = network(pictures)
    way = paths((output.shape[2], output.shape[3]))
    right = way % output.shape[3] >= output.shape[3] // 2
    found, apart = method.affinity(output, way), right[:, 0] != right[:, -1]
    assert found[:, ~apart].mean() > 0.7 > 0.3 > found[:, apart].mean()


@pytest.mark.parametrize("method", [AFFINITY_NET, IRN_METHOD], ids=str)
def test_the_classifier_stays_and_only_affinity_net_teaches_a_backbone(
    method: affinity.AffinityMethod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    data, seen = tiny.pictures(tmp_path / "data", masks=True), []
    monkeypatch.setattr(affinity, "learn", lambda *a, **how: seen.append(a[1]) or learned.learn(*a, **how))
    stage = prepare(method, RECIPE, data, data, seed=0)
    folder = method.annotate(stage)
    model, _ = stage.train(CAM.head)
    before = list(model.backbone.parameters())
    after = list(seen[0].backbone.parameters())
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert all(changed) if method is AFFINITY_NET else not any(changed)
    with pytest.MonkeyPatch.context() as patch:  # found again, nothing trained twice
        patch.setattr(learned.training, "fit", lambda *a: 1 / 0)
        assert method.annotate(stage) == folder
    assert method.annotate(prepare(method, RECIPE, data, data, seed=1)) != folder


def test_levels_are_joined_on_the_finer_grid() -> None:
    torch.manual_seed(0)
    network, pictures = Joined(tiny.backbone(), 5).eval(), torch.rand(2, 3, 32, 32)
    fine, coarse = network.backbone.pyramid(pictures)
    one, other = (project(level) for project, level in zip(network.projections, (fine, coarse), strict=True))
    parts = [one, functional.interpolate(other, fine.shape[-2:], mode="bilinear")]
    torch.testing.assert_close(network(pictures), network.last(torch.cat(parts, dim=1)))


def test_their_rows() -> None:
    assert [(m.title, m.paper) for m in (AFFINITY_NET, IRN_METHOD)] == [
        ("AffinityNet", printed_later("AffinityNet")),
        ("IRN", printed_later("IRNet")),
    ]
    assert CAM.trains < AFFINITY_NET.trains != IRN_METHOD.trains
