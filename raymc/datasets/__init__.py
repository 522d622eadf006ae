"""Datasets by name: `load(name, root)`; those of a configuration: `load_for(config, root)`.

Augmentation by name: `POLICIES[name]`.
"""

from raymc.datasets.augmentation import POLICIES
from raymc.datasets.base import Dataset, Split, data_facts, data_root, fingerprint
from raymc.datasets.catalogue import NAMES, load
from raymc.datasets.own import load_for, load_once

__all__ = [
    "NAMES",
    "POLICIES",
    "Dataset",
    "Split",
    "data_facts",
    "data_root",
    "fingerprint",
    "load",
    "load_for",
    "load_once",
]
