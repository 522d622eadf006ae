"""GCML as a scikit-learn estimator."""

from __future__ import annotations

from raymc.estimators.base import ManifoldClusterer


class GCML(ManifoldClusterer):
    """Generalized clustering and multi-manifold learning (DCRL).

    GCML clusters the latent space of an autoencoder while it keeps distances within clusters and how far these are
    apart (Wu et al., Generalized Clustering and Multi-Manifold Learning with Geometric Structure Preservation, WACV
    2022). Stages: `pretrain` (the autoencoder), `finetune`. A new sample goes to the nearest centre.

    Parameters
    ----------
    n_clusters : int, default=8
        How many clusters, 2 or more.
    params : dict, default=None
        Hyperparameters by dotted key that differ from the preset, as `raymc train` takes them:
        ``{"finetune.kappa": 2.0}``. docs/search_spaces.md lists them all.
    preset : str, default=None
        The values that `params` change. None: ``"own"``, which sizes the training to the data. ``"tuned"``: the long
        training of the docs.
    random_state : int, RandomState instance or None, default=None
        The seed. With an int, `fit` gives the labels of ``raymc train --seed`` on the same rows to the bit.
    storage : str or Path, default=None
        A folder or URI for the results of stages, which later fits of the same data and settings take from there.
        None: a temporary folder; nothing is left.
    verbose : int, default=0
        1 shows a progress bar for each stage.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int64
        The cluster of each sample of `fit`, from 0.
    embedding_ : ndarray of shape (n_samples, n_components), float32
        Points, whose distances within a cluster are kept.
    metrics_ : dict
        Scores that need no labels: `silhouette`, `probe` (how well a linear classifier learns the clusters),
        `rate_reduction`, the clusters' shares and others.
    curve_ : DataFrame
        A row an epoch: stage, epoch, loss and its terms.
    n_clusters_ : int
        The number of clusters.
    params_ : dict
        Every hyperparameter as it was trained with.
    model_ : raymc.estimators.model.Model
        What `predict` and `transform` ask, and `save` writes.
    partial_ : bool
        Whether Ctrl-C ended the training early, see `fit`.
    n_features_in_ : int
        Numbers of a sample of `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where `X` has names that are all strings.

    Examples
    --------
    >>> import raymc
    >>> from sklearn.datasets import load_iris
    >>> X = load_iris().data
    >>> model = raymc.GCML(n_clusters=3, params={"finetune.epochs": 20}, random_state=0).fit(X)
    >>> model.labels_.shape, model.embedding_.shape
    ((150,), (150, 10))
    >>> model.predict(X[:5]).shape
    (5,)
    """

    _method = "gcml"
