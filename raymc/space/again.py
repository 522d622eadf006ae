"""A space file that trains one configuration again: what a training and a study's winner leave as `config.yaml`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from raymc.atomic import write_text
from raymc.config import Config
from raymc.program import command_line
from raymc.space.space import Space

CONFIG = "config.yaml"


def write_config(path: Path, space: Space, config: Config, but: str = "", smoke: bool = False) -> None:
    """Write the file by which `raymc train` has the very `config`, one of `space`: the same stage keys.

    `but` says what is not the same, in words; `smoke` whether it was shortened.
    """
    words = [path.name, *(["--smoke"] if smoke else [])]
    head = f"# The same training again{but}: {command_line('train', words)}\n"
    write_text(path, head + yaml.safe_dump(same_again(space, config), sort_keys=False, allow_unicode=True))


def same_again(space: Space, config: Config) -> dict[str, Any]:
    """The content of that file: method, data, preset, and under `fixed` the keys that differ from the preset."""
    # A preset that is made for the data may be another one where the file is read: no key is left to it.
    preset = {} if space.sizing else space.of_preset().flat()
    given = {key: value for key, value in config.flat().items() if key != "workers"}
    fixed = {key: value for key, value in given.items() if key not in preset or value != preset[key]}
    content: dict[str, Any] = {"method": space.method, "dataset": space.content["dataset"], "preset": space.preset}
    content |= {"fixed": fixed} if fixed else {}
    return content | ({"resources": {"workers": config.workers}} if config.workers > 1 else {})


def as_trained(space: Space, config: Config, shared: str | None, base: int | None) -> tuple[Config, str]:
    """`config` as a file can say it where the stages before `shared` had seed `base`, and what it cannot."""
    if shared not in space.stage_settings or shared == next(iter(space.stage_settings)) or base == 0:
        return replace(config, seeds_from=shared), ""
    return replace(config, seeds_from=None), f", but that the stages before {shared} had seed {base}"
