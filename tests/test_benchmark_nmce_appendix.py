"""NMCE's appendices A.4 and A.6 on features that are known: draws, spectra, losses, and what the command leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import nmce_appendix as appendix
from raymc.datasets import Split, load
from raymc.methods.base import Batch
from raymc.nets import UnitLinear


def _clusters(n: int, classes: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    return torch.eye(classes)[y] + noise * torch.randn(n, classes, generator=draws), y


def test_each_draw_of_few_labels_has_every_class() -> None:
    x, y = _clusters(300, 10, 0.01, 0)
    found = appendix.few_labels(x, y, *_clusters(100, 10, 0.01, 1), seed=3)
    assert list(found) == ["10", "20", "50", "100", "200"] and all(len(one) == 10 for one in found.values())
    assert min(found["10"]) == 1.0  # a class without a row would cost a tenth
    assert found == appendix.few_labels(x, y, *_clusters(100, 10, 0.01, 1), seed=3)


def test_spectra_and_covariances_of_known_features() -> None:
    draws = torch.Generator().manual_seed(0)
    flat = torch.linalg.qr(torch.randn(50, 6, generator=draws))[0]
    assert appendix.effective_rank(appendix.spectrum(flat)) == pytest.approx(6)
    assert appendix.effective_rank(appendix.spectrum(flat[:, :1] @ torch.ones(1, 6))) == pytest.approx(1)
    assert appendix.spectrum(flat * torch.tensor([1.0, 2, 4, 1, 1, 1]))[:3] == pytest.approx([1, 0.5, 0.25])
    assert appendix.off_diagonal(torch.tensor([[2.0, 1.0], [1.0, 2.0]])) == pytest.approx(0.5)


def test_vicreg_sees_the_projection_before_it_has_length_one() -> None:
    pytest.importorskip("lightly")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.ModuleDict(
            {"backbone": nn.Identity(), "pre_feature": nn.Identity(), "projection": UnitLinear(5, 4, bias=False)}
        )
        views = [torch.randn(8, 5) for _ in range(2)]
    batch = Batch(tuple(views), torch.arange(8))
    assert isinstance(head := model["projection"], UnitLinear)
    a, b = (view @ head.weight.T for view in views)
    spread = sum(torch.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2 for z in (a, b))
    off = sum((torch.cov(z.T) - torch.diag(z.var(0))).square().sum() / 4 for z in (a, b))
    expected = 25 * (a - b).square().mean() + 25 * spread + off
    torch.testing.assert_close(appendix.vicreg_loss(model, batch, None, None)[0], expected)
    z = nn.functional.normalize(torch.cat([a, b]), dim=1)
    scores = (z @ z.T / 0.5).fill_diagonal_(-torch.inf)
    wanted = nn.functional.cross_entropy(scores, torch.arange(16).roll(8))
    torch.testing.assert_close(appendix.simclr_loss(model, batch, None, None)[0], wanted)


def test_the_command_leaves_figures_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load("digits")
    x, y = _clusters(200, 10, 0.05, 0)
    test, test_y = _clusters(100, 10, 0.05, 1)
    data = data.__class__(**{**vars(data), "train": Split(x, y), "test": Split(test, test_y)})
    found = ({"projection": x, "pool": x}, {"projection": test, "pool": test}, data)
    monkeypatch.setattr(appendix, "train", lambda args, loss, seed: found)
    monkeypatch.setattr(sys, "argv", ["nmce_appendix", str(tmp_path), "--seeds", "2"])
    appendix.main()
    rows = json.loads((tmp_path / "appendix.json").read_text())["rows"]
    assert [row["seed"] for row in rows] == [700, 701] and list(rows[0]["losses"]) == ["tcr", "vicreg", "simclr"]
    assert len(rows[0]["losses"]["tcr"]["covariance"]) == 10 and rows[0]["losses"]["vicreg"]["svm"]["pool"] > 0.9
    assert {path.name for path in tmp_path.glob("*.png")} == {
        *("few_labels.png", "covariance.png", "singular_values.png")
    }
    assert "| projection | " in capsys.readouterr().out
