"""raymc: hyperparameter search for manifold clustering, distributed with Ray."""

__version__ = "0.1.0"
