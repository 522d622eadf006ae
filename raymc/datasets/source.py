"""What is known of a dataset before its files are read, and how they are verified."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from raymc.datasets.base import Dataset, Split, stored
from raymc.datasets.files import digest
from raymc.errors import InputError
from raymc.program import command_line


@dataclass(frozen=True)
class Source:
    """A known dataset.

    Attributes:
        name: as `raymc.datasets.load` takes it.
        samples: how many train and test must have.
        classes: labels go from 0 to classes - 1.
        shape: of one sample: (channels, height, width), or (dimensions,).
        reader: `(source, root) -> Dataset`; raises InputError naming the file that is missing or wrong.
        folders: where its files belong below the data folder; of several layouts the first that is there is
            read. Empty: the data need no files.
        marks: files by one of which such a folder is known; empty: the folder itself.
        fetched_by: the class of torchvision.datasets that downloads it, or empty.
        obtain: where else it is to be had.
        digests: path below the data folder -> `sha256:…` or `md5:…` of a file.
        pixels: words of `Dataset.source` -> fingerprint that the training samples then must have.
        in_files: how many the files of train and of test must hold, where `samples` are a part of them; else empty.
    """

    name: str
    samples: tuple[int, ...]
    classes: int
    shape: tuple[int, ...]
    reader: Callable[[Source, Path], Dataset]
    folders: tuple[str, ...] = ()
    fetched_by: str = ""
    obtain: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    pixels: Mapping[str, str] = field(default_factory=dict)
    in_files: tuple[int, ...] = ()
    marks: tuple[str, ...] = ()

    def found(self, root: Path) -> str | None:
        """The first of `folders` that is there, None if none is."""
        return next((folder for folder in self.folders if self._is_there(root / folder)), None)

    def _is_there(self, place: Path) -> bool:
        return os.path.isdir(place) and (not self.marks or any((place / mark).is_file() for mark in self.marks))

    def folder(self, root: Path) -> str:
        """As `found`; raises InputError where nothing is there, saying where the files belong."""
        found = self.found(root)
        if found is None:
            places = " or ".join(str(root / folder) for folder in self.folders)
            places = f"{' or '.join(self.marks)} in {places}" if self.marks else places
            raise InputError(f"{self.name}: {places} is missing; {self.how(root)}")
        return found

    def how(self, root: Path) -> str:
        """How to get the files into the datasets' folder, in words."""
        if self.fetched_by:
            return f"{command_line('data', ['get', self.name, '--data', str(root)])} fetches it"
        return f"obtain it from {self.obtain} and put it there"

    def dataset(self, root: Path, train: Split, test: Split | None, split: str, kind: str = "") -> Dataset:
        """The record of what was read from the folder; `split` and `kind` say in words which samples and files."""
        where = self.folder(root) + kind
        return stored(self.name, train, test, n_classes=self.classes, split=split, source=where)

    def load(self, root: Path) -> Dataset:
        """The dataset; raises InputError where a file is missing or is not what it should be."""
        return self.reader(self, root)

    def check(self, root: Path) -> dict[str, Any]:
        """Verify checksums where they are known, then counts by loading; raises InputError for what is wrong.

        Returns name, folder, sizes, samples per class (smallest and largest), the files and whether the pixels
        were verified, and the fingerprint.
        """
        verified = self._verify_files(root)
        data = self.load(root)
        known = self.pixels.get(data.source)
        if known is not None and data.fingerprint != known:
            place = root / (self.found(root) or "")
            raise InputError(f"{place}: the decoded samples have sha256 {data.fingerprint}; expected: {known}")
        counts = torch.bincount(data.train.y) if data.train.y is not None else torch.zeros(1, dtype=torch.int64)
        return {
            "name": self.name,
            "folder": self.found(root),
            "train": len(data.train),
            "test": len(data.test) if data.test else 0,
            "classes": data.n_classes,
            "per_class": [int(counts.min()), int(counts.max())],
            "split": data.split,
            "source": data.source,
            "files_verified": verified,
            "samples_verified": known is not None,
            "fingerprint": data.fingerprint,
        }

    def _verify_files(self, root: Path) -> list[str]:
        folder = self.found(root)
        known = {p: d for p, d in self.digests.items() if folder and p.startswith(folder) and (root / p).is_file()}
        for path, wanted in known.items():
            found = digest(root / path, wanted)
            if found != wanted:
                raise InputError(f"{root / path} has {found.replace(':', ' ')}; expected: {wanted.replace(':', ' ')}")
        return list(known)
