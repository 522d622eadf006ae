"""What an evaluation asks of a GPU: how often it is waited for hangs on no number of samples and clusters."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from raymc.metrics.spectra import group_spectra
from raymc.metrics.subspace import rank_scores, rate_reduction
from tests.device.pretend import GPU, installed


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
