"""Classifiers on a frozen embedding: how much of the classes is left in it (GCML, Table 3).

All are scikit-learn's with its defaults, as there; the embedding is not scaled. `raymc.metrics.probes` has NMCE's.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raymc.errors import InputError
from raymc.metrics.clustering import Labels, as_array, as_labels
from raymc.rng import seed32


def downstream_accuracies(
    train_z: Tensor, train_y: Labels, test_z: Tensor, test_y: Labels, seed: int
) -> dict[str, float]:
    """Accuracy in [0, 1] on `test_z` `[m, d]` of what was fitted on `train_z` `[n, d]`.

    `mlp`: one hidden layer of 100, 200 epochs; `rfc`: 100 trees; `svm`: C = 1, Gaussian kernel of width by the
    variance; `lr`: L2 with C = 1, 100 iterations. `seed` is that of the first two, the others draw nothing.

    Raises:
        InputError: fewer than two classes to tell apart, or nothing to test on.
    """
    known = as_labels(train_y)
    if len(np.unique(known)) < 2 or not len(test_z):
        raise InputError("downstream classifiers need two classes to tell apart, and held-out samples")
    train, test = as_array(train_z), as_array(test_z)
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():  # the defaults' few iterations are the protocol
        warnings.simplefilter("ignore", ConvergenceWarning)
        return {
            name: float(model.fit(train, known).score(test, as_labels(test_y)))
            for name, model in _classifiers(seed).items()
        }


def held_out(y: Labels, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions of the 80 % to fit on and of the 20 % to test on, in ascending order; of each class by itself.

    For datasets without a held-out split. A class of fewer than 5 is only fitted on.
    """
    labels, rng = as_labels(y), np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == one)) for one in np.unique(labels)]
    test = np.sort(np.concatenate([rows[: len(rows) // 5] for rows in drawn]))
    return torch.as_tensor(np.setdiff1d(np.arange(len(labels)), test)), torch.as_tensor(test)


def check_labels(y: Labels, test_y: Labels | None) -> None:
    """Raises InputError where labels `[n]` leave nothing to tell apart, or nothing to test on.

    `test_y` are those of a held-out split; without one (None) `held_out` takes a fifth of each class of y.
    """
    classes, sizes = np.unique(as_labels(y), return_counts=True)
    if len(classes) < 2:
        raise InputError(f"downstream: all {len(as_labels(y))} labels are the same; downstream=false leaves it out")
    if test_y is None and sizes.max() < 5:
        raise InputError(
            f"downstream: no class has 5 samples, of which one would be held out (the largest has {sizes.max()}); "
            "downstream=false leaves it out"
        )


def _classifiers(seed: int) -> dict[str, Any]:
    # Imported here, since scikit-learn takes a second to import.
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    return {
        "mlp": MLPClassifier(random_state=seed32(seed)),
        "rfc": RandomForestClassifier(random_state=seed32(seed)),
        "svm": SVC(),
        "lr": LogisticRegression(),
    }
