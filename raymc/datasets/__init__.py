"""Datasets by name: `load(name, root)`; what is known about each is in `raymc.datasets.catalogue`."""

from raymc.datasets.base import Dataset, Split, data_root, fingerprint
from raymc.datasets.catalogue import NAMES, load

__all__ = ["NAMES", "Dataset", "Split", "data_root", "fingerprint", "load"]
