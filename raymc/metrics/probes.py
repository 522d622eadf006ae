"""Supervised probes of features: fitted on the training split, scored on the held-out one (NMCE, Table 2).

All take features `[n, d]` and integer labels `[n]`, and return the accuracy on the held-out rows in [0, 1]. They
take the features as they are; averages over augmented passes are the caller's.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raymc.metrics.clustering import Labels, as_array, as_labels
from raymc.ops.blocks import in_blocks


def svm_accuracy(train: Tensor, train_labels: Labels, test: Tensor, test_labels: Labels) -> float:
    """Linear SVM with C=1, solved in the primal, one class against the rest; features are not scaled."""
    from sklearn.svm import LinearSVC  # here, since scikit-learn takes a second to import

    model = LinearSVC(C=1.0, dual=False, random_state=10)
    model.fit(as_array(train), as_labels(train_labels))
    return float(model.score(as_array(test), as_labels(test_labels)))


def knn_accuracy(train: Tensor, train_labels: Labels, test: Tensor, test_labels: Labels, neighbours: int = 11) -> float:
    """Majority among the nearest training rows by cosine; ties go to the smaller label.

    Features are normalised first. The published code compares raw dot products, which is why its Table 2 has
    chance accuracy for the unnormalised pool features.
    """
    classes, inverse = np.unique(as_labels(train_labels), return_inverse=True)
    one_hot = functional.one_hot(torch.as_tensor(inverse), len(classes))
    known, asked = (functional.normalize(torch.as_tensor(x).detach().cpu().float(), dim=1) for x in (train, test))

    def votes(rows: Tensor) -> Tensor:
        return one_hot[(rows @ known.mT).topk(min(neighbours, len(known)), dim=1).indices].sum(1)

    predicted = classes[in_blocks(votes, asked).argmax(1).numpy()]
    return float((predicted == as_labels(test_labels)).mean())


def nearest_subspace_accuracy(
    train: Tensor, train_labels: Labels, test: Tensor, test_labels: Labels, components: int = 30
) -> float:
    """The class whose leading singular vectors (not centred) leave the smallest residual."""
    known, asked, labels = as_array(train), as_array(test), as_labels(train_labels)
    classes = np.unique(labels)
    # The residual is |x|^2 - |B x|^2: the smallest is where the projection is longest.
    lengths = [np.linalg.norm(asked @ _basis(known[labels == j], components), axis=1) for j in classes]
    predicted = classes[np.argmax(np.stack(lengths, 1), axis=1)]
    return float((predicted == as_labels(test_labels)).mean())


def _basis(rows: NDArray[np.float64], components: int) -> NDArray[np.float64]:
    """`[d, r]`: the leading right singular vectors of rows `[n, d]`, all that there are below `components`."""
    if components < min(rows.shape):
        start = np.ones(min(rows.shape))
        _, _, vectors = scipy.sparse.linalg.svds(rows, components, v0=start)
    else:
        _, values, vectors = np.linalg.svd(rows, full_matrices=False)
        vectors = vectors[values > 1e-10 * max(values[0], 1e-300)]
    return np.asarray(vectors.T, dtype=np.float64)
