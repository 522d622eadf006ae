"""What several labellings say together: evidence accumulation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering

from raymc.metrics import consensus
from raymc.metrics.clustering import adjusted_rand
from raymc.metrics.consensus import evidence_accumulation, renamed

TRUE = np.repeat(np.arange(4), 40)


def noisy(share: float, seed: int) -> np.ndarray:
    """The true clusters under other numbers, with a share of the samples put anywhere."""
    rng = np.random.default_rng(seed)
    labels = (TRUE + seed) % 4
    return np.where(rng.random(len(labels)) < share, rng.integers(0, 4, len(labels)), labels)


def test_it_is_average_linkage_of_how_often_two_samples_are_apart() -> None:
    """Against scikit-learn on the whole matrix; the agreement against its definition, sample by sample."""
    some = [noisy(0.15, seed) for seed in range(8)]
    found, agreement = evidence_accumulation(some)
    together = np.mean([one[:, None] == one[None] for one in some], axis=0)
    theirs = AgglomerativeClustering(4, metric="precomputed", linkage="average").fit_predict(1 - together)
    assert adjusted_rand(found, theirs) == 1
    for row in range(len(TRUE)):
        others = (found == found[row]) & (np.arange(len(TRUE)) != row)
        assert agreement[row] == pytest.approx(together[row, others].mean() if others.any() else 1.0)


def test_it_is_better_than_each_of_many_noisy_labellings() -> None:
    some = [noisy(0.3, seed) for seed in range(9)]
    found, _ = evidence_accumulation(some)
    assert adjusted_rand(found, TRUE) > max(adjusted_rand(one, TRUE) for one in some)


def test_labellings_that_agree_are_left_as_they_are_whatever_their_numbers() -> None:
    found, agreement = evidence_accumulation([TRUE, (TRUE + 1) % 4, 7 - TRUE])
    assert adjusted_rand(found, TRUE) == 1 and (agreement == 1).all()
    some = [noisy(0.2, seed) for seed in range(4)]
    others = [(one + 3) % 4 for one in some]
    assert adjusted_rand(evidence_accumulation(some)[0], evidence_accumulation(others)[0]) == 1


def test_of_many_samples_some_are_compared_and_the_rest_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consensus, "DRAWN", 60)
    some = [noisy(0.15, seed) for seed in range(7)]
    found, agreement = evidence_accumulation(some)
    assert adjusted_rand(found, TRUE) > 0.95 and agreement.shape == TRUE.shape
    assert np.array_equal(found, evidence_accumulation(some)[0])


@pytest.mark.parametrize("wrong", [[], [[]], [[0, 1], [0, 1, 1]]])
def test_labellings_that_cannot_be_compared(wrong: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="same samples"):
        evidence_accumulation(wrong)


def test_one_sample_and_one_labelling() -> None:
    assert [one.tolist() for one in evidence_accumulation([[3], [5]])] == [[0], [1.0]]
    assert adjusted_rand(evidence_accumulation([TRUE])[0], TRUE) == 1


def test_clusters_are_named_like_the_ones_they_share_most_with() -> None:
    assert renamed([5, 5, 7, 7, 9], [1, 1, 0, 0, 0]).tolist() == [1, 1, 0, 0, 2]
    assert renamed([3, 3, 3], [0, 1, 1]).tolist() == [1, 1, 1]
