"""Files of weights: in the user's own place or a library's cache, read without running code, loaded strictly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raymc.errors import InputError
from raymc.program import command_line

WRAPPERS = ("state_dict", "model", "model_state", "net")  # under which training scripts keep their weights

State = Mapping[str, Tensor]


def elsewhere(name: str) -> str:
    """How the weights of the encoder `name` come to be here, in words."""
    fetch = command_line("embed", ["DATA", "--encoder", name, "--download"])
    return f"name a file by weights, or fetch it once: {fetch}"


def read_state(path: Path) -> State:
    """The weights by name of a `.safetensors` file, or of one that torch wrote, as tensors only.

    Raises InputError where it is missing, torn, or holds more than tensors.
    """
    expected = "expected: a file of weights (.safetensors, or torch's with tensors only)"
    if not path.is_file():
        raise InputError(f"{path} is missing; {expected}")
    try:
        content = _content(path)
    except Exception as error:  # torch, pickle, zipfile and safetensors each have their own for a torn file
        reason = str(error).split("\n")[0].split(". ")[0]
        raise InputError(f"{path} is torn or holds more than weights ({reason}); {expected}") from error
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} holds no weights by name; {expected}")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def load_strictly(net: nn.Module, state: State, path: Path, name: str) -> None:
    """Put the weights into `net`. Raises InputError that says by what they are of another net."""
    have = net.state_dict()
    lacking, unknown = have.keys() - state.keys(), state.keys() - have.keys()
    shapes = [key for key in have.keys() & state.keys() if have[key].shape != state[key].shape]
    wrong = [f"{len(lacking)} of its weights are not there ({min(lacking)})"] if lacking else []
    wrong += [f"{len(unknown)} are not its own ({min(unknown)})"] if unknown else []
    if shapes:
        found, key = state[min(shapes)], min(shapes)
        wrong.append(f"{key} is {_shape(found)} instead of {_shape(have[key])}")
    if wrong:
        raise InputError(f"{path} is of another net than {name}: {'; '.join(wrong)}")
    net.load_state_dict(state, strict=True)


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) or "one number"


def hub_file(name: str, repository: str, files: Sequence[str], download: bool) -> Path:
    """The first of `files` that the cache of huggingface.co has of `repository`. Raises InputError without any."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    for file in files:
        if isinstance(found := try_to_load_from_cache(repository, file), str):
            return Path(found)
    reason = ""
    for file in files if download else ():
        try:
            return Path(hf_hub_download(repository, file))
        except Exception as error:  # offline, no such file, no permission: each library below has its own
            reason = f" and could not be fetched ({str(error).splitlines()[0]})"
    place = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    raise InputError(f"encoder {name}: {' or '.join(files)} is not in {place}{reason}; {elsewhere(name)}")


@contextmanager
def offline(name: str) -> Iterator[None]:
    """No library asks huggingface.co for anything in the block; what its cache has is found.

    timm fetches the configuration of a model `hf-hub:…`, open_clip that of some texts' models, whatever they are told.
    """
    try:
        from huggingface_hub import constants
    except ImportError:  # then there is no library that could ask
        yield
        return
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    except InputError:
        raise
    except (ConnectionError, OSError) as error:  # what huggingface_hub raises for a file that its cache lacks
        place = constants.HF_HUB_CACHE
        raise InputError(f"encoder {name}: a file of it is not in {place}; {elsewhere(name)}") from error
    finally:
        constants.HF_HUB_OFFLINE = before


def url_file(name: str, url: str, folder: Path, download: bool) -> Path:
    """The file of `url` in the cache `folder`. Raises InputError where it is not there."""
    path = folder / url.rpartition("/")[2]
    if path.is_file():
        return path
    reason = ""
    if download:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), _hash_in(path.name))
            return path
        except (OSError, RuntimeError) as error:
            reason = f" and could not be fetched ({error})"
    raise InputError(f"encoder {name}: {path} is missing{reason}; {elsewhere(name)}")


def _hash_in(file: str) -> str | None:
    """The first digits of the sha256 that torch's files have in their names."""
    found = torch.hub.HASH_REGEX.search(file)
    return found.group(1) if found else None
