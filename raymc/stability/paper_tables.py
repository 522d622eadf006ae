"""Tables of the papers as data: `tables/<name>.yaml` says which cells are run and what the paper printed in them.

A row is an algorithm, a column a dataset. A row is run from a method's preset with fixed keys, or is only quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from raymc.config import Value, hint, nearest
from raymc.datasets import NAMES
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.space.format import Scalar, in_words
from raymc.space.resources import Resources
from raymc.space.section import Section
from raymc.space.space import Space, make_space
from raymc.space.yaml_text import parse_yaml

FEATURES = {"projection": "Proj", "pre_feature": "Pre-feature", "pool": "Pool"}
PROBES = {"svm": "SVM", "knn": "k-NN", "nearest_subspace": "NearSub"}
METRICS = {
    "acc": ("ACC", 4),
    "error_rate": ("error", 4),
    "nmi": ("NMI", 4),
    "ari": ("ARI", 4),
    "test_acc": ("test ACC", 4),
    "test_nmi": ("test NMI", 4),
    "test_ari": ("test ARI", 4),
    "rate_reduction": ("rate reduction", 3),
    "rre": ("RRE", 5),
    "trustworthiness": ("trust", 5),
    "continuity": ("cont", 5),
    "d_rmse": ("d-RMSE", 4),
    "lgd": ("LGD", 5),
    "cra": ("CRA", 3),
    "cra_centers": ("CRA of centres", 3),
    "downstream_mlp": ("MLP", 4),
    "downstream_rfc": ("RFC", 4),
    "downstream_svm": ("SVM", 4),
    "downstream_lr": ("LR", 4),
    **{
        f"{probe}_{feature}{suffix}": (f"{PROBES[probe]} {FEATURES[feature]}{ending}", 4)
        for probe in PROBES
        for suffix, ending in (("", ""), ("_averaged", " (avg)"))
        for feature in FEATURES
    },
}
"""What a table may show: its head there, and decimals of ours, two fewer where the table is in percent."""

ROW = re.compile(r"[a-z0-9][a-z0-9_]{0,40}")
FIGURE = re.compile(r"-|(-?\d+(?:\.\d+)?)(?:±(\d+(?:\.\d+)?))?")


class RowFile(Section):
    """One algorithm."""

    name: str = Field(description="as the paper calls it")
    quoted: bool = Field(default=False, description="the paper's figures alone: it is not run")
    method: str | None = Field(default=None, description="left out: that of the table")
    preset: str | None = Field(
        default=None, description="the values that all else starts from; left out: the method's own default"
    )
    fixed: dict[str, Scalar] = Field(default={}, description="what makes the row what it is; no command changes it")
    datasets: list[str] | None = Field(default=None, description="columns that it is run on; left out: all")
    by_dataset: dict[str, dict[str, Scalar]] = Field(default={}, description="the same for one dataset alone")
    paper: dict[str, Scalar] = Field(
        default={}, description="per dataset the figures as printed, in the metrics' order; 79.6±3.69 with a spread"
    )


class TableFile(Section):
    """A table of a paper."""

    title: str = Field(description="the paper's caption, in short")
    source: str = Field(description="paper and number of the table")
    note: str = Field(default="", description="what a reader has to know")
    method: str = Field(description="method of the rows that name none")
    metrics: list[str] = Field(description="what is shown", min_length=1)
    percent: bool = Field(default=False, description="its figures are printed in percent, and so are ours")
    seeds: int = Field(default=5, description="trainings of a cell", ge=1)
    seeds_from: str = Field(description="first stage that the seeds vary")
    resources: Resources = Field(default=Resources(), description="what one training takes")
    fixed: dict[str, Scalar] = Field(default={}, description="keys of all rows")
    columns: list[str] = Field(description="datasets", min_length=1)
    rows: dict[str, RowFile] = Field(description="algorithms, the cheap ones first", min_length=1)


@dataclass(frozen=True)
class Figure:
    """A number of a paper, as printed; `starred` where the paper says that its authors ran other people's code.

    `value` and `std`, None where the paper has no spread, are in the units of our metric, whatever the paper prints.
    """

    text: str
    value: float
    std: float | None = None
    starred: bool = False


@dataclass(frozen=True)
class TableRow:
    """`paper` holds for each dataset a figure, or None, for each metric; `own` are the keys that make the row.

    `datasets` are those that it is run on.
    """

    key: str
    name: str
    quoted: bool
    method: str
    preset: str | None
    datasets: tuple[str, ...]
    own: Mapping[str, Mapping[str, Value]]
    paper: Mapping[str, tuple[Figure | None, ...]]


@dataclass(frozen=True)
class PaperTable:
    """A validated table; `columns` are datasets, `rows` algorithms by their key."""

    name: str
    path: Path
    title: str
    source: str
    note: str
    metrics: tuple[str, ...]
    percent: bool
    seeds: int
    seeds_from: str
    resources: Resources
    fixed: Mapping[str, Value]
    columns: tuple[str, ...]
    rows: Mapping[str, TableRow]

    def cells(self) -> list[tuple[TableRow, str]]:
        """The cells that can be run: dataset by dataset, each by all algorithms."""
        return [(row, dataset) for dataset in self.columns for row in self.rows.values() if dataset in row.datasets]

    def space(self, row: TableRow, dataset: str, overrides: Mapping[str, Value] | None = None) -> Space:
        """The configuration of a cell, as a space that searches nothing.

        Raises InputError for overrides that the cell does not take, such as keys that make the row what it is.
        """
        own = row.own[dataset]
        for key in overrides or {}:
            if key in own:
                raise InputError(f"{row.key}/{dataset}: {key} is what the row is about ({own[key]}); leave it as it is")
        content: dict[str, Any] = {
            "method": row.method,
            "dataset": dataset,
            "preset": row.preset,
            "fixed": {"seeds_from": self.seeds_from, **self.fixed, **own},
            "resources": self.resources.model_dump(),
        }
        try:
            return make_space(self.path, content).pinned(overrides or {})
        except InputError as error:
            raise InputError(f"{row.key}/{dataset}: {error}") from error


def table_names() -> list[str]:
    """The names of the tables that come with raymc."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_table(name_or_path: str | Path) -> PaperTable:
    """The table of a name in `tables/`, or of a file of the user's own.

    Raises InputError, in one line, where it is unknown or invalid.
    """
    path = _find(str(name_or_path))
    try:
        return _build(path, _parse(parse_yaml(path.read_text(encoding="utf-8"))))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _folder() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "tables"
    return installed if installed.is_dir() else package.parent / "tables"


def _find(name: str) -> Path:
    known = table_names()
    if name in known:
        return _folder() / f"{name}.yaml"
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise InputError(f"{name}: no such file")
    raise InputError(f"unknown table {name}{nearest(name, known)} (known: {', '.join(known)})")


def _parse(content: object) -> TableFile:
    if not isinstance(content, dict):
        raise InputError("the file is not a mapping of keys to values")
    try:
        return TableFile.model_validate(content)
    except ValidationError as error:
        raise InputError(in_words(error)) from error


def _build(path: Path, file: TableFile) -> PaperTable:
    for what, names, known in (("dataset", file.columns, NAMES), ("metric", file.metrics, tuple(METRICS))):
        for name in names:
            if name not in known:
                raise InputError(f"unknown {what} {name}{hint(name, known)}")
        if len(set(names)) < len(names):
            raise InputError(f"a {what} stands twice")
    table = PaperTable(
        name=path.stem,
        path=path,
        title=file.title,
        source=file.source,
        note=file.note.strip(),
        metrics=tuple(file.metrics),
        percent=file.percent,
        seeds=file.seeds,
        seeds_from=file.seeds_from,
        resources=file.resources,
        fixed=file.fixed,
        columns=tuple(file.columns),
        rows={key: _row(key, row, file) for key, row in file.rows.items()},
    )
    for row, dataset in table.cells():
        table.space(row, dataset)
    return table


def _row(key: str, row: RowFile, file: TableFile) -> TableRow:
    if not ROW.fullmatch(key):
        raise InputError(f"rows.{key}: a row's key is of small letters, digits and _; its name is as you like")
    for section, there in (("by_dataset", row.by_dataset), ("paper", row.paper), ("datasets", row.datasets or ())):
        for dataset in there:
            if dataset not in file.columns:
                raise InputError(f"rows.{key}.{section}: {dataset} is no column{nearest(dataset, file.columns)}")
    paper = {dataset: _figures(f"rows.{key}.paper.{dataset}", str(text), file) for dataset, text in row.paper.items()}
    own = {dataset: row.fixed | row.by_dataset.get(dataset, {}) for dataset in file.columns}
    run_on = () if row.quoted else tuple(row.datasets or file.columns)
    method = row.method or file.method
    preset = row.preset or (METHODS[method].default_preset if method in METHODS else None)
    return TableRow(key, row.name, row.quoted, method, preset, run_on, own, paper)


def _figures(place: str, text: str, file: TableFile) -> tuple[Figure | None, ...]:
    """`0.532/0.500*`, or `0.9746 - 0.9859±0.001`: one for each metric, `-` for none."""
    starred = text.endswith("*")
    words = text.removesuffix("*").replace("/", " ").split()
    if len(words) != len(file.metrics):
        raise InputError(f"{place}: {len(words)} figures for {len(file.metrics)} metrics")
    return tuple(_figure(place, word, starred, 100 if file.percent else 1) for word in words)


def _figure(place: str, word: str, starred: bool, scale: int) -> Figure | None:
    found = FIGURE.fullmatch(word)
    if found is None:
        raise InputError(f"{place}: {word} is neither a figure nor -")
    if word == "-":
        return None
    value, std = found.groups()
    return Figure(word, float(value) / scale, float(std) / scale if std else None, starred)
