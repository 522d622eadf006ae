"""Supervised probes of features: fitted on the training split, scored on the held-out one (NMCE, Table 2).

All take features `[n, d]` and integer labels `[n]`, and return the accuracy on the held-out rows in [0, 1]. They
take the features as they are; averages over augmented passes are the caller's. Neighbours and subspaces are found on
the features' device.
"""

from __future__ import annotations

import numpy as np
import scipy  # its parts are loaded where they are first used
import torch
from torch import Tensor
from torch.nn import functional

from raymc.metrics.clustering import Labels, as_array, as_labels
from raymc.ops.blocks import in_blocks
from raymc.ops.uploads import uploaded

TIE = 10
"""Digits of the length of a unit vector's projection; what differs in later ones is rounding."""


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
    known, asked = (functional.normalize(x.detach().float(), dim=1) for x in (train, test))
    voices = uploaded(functional.one_hot(torch.as_tensor(inverse), len(classes)), known.device)

    def votes(rows: Tensor) -> Tensor:
        return voices[(rows @ known.mT).topk(min(neighbours, len(known)), dim=1).indices].sum(1)

    predicted = classes[in_blocks(votes, asked).argmax(1).cpu().numpy()]
    return float((predicted == as_labels(test_labels)).mean())


def nearest_subspace_accuracy(
    train: Tensor, train_labels: Labels, test: Tensor, test_labels: Labels, components: int = 30
) -> float:
    """The class whose leading singular vectors (not centred) leave the smallest residual; ties go to the smaller label.

    With as many components as features the vectors of every class leave none, and it is the smallest label.
    """
    labels = as_labels(train_labels)
    classes, sizes = np.unique(labels, return_counts=True)
    known, asked = (x.detach().double() for x in (train, test))
    order = uploaded(torch.as_tensor(labels.argsort(kind="stable")), known.device)
    # The residual is |x|^2 - |B x|^2: the smallest is where the projection is longest.
    asked = functional.normalize(asked, dim=1)
    lengths = [(asked @ _basis(rows, components)).norm(dim=1) for rows in torch.split(known[order], sizes.tolist())]
    predicted = classes[torch.stack(lengths, 1).round(decimals=TIE).argmax(1).cpu().numpy()]
    return float((predicted == as_labels(test_labels)).mean())


def _basis(rows: Tensor, components: int) -> Tensor:
    """`[d, r]`: the leading right singular vectors of rows `[n, d]`; zeros in place of those that there are not."""
    n, d = rows.shape
    if components >= min(n, d):
        _, values, right = torch.linalg.svd(rows, full_matrices=False)
        basis: Tensor = (right * (values > 1e-10 * values[0])[:, None]).mT
    elif rows.device.type == "cpu":  # a few vectors of a large matrix are had sooner than all
        _, _, found = scipy.sparse.linalg.svds(rows.numpy(), components, v0=np.ones(min(n, d)))
        basis = torch.from_numpy(np.ascontiguousarray(found.T))
    else:
        squares, vectors = torch.linalg.eigh(rows.mT @ rows if n > d else rows @ rows.mT)
        leading = vectors[:, -components:] * (squares[-components:] > 1e-14 * squares[-1])
        basis = leading if n > d else functional.normalize(rows.mT @ leading, dim=0)
    return basis
