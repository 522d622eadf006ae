"""What a folder of the user's own holds: its images, the classes that its folders are, and what is left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from raymc.datasets.folders import SUFFIXES
from raymc.datasets.own_found import SHOWN
from raymc.errors import InputError

IMAGES = SUFFIXES | {".tif", ".tiff"}
EXPECTED = ", ".join(sorted(IMAGES))
UNREAD = set(".avif .gif .heic .heif .jfif .jp2 .jpe .jxl .pbm .pgm .pnm .ppm .tga".split())
SYSTEM = ("thumbs.db", "desktop.ini", ".ds_store")
BY_FOLDER = "folder"
"""What `label` is where a folder's first level is the class."""


class Listing(NamedTuple):
    """The images of a folder, in the order of folders and names.

    Attributes:
        images: their paths.
        labels: for each the name of a folder, or None.
        left_out: "; " and words for what else there is, or nothing.
    """

    images: list[Path]
    labels: list[str] | None
    left_out: str


def listed(folder: Path, label: str | None) -> Listing:
    """The images in `folder` and below.

    With `label` their classes are the folders of the first level, whatever is below; without, these are the classes
    where every image lies exactly in one of them, else there are none. Raises InputError.
    """
    kinds: Counter[str] = Counter()
    try:
        files = list(_walk(folder, kinds))
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read ({error.strerror}); expected: a folder of images") from error
    images = [path for path in files if path.suffix.lower() in IMAGES]
    kinds.update(_kind(path.name) for path in files if path.suffix.lower() not in IMAGES)
    _check_read(folder, files)
    if not images:
        raise InputError(f"{folder} holds no images; expected: {EXPECTED}; found: {_in_words(kinds) or 'nothing'}")
    depths = {len(path.relative_to(folder).parts) - 1 for path in images}
    left_out = f"; without {_in_words(kinds)}" if kinds else ""
    if label is None and depths != {1}:
        why = "; no labels, as not all images lie one folder deep (label: folder takes the first level)"
        return Listing(images, None, left_out if depths == {0} else why + left_out)
    return Listing(images, _first_level(folder, images), left_out)


def files_below(folder: Path) -> Iterator[Path]:
    """All files in the folder and below, ordered by folders and names; hidden files and folders are left out.

    A link to a folder that holds this one, or one on the way here, is not followed: it would never end. Raises OSError
    for a folder that cannot be read.
    """
    return _walk(folder, Counter())


def _walk(folder: Path, hidden: Counter[str], above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """As `files_below`; what is hidden is counted by kind."""
    chain = (*above, folder.resolve())
    with os.scandir(folder) as found:
        names = sorted(entry.name for entry in found)
    shown = []
    for name in names:
        if not _is_hidden(name):
            shown.append(folder / name)
        else:
            hidden["hidden folder" if (folder / name).is_dir() else _kind(name)] += 1
    yield from (path for path in shown if not path.is_dir())
    for path in shown:
        target = path.resolve()
        if path.is_dir() and not any(place.is_relative_to(target) for place in chain):
            yield from _walk(path, hidden, chain)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # where a Mac's archives keep what they hide


def _kind(name: str) -> str:
    """What a file that is no image is counted as."""
    if name.lower() in SYSTEM:
        return name
    if name.startswith("."):
        return "._" if name.startswith("._") else "hidden"
    return Path(name).suffix.lower() or "(no ending)"


def _in_words(kinds: Counter[str]) -> str:
    """`3 .txt, 2 ._ files and 1 hidden folder`, the most frequent kinds first."""
    folders = kinds["hidden folder"]
    files = sorted((-n, kind) for kind, n in kinds.items() if kind != "hidden folder")
    rest = -sum(n for n, _ in files[SHOWN:])
    words = [f"{-n} {kind}" for n, kind in files[:SHOWN]] + ([f"{rest} other"] if rest else [])
    parts = [f"{', '.join(words)} file{_s(-sum(n for n, _ in files))}"] if words else []
    parts += [f"{folders} hidden folder{_s(folders)}"] if folders else []
    return " and ".join(parts)


def _s(n: int) -> str:
    return "" if n == 1 else "s"


def _check_read(folder: Path, files: Sequence[Path]) -> None:
    """Raises InputError where there are images of a kind that is not read: they would be missing."""
    unread = [path for path in files if path.suffix.lower() in UNREAD]
    if unread:
        kinds = ", ".join(sorted({path.suffix.lower() for path in unread}))
        why = f"holds {len(unread)} images of a kind that is not read ({kinds}); the first is {unread[0]}"
        raise InputError(f"{folder} {why}; expected: {EXPECTED}; convert them, or move them away")


def _first_level(folder: Path, images: Sequence[Path]) -> list[str]:
    """For each image the folder of the first level that it lies in, or below. Raises InputError."""
    parts = [path.relative_to(folder).parts for path in images]
    flat = [path for path, names in zip(images, parts, strict=True) if len(names) == 1]
    if flat:
        why = f"{folder}: {len(flat)} of {len(images)} images lie in no folder below it; the first is {flat[0].name}"
        raise InputError(f"{why}; expected: a folder for each class, or no label: folder")
    here, full = folder.resolve(), {names[0] for names in parts}
    shown = sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))
    empty = [path for path in shown if path.name not in full and not here.is_relative_to(path.resolve())]
    if empty:
        raise InputError(f"{empty[0]} holds no images; expected: {EXPECTED}")
    return [text_below(folder / names[0], folder) for names in parts]


def text_below(path: Path, folder: Path) -> str:
    """The path below the folder; of a name that is no text the bytes are spelt out."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode(errors="backslashreplace")
