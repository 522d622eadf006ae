"""A trained model as a folder that labels new samples: JSON and safetensors, so that reading one runs nobody's code.

```
model/config.json           what it is: method, configuration, samples that it takes, how it labels, versions
model/weights.safetensors   the tensors of all modules, of the assigner and of the scaling, `<module>.<name>`
model/README.md             the same to read
```
Equal weights give equal files: nothing in them says when or where they were written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn

from raymc import provenance
from raymc.atomic import replaced, write_bytes, write_json, write_text
from raymc.clusterers import ASSIGNERS
from raymc.config import Config, OwnData, resolve
from raymc.datasets.base import Scaling
from raymc.datasets.scaling import WORDS
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.methods.base import ASSIGNER
from raymc.nets.user_nets import TIMM, is_named
from raymc.training.cards import model_page
from raymc.training.checkpoints.weights import read_file
from raymc.training.stages import dtype_of, weights_of

FOLDER = "model"
CONFIG, WEIGHTS, README = "config.json", "weights.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, README)
FORMAT = 1
SCALING = "scaling"
PATHS = ("path", "test", "weights")
"""Of `OwnData`; its columns are needed to label new samples."""
NEEDED: dict[tuple[str, ...], str | None] = {
    ("dataset", "seed", "smoke", "n_clusters", "clusters_by", "classes", "encoder", SCALING, ASSIGNER): None,
    ("shape", "dtype", "columns"): "input",
    ("n", "split", "ruled", "metrics"): "training",
    ("name", "sha256", "takes", "side", "precision"): "encoder",
}
"""Keys of `config.json`, by the part that has them."""
KINDS = {"uint8": torch.uint8, "float32": torch.float32}

Record = dict[str, Any]


@dataclass(frozen=True)
class TrainedModel:
    """A model that labels samples.

    Attributes:
        config: of its training.
        modules: on the CPU; `assigner` among them where clusters were found among samples.
        scaling: of vectors, before the net sees them; None: as they are.
        record: what its `config.json` says, but for the modules, the weights and the configuration: `method`,
            `dataset`, `seed`, `smoke`, `n_clusters`, `clusters_by`, `classes` (names, or None), `input` (`shape`,
            `dtype`, `columns`: names, or None), `encoder` (see `features.data.encoder_facts`, or None), `training`
            (`n`, `split`, `ruled`: the share of its samples that the model labels as the training did, `metrics`).
    """

    config: Config
    modules: nn.ModuleDict
    scaling: Scaling | None
    record: Record

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of a sample as the net sees it: `(d,)` or `(c, h, w)`; with an encoder, of its features."""
        return tuple(self.record["input"]["shape"])


def effective(config: Config) -> Record:
    """The whole configuration, as `config.json` has it: method, data, preset, and every key."""
    own = {"own": asdict(config.own)} if config.own else {}
    return {"method": config.method, "dataset": config.dataset, "preset": config.preset} | own | config.flat()


def published(config: Config) -> Record:
    """As `effective`, but of the user's own paths the last part alone: a model is handed on to others."""
    content = effective(config)
    if config.own is not None:
        content["own"] |= {key: Path(path).name for key in PATHS if os.path.isabs(path := content["own"][key] or "")}
    return content


def configured(content: Mapping[str, Any]) -> Config:
    """The configuration of which `content` is what `effective` gives. Raises InputError for what is none."""
    named = {key: content[key] for key in ("method", "dataset", "preset")}
    if named["method"] not in METHODS:
        raise InputError(f"unknown method {named['method']}")
    own = OwnData(**content["own"]) if content.get("own") else None
    flat = {key: value for key, value in content.items() if key not in (*named, "own")}
    return resolve(*named.values(), METHODS[named["method"]].stage_settings, flat, own=own)


def save(folder: Path, model: TrainedModel) -> None:
    """Write the folder, whole or not at all, in place of a model that is there.

    Raises InputError where `folder` holds anything else.
    """
    check_free(folder)
    tensors = {f"{name}.{key}": x.contiguous() for name, state in weights_of(model.modules).items()
               for key, x in state.items()}  # fmt: skip
    tensors |= _scaling_tensors(model.scaling)
    content = as_safetensors(tensors)
    assigner = type(model.modules[ASSIGNER]).__name__ if ASSIGNER in model.modules else None
    record = {
        "format": FORMAT,
        **model.record,
        "scaling": model.scaling and model.scaling.how,
        "modules": [name for name in model.modules if name != ASSIGNER],
        "assigner": assigner,
        "weights": {"name": WEIGHTS, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "versions": provenance.versions(),
        "configuration": published(model.config),
    }
    with _replacing(folder) as making:
        write_bytes(making / WEIGHTS, content)
        write_json(making / CONFIG, record)
        write_text(making / README, model_page(record))


def copy(source: Path, target: Path) -> None:
    """Copy a model's folder, whole or not at all; where there is none, there is none in the end.

    Raises InputError where `target` holds anything but a model.
    """
    check_free(target)
    if not source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        return
    with _replacing(target) as making:
        for name in FILES:
            shutil.copyfile(source / name, making / name)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A folder to write in, which takes the place of a model, if one is there, at the end of the block."""
    with replaced(folder) as making:
        making.mkdir()
        yield making
        for name in FILES:
            (folder / name).unlink(missing_ok=True)


def check_free(folder: Path) -> None:
    """Raises InputError where `folder` is there and holds more than a model."""
    try:
        others = sorted({path.name for path in folder.iterdir()} - {*FILES}) if folder.exists() else []
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from error
    if others:
        raise InputError(f"{folder} holds {others[0]}, which is no part of a model; expected: a new or empty folder")


def load(folder: Path, allow_code: bool = False) -> TrainedModel:
    """The model of a folder, in eval mode on the CPU; nothing is unpickled, and no file names code.

    With `allow_code` a backbone `package.module:function` is imported and called. Raises InputError, in one line that
    names the folder, for files that are missing, torn, foreign or not those that `config.json` was written for, and for
    such a backbone where it was not allowed.
    """
    record = read_record(folder)
    try:
        return _built(folder, record, allow_code)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    except KeyError as error:
        raise InputError(f"{folder} is no whole model: {CONFIG} or {WEIGHTS} lacks {error.args[0]}") from error
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError, OverflowError) as error:
        raise InputError(f"{folder} is no whole model: {' '.join(str(error).split())[:160]}") from error


def read_record(folder: Path) -> Record:
    """The content of `config.json`. Raises InputError where it is not that of a model of this format."""
    path = folder / CONFIG
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected: the folder of a model") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is torn or no JSON; expected: the folder of a model") from error
    if not isinstance(record, dict) or not isinstance(record.get("format"), int) or "modules" not in record:
        raise InputError(f"{path} is not that of a model; expected: a folder that a training leaves as {FOLDER}/")
    if record["format"] != FORMAT:
        raise InputError(f"{path} is of format {record['format']}, this raymc reads {FORMAT}")
    return record


def _built(folder: Path, record: Record, allow_code: bool) -> TrainedModel:
    for keys, part in NEEDED.items():
        facts = record if part is None else record[part]
        for key in keys if part != "encoder" or facts is not None else ():
            _ = facts[key]
    if not allow_code:
        encoder = record["encoder"]
        check_names(str(record["configuration"]["backbone"]), str(encoder["name"]) if encoder else None)
    config = configured(record["configuration"])
    weights = record["weights"]
    tensors = read_file(folder, str(weights["name"]), int(weights["bytes"]), str(weights["sha256"]))
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, key = name.partition(".")
        states.setdefault(module, {})[key] = tensor
    shape = _shape_of(record["input"])
    scaling = _scaling_of(record[SCALING], states.pop(SCALING, {}), shape)
    modules = nn.ModuleDict()
    with torch.random.fork_rng(devices=[]):
        for name in record["modules"]:
            modules[name] = METHODS[config.method].build(name, config, shape, int(record["n_clusters"]))
            modules[name].to(dtype_of(config)).load_state_dict(states.pop(name, {}), strict=True)
    if record[ASSIGNER] is not None:
        modules[ASSIGNER] = ASSIGNERS[record[ASSIGNER]](**states.pop(ASSIGNER))
    if states:
        raise InputError(f"{WEIGHTS} holds tensors of {min(states)}, which is no module of it")
    return TrainedModel(config, modules.eval().requires_grad_(False), scaling, record)


def check_names(backbone: str, encoder: str | None) -> None:
    """Raises InputError where what a model names would run code, or fetch or read something from elsewhere."""
    allowed = "only where you allow it: load_model(path, allow_code=True), or --allow-code"
    if is_named(backbone) and not backbone.startswith(TIMM):
        raise InputError(f"its backbone {backbone} is code, which is run {allowed}")
    if {":", "/", "\\"} & set(backbone.removeprefix(TIMM)):
        raise InputError(f"its backbone {backbone} is none of timm's own, and others are used {allowed}")
    library, _, model = (encoder or "").partition(":")
    if ":" in model or (library == TIMM[:-1] and "/" in model):
        raise InputError(f"its encoder {encoder} is none of the library's own, and others are used {allowed}")


def _shape_of(given: Mapping[str, Any]) -> tuple[int, ...]:
    """That of a sample. Raises ValueError where it is none of vectors or images."""
    shape, dtype = tuple(given["shape"]), KINDS[given["dtype"]]
    whole = all(isinstance(one, int) and one > 0 for one in shape)
    if not whole or len(shape) != (3 if dtype == torch.uint8 else 1):
        raise ValueError(f"samples of shape {list(shape)} and type {given['dtype']} are neither images nor vectors")
    return shape


def _scaling_tensors(scaling: Scaling | None) -> dict[str, Tensor]:
    if scaling is None:
        return {}
    return {f"{SCALING}.{name}": torch.from_numpy(getattr(scaling, name)) for name in ("shift", "width", "exact")}


def _scaling_of(how: str | None, state: Mapping[str, Tensor], shape: tuple[int, ...]) -> Scaling | None:
    if how is None:
        return None
    parts = {name: state[name] for name in ("shift", "width", "exact")}
    types = {"shift": torch.float64, "width": torch.float64, "exact": torch.bool}
    if how not in WORDS or any(x.shape != shape or x.dtype != types[name] for name, x in parts.items()):
        raise ValueError(f"its scaling ({how}) is not of {shape[0]} columns")
    return Scaling(how, **{name: x.numpy() for name, x in parts.items()})
