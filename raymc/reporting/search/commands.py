"""The command lines that repeat a study, train its winner once more, and test the winner's stability.

They run in any folder and any shell: with the storage and the datasets' folder, and paths that are absolute.
"""

from __future__ import annotations

from collections.abc import Mapping

from raymc.program import command_line
from raymc.storage.objects import is_uri
from raymc.study.reader import Study
from raymc.study.records import Record
from raymc.values import written


def reproduce(study: Study, best: Record | None) -> dict[str, str]:
    """`{"search": …, "train": …, "stability": …}`; empty where there is no winner or the manifest does not say."""
    return {
        "search": str(study.get("command") or ""),
        "train": command_line("train", _train(study, best)) if best else "",
        "stability": command_line("stability", [study.name, *_options(study)]) if best else "",
    }


def _train(study: Study, best: Record) -> list[str]:
    """One fresh seed of the winner. With the base seed 0 and `seeds_from` it is that very training of the study."""
    given = {**(study.get("overrides") or {}), **best.params}
    values = {key: written(value) for key, value in given.items()}
    if study.get("seed") == 0 and study.get("seeds_from"):
        values["seeds_from"] = str(study.get("seeds_from"))
    settings = [f"{key}={value}" for key, value in values.items()]
    return [_space(study), *settings, "--seed", str(_seed(study)), *_options(study)]


def _space(study: Study) -> str:
    """The space's name where it came with raymc, else the study's own copy of the file, else where the file was."""
    name = str(study.get("space", "name") or study.name)
    place = str(study.get("space", "path") or name)
    copy = study.folder.absolute() / f"{name}.yaml"
    return str(copy) if place != name and not is_uri(_storage(study)) and copy.is_file() else place


def _storage(study: Study) -> str:
    """Where the study is: the store that it says, else by its folder `<storage>/studies/<name>`."""
    said = str(study.get("places", "storage") or "")
    return said if is_uri(said) else str(study.folder.absolute().parents[1])


def _options(study: Study) -> list[str]:
    dataset, data = study.get("space", "content", "dataset"), study.get("places", "data")
    known = not isinstance(dataset, Mapping) or "encoder" in dataset  # else a path of the user's own
    folder = ["--data", str(data)] if known and data else []
    return ["--storage", _storage(study), *folder, *(["--smoke"] if study.get("smoke") else [])]


def _seed(study: Study) -> int:
    seeds = study.get("confirm", "seeds") or study.get("seeds") or [study.get("seed") or 0]
    return int(seeds[0])
