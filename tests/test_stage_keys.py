"""The stage keys of all presets: a stored result is found again by the code that comes later.

`python tests/test_stage_keys.py` writes the file anew; every key that moves is named in the CHANGELOG.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from raymc.config import resolve
from raymc.datasets import load
from raymc.datasets.catalogue import SOURCES
from raymc.methods import METHODS
from raymc.methods.base import preset_values
from raymc.training.stages import module_names, stage_key

GOLDEN = Path(__file__).parent / "golden" / "stage_keys.json"
OWN = ((30,), 5)  # columns and clusters of the user's own data


def found_keys() -> dict[str, dict[str, str]]:
    """`method/dataset/preset` -> stage -> key, at seed 0; data that need files have their name as fingerprint."""
    return {
        f"{name}/{dataset}/{preset}": keys_of(name, dataset, preset)
        for name, method in METHODS.items()
        for dataset, presets in method.presets.items()
        for preset in presets
    }


def keys_of(name: str, dataset: str, preset: str) -> dict[str, str]:
    method = METHODS[name]
    config = resolve(name, dataset, preset, method.stage_settings, preset_values(method.presets[dataset][preset]))
    known = SOURCES.get(dataset)
    shape, clusters = (known.shape, known.classes) if known else OWN
    fingerprint = load(dataset).fingerprint if known and not known.folders else dataset
    keys: dict[str, str] = {}
    previous = None
    for stage in method.stages(config):
        with torch.device("meta"):
            model = nn.ModuleDict({m: method.build(m, config, shape, clusters) for m in module_names(stage)})
        previous = keys[stage.name] = stage_key(stage, config, model, fingerprint, 0, previous)
    return keys


def test_the_stage_keys_of_all_presets_are_those_of_before() -> None:
    assert found_keys() == json.loads(GOLDEN.read_text(encoding="utf-8"))


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(found_keys(), indent=1) + "\n", encoding="utf-8")
