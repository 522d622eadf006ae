"""Which preset a space takes: of its method, its dataset and what is known of the user's own data."""

from __future__ import annotations

from collections.abc import Mapping

from raymc.config import OwnData
from raymc.datasets.catalogue import source_of
from raymc.errors import InputError
from raymc.former_keys import say_once
from raymc.methods import Method
from raymc.methods.base import Facts, Preset, Sized
from raymc.space.names import known_name
from raymc.validation import Value


def facts_of(dataset: str, fixed: Mapping[str, Value]) -> Facts:
    """What holds of a known dataset without reading it."""
    source, most = source_of(dataset), fixed.get("n_samples")
    n = source.samples[0]
    return Facts(min(n, int(most)) if most else n, source.shape, source.classes)


def presets_of(
    method: Method, dataset: str, own: OwnData | None, methods: Mapping[str, Method]
) -> Mapping[str, Preset | Sized]:
    """Those called `own`, which are for any data, and those of a known dataset. Raises InputError."""
    found = dict(method.presets.get("own", {})) | ({} if own else dict(method.presets.get(dataset, {})))
    if found:
        return found
    if own:
        able = ", ".join(name for name, other in methods.items() if "own" in other.presets) or "none"
        raise InputError(f"{method.name} has no presets for data of your own (methods that have: {able})")
    raise InputError(f"{method.name} has no preset for {dataset} (it has: {', '.join(method.presets)})")


def preset_name(
    method: Method, asked: str | None, presets: Mapping[str, object], own: OwnData | None, known: bool
) -> str:
    """The name of the preset; by default the method's own for a dataset that it knows, `features` for an encoder's
    features where the method has it, else `own`.

    Raises InputError.
    """
    seen = own is not None and (own.encoder is not None or own.features) and "features" in presets
    name = asked or (method.default_preset if known or "own" not in presets else "features" if seen else "own")
    if name in method.renamed_presets:
        name = method.renamed_presets[name]
        say_once(f"{method.name}: the preset {asked} is called {name} now; the old name goes with the next version")
    return known_name("preset", name, presets)
