"""What an evaluation asks of a GPU: how often it is waited for hangs on no number of samples and clusters."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from raymc.datasets import Dataset, Split
from raymc.estimators.model import load_model
from raymc.methods import METHODS
from raymc.metrics.probes import knn_accuracy, nearest_subspace_accuracy
from raymc.metrics.spectra import group_spectra
from raymc.metrics.subspace import rank_scores, rate_reduction
from raymc.training.evaluate import evaluate_model, watched
from raymc.training.loop import train_epoch
from raymc.training.stages import weights_of
from raymc.training.training import Training
from tests.device.pretend import GPU, installed
from tests.device.stepping import begun
from tests.device.trainings import case_config, dataset_of, make_config, train, vectors


@pytest.mark.parametrize("k", [10, 100])
def test_ranks_and_coding_rates_of_all_clusters_by_two_waits(k: int) -> None:
    """One for the eigenvalues' status, one to read them; with a loop over the clusters they were 910 at k = 100."""
    draws = torch.Generator().manual_seed(k)
    z = functional.normalize(torch.randn(2000, 32, generator=draws), dim=1)
    found, true = torch.arange(2000) % k, torch.randperm(2000, generator=draws) % k
    here = group_spectra(z, found, true)
    with installed() as log:
        there = z.to(GPU)
        log.clear()
        spectra = group_spectra(there, found, true)
        assert log.waits.total() == 2 and log.uploads == 1 and log.downloads == 1
    assert rank_scores(*spectra) == rank_scores(*here)
    assert rate_reduction(*spectra[:2]) == pytest.approx(rate_reduction(*here[:2]), rel=1e-12)


def repeated(times: int) -> Dataset:
    """144 samples and the held-out ones, so many times: 1 block of a pass, or 3."""
    data = vectors()
    assert data.test is not None and data.train.y is not None and data.test.y is not None
    splits = [Split(s.x.repeat(times, 1), s.y.repeat(times)) for s in (data.train, data.test)]  # type: ignore[union-attr]
    return dataclasses.replace(data, train=splits[0], test=splits[1])


WAITS: dict[str, tuple[tuple[str, str, dict[str, Any]], int, int]] = {
    # method, stage, keys; waits of an epoch's evaluation, and of the one at the end
    "a cluster head": (("nmce", "heads", {}), 3, 3),
    # Ranks are of points, rate reductions of directions.
    "points": (("gcml", "finetune", {"finetune__centers_by": "kmeans"}), 5, 5),
    "k-means": (("mlc", "heads", {"clustering": "kmeans"}), 4, 5),
}
"""Labels (at the end all that there is), the eigenvalues' status, the eigenvalues; k-means takes z, gives centres."""


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.parametrize("times", [1, 40])
def test_waits_of_an_evaluation(name: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (method, stage, keys), of_epoch, of_end = WAITS[name]
    data = repeated(times)
    monkeypatch.setattr("tests.device.stepping.dataset_of", lambda name: data)
    monkeypatch.setattr("raymc.methods.gcml_state.KMEANS_STARTS", 2)
    config = make_config(method, "vectors", **keys)
    with installed() as log:
        updates, feed = begun(config, stage, GPU, tmp_path)
        asked = (METHODS[method], updates.model, config, data, feed, 10, 0)
        log.clear()
        assert watched(*asked)["rank_all"] >= 1
        assert log.waits.total() == of_epoch, log.waits
        log.clear()
        found = evaluate_model(*asked)
        assert log.waits.total() == of_end, log.waits
    assert found is not None and not any(one.is_cuda for one in found.arrays.values())


@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adam"])
def test_a_checkpoint_is_read_by_two_copies(optimizer: str, tmp_path: Path) -> None:
    """One of all weights, one of all that the optimisers remember; both are the device's to the bit, and copies."""
    config = make_config("nmce", "digits", heads__optimizer=optimizer)
    with installed() as log:
        updates, feed = begun(config, "heads", GPU, tmp_path)
        train_epoch(updates, feed, 0, 0)
        log.clear()
        weights, state = weights_of(updates.model), updates.state_dict()
        assert (log.waits.total(), log.downloads) == (2, 2)
        for name, module in updates.model.items():
            for key, value in module.state_dict().items():
                assert torch.equal(weights[name][key], value.cpu()) and not weights[name][key].is_cuda
        remembered = [
            (kept, there)
            for title, optimisers in state.items()
            for at, values in optimisers["state"].items()
            for kept, there in zip(
                values.values(), updates._of[""]._optimisers[title].state_dict()["state"][at].values(), strict=True
            )
            if isinstance(kept, torch.Tensor)
        ]
        assert remembered and all(torch.equal(a, b.cpu()) and not a.is_cuda and b.is_cuda for a, b in remembered)
        sizes = {name: one.untyped_storage().nbytes() for name, one in weights["subspace"].items()}
        assert sizes == {name: one.nbytes for name, one in weights["subspace"].items()}


@pytest.mark.parametrize("name", ["mlc", "gcml"])
def test_the_device_is_done_with_before_the_cpus_work_begins(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classifiers, tables and files ask it for nothing."""
    release, asked = Training.release_device, []

    def released(self: Training, model: nn.ModuleDict) -> None:
        release(self, model)
        log.clear()
        asked.append(self.banked or any(one.is_cuda for one in [*model.parameters(), self.feed.samples]))

    monkeypatch.setattr(Training, "release_device", released)
    monkeypatch.setattr("raymc.methods.gcml_state.KMEANS_STARTS", 2)
    monkeypatch.setattr("raymc.methods.gcml_state.MIXTURE_STARTS", 2)
    with installed() as log:
        train(case_config(name), tmp_path / "store", tmp_path / "out", GPU)
        assert asked == [False] and log.totals == (0, 0, 0) and not log.downloads


def test_in_bfloat16_passes_are_in_it_and_a_saved_model_labels_by_the_same(tmp_path: Path) -> None:
    config = case_config("nmce on a stream", precision="bfloat16")
    with installed(bfloat16=True):
        train(config, tmp_path / "store", tmp_path / "out", GPU, smoke=False)
        x = dataset_of("double_spiral").train.x
        model = load_model(tmp_path / "out" / "model")
        z = model.transform(x)
        labels = np.load(tmp_path / "out" / "labels.npz")["labels"]
        assert model.predict(x).tolist() == labels.tolist()
    whole = load_model(tmp_path / "out" / "model", device="cpu")
    whole._net = dataclasses.replace(whole._net, autocast=None)
    apart = np.abs(z - whole.transform(x)).max()
    assert 1e-5 < apart < 0.05, "of bfloat16, and near to float32"


@pytest.mark.parametrize("width", [20, 70])
def test_neighbours_and_subspaces_are_found_on_the_device(width: int) -> None:
    """Of classes with fewer samples than components, with more than the width, and between."""
    draws = torch.Generator().manual_seed(0)
    y = torch.cat([torch.arange(3).repeat_interleave(50), torch.full((4,), 3)])
    bases = torch.randn(4, 6, width, generator=draws)
    x = torch.einsum("nr,nrd->nd", torch.randn(len(y), 6, generator=draws), bases[y])
    x = x + 0.9 * torch.randn(x.shape, generator=draws)
    fit = torch.arange(len(y)) % 3 > 0
    given = x[fit], y[fit] - 2, x[~fit], y[~fit] - 2
    for accuracy, waits in ((knn_accuracy, 1), (partial(nearest_subspace_accuracy, components=5), 5)):
        here = accuracy(*given)
        with installed() as log:
            there = [one.to(GPU) if one.is_floating_point() else one for one in given]
            log.clear()
            assert accuracy(*there) == here and 0.3 < here < 1
            assert log.waits.total() == waits and log.kernels
