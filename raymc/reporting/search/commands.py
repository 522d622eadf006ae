"""The command lines that repeat a study, train its winner once more, and test the winner's stability."""

from __future__ import annotations

import shlex

from raymc.study.reader import Study
from raymc.study.records import Record
from raymc.values import written


def reproduce(study: Study, best: Record | None) -> dict[str, str]:
    """`{"search": …, "train": …, "stability": …}`; empty where there is no winner or the manifest does not say."""
    return {
        "search": str(study.get("command") or ""),
        "train": _train(study, best) if best else "",
        "stability": _line("stability", study.name) if best else "",
    }


def _train(study: Study, best: Record) -> str:
    """One fresh seed of the winner. With the base seed 0 and `seeds_from` it is that very training of the study."""
    name = study.get("space", "name")
    by_name = name in _words(study)  # else by the path of the user's own file
    place = str(name if by_name else study.get("space", "path") or name or study.name)
    given = {**(study.get("overrides") or {}), **best.params}
    values = {key: written(value) for key, value in given.items()}
    if study.get("seed") == 0 and study.get("seeds_from"):
        values["seeds_from"] = str(study.get("seeds_from"))
    settings = [f"{key}={value}" for key, value in values.items()]
    smoke = ["--smoke"] if study.get("smoke") else []
    return _line("train", place, *settings, "--seed", str(_seed(study)), *smoke)


def _seed(study: Study) -> int:
    seeds = study.get("confirm", "seeds") or study.get("seeds") or [study.get("seed") or 0]
    return int(seeds[0])


def _words(study: Study) -> list[str]:
    try:
        return shlex.split(str(study.get("command") or ""))
    except ValueError:
        return []


def _line(word: str, *arguments: str) -> str:
    return shlex.join(("python", "-m", f"raymc.{word}", *arguments))
