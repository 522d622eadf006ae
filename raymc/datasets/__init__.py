"""Datasets by name: `load(name, root)`; augmentation by name: `POLICIES[name]`."""

from raymc.datasets.augmentation import POLICIES
from raymc.datasets.base import Dataset, Split, data_root, fingerprint
from raymc.datasets.catalogue import NAMES, load

__all__ = ["NAMES", "POLICIES", "Dataset", "Split", "data_root", "fingerprint", "load"]
