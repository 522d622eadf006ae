"""A folder of this machine that stands for one in an object store.

What writes and reads a study works with files. Where the study is in an object store, each process has a folder of its
own, gets what others wrote and gives what it wrote. Every file has one writer at a time, and an object appears whole
or not at all. What names others (`result.json`, `record.json`, `study.json`) is given last.
"""

from __future__ import annotations

import contextlib
import functools
import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raymc.atomic import replaced
from raymc.errors import StorageError, StorageLostError
from raymc.storage.objects import bucket_lost, filesystem, home, is_uri, listing, mark, patiently

LAST = ("result.json", "record.json", "study.json")
OWN = ("driver.lock", "driver.lease", "sent", "ray")
"""Names that mean something on one machine only."""

SECONDS = 2.0
"""Between two rounds, while a block runs."""
AT_ONCE = 8
SPACING_SECONDS = 1.0
"""Between two writes of one object: Google refuses more, and a database changes with each report of a trial."""


class Mirror:
    """Pulls and pushes the files of `folder` and `uri`; usable by several threads.

    A store that does not answer is waited for, see `raymc.storage.objects.patiently`.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri, folder
        self._fs, self._root = filesystem(uri)
        self._there: dict[str, tuple[int, object]] = {}
        self._here: dict[str, tuple[int, int]] = {}
        self._given: dict[str, float] = {}  # when an object was last written
        self._lock = threading.RLock()
        self.is_lost: Callable[[], bool] = lambda: False
        self.wanted: Callable[[str], bool] = lambda name: True

    def pull(self, *beginnings: str) -> None:
        """Get the files that are new or changed there and whose paths in the folder begin so (by default all)."""
        for begin in beginnings or ("",):
            patiently(functools.partial(self._pull, begin), self._fs, self.uri)

    def push(self, whole: bool = True) -> None:
        """Give all files that are new or changed here; if not `whole`, what was given just before goes next time.

        Raises StorageError where they are another's by now, StorageLostError where the store has lost its bucket.
        """
        self.check_ours()
        patiently(lambda: self._push(whole), self._fs, self.uri)

    def check_ours(self) -> None:
        """Raises StorageError where another process has taken over what this one was to write (`is_lost`)."""
        if self.is_lost():
            raise StorageError(f"{self.uri}: another process has taken it over, since this one was not heard of")

    def exists(self, name: str) -> bool:
        """Whether the store has the file."""
        return bool(patiently(lambda: self._fs.exists(f"{self._root}/{name}"), self._fs, self.uri))

    def remove(self, name: str) -> None:
        """Remove a file, here and in the store."""
        with self._lock:
            (self.folder / name).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                patiently(lambda: self._fs.rm_file(f"{self._root}/{name}"), self._fs, self.uri)
            self._there.pop(name, None)
            self._here.pop(name, None)

    @contextlib.contextmanager
    def pushing(self) -> Iterator[None]:
        """Push now and then while the block runs, and once more at its end."""
        with self._again_and_again(lambda: self._push(whole=False)):
            yield
        self.push()

    @contextlib.contextmanager
    def pulling(self, beginnings: Callable[[], Iterable[str]]) -> Iterator[None]:
        """Pull what begins as `beginnings` says now and then while the block runs."""

        def pull() -> None:
            for begin in beginnings():
                self._pull(begin)

        with self._again_and_again(pull):
            yield

    @contextlib.contextmanager
    def _again_and_again(self, do: Callable[[], None]) -> Iterator[None]:
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(SECONDS):
                with contextlib.suppress(
                    OSError, StorageLostError
                ):  # the next one, or the last, does what this one could not
                    do()

        thread = threading.Thread(target=work, name="raymc-mirror", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _pull(self, begin: str) -> None:
        with self._lock:
            above = "/".join((self._root, *begin.split("/")[:-1]))
            found = {path[len(self._root) + 1 :]: entry for path, entry in listing(self._fs, above).items()}
            asked = [name for name in found if name.startswith(begin) and _is_ours(name) and self.wanted(name)]
            for wave in _waves([name for name in asked if self._there.get(name) != found[name]]):
                self._each(wave, lambda name: self._get(name, found[name]))

    def _push(self, whole: bool) -> None:
        with self._lock:
            files = [path for path in self.folder.rglob("*") if path.is_file()]
            names = [path.relative_to(self.folder).as_posix() for path in files]
            now = {name: _stamp(self.folder / name) for name in names if _is_ours(name)}
            changed = [name for name, stamp in now.items() if stamp and self._here.get(name) != stamp]
            changed = [name for name in changed if whole or self._rest(name) <= 0]
            for wave in _waves(changed):
                self._each(wave, lambda name: self._put(name, now[name]))

    def _get(self, name: str, entry: tuple[int, object]) -> None:
        path = self.folder / name
        content = self._fs.cat_file(f"{self._root}/{name}")
        with replaced(path) as temporary:
            temporary.write_bytes(content)
            stamp = _stamp(temporary)
        self._there[name] = entry
        if stamp:
            self._here[name] = stamp

    def _rest(self, name: str) -> float:
        """Seconds until the object may be written again."""
        return self._given.get(name, -math.inf) + SPACING_SECONDS - time.monotonic()

    def _put(self, name: str, stamp: tuple[int, int] | None) -> None:
        time.sleep(max(0.0, self._rest(name)))
        try:
            content = (self.folder / name).read_bytes()
        except FileNotFoundError:  # it was for a moment only
            return
        if name.rpartition("/")[2] in LAST and _stamp(self.folder / name) != stamp:
            return  # written anew since the others were listed: the next push gives it after them
        try:
            self._fs.pipe_file(f"{self._root}/{name}", content)
        except FileNotFoundError as error:  # an object needs no folder
            raise bucket_lost(self.uri) from error
        self._given[name] = time.monotonic()
        self._there[name] = mark(self._fs, f"{self._root}/{name}")
        if stamp:
            self._here[name] = stamp

    def _each(self, names: list[str], do: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(do, names))


def mirror_of(storage: str, folder: Path) -> Mirror | None:
    """Of a folder below `home(storage)`; None where the storage is a folder itself."""
    if not is_uri(storage):
        return None
    return Mirror(f"{storage.rstrip('/')}/{folder.relative_to(home(storage)).as_posix()}", folder)


@contextlib.contextmanager
def fetched(storage: str, part: str, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Path]:
    """A part of a storage to be read: the folder itself, of a URI a copy, which goes with the block, of what is wanted.

    `wanted` is asked of each file's path in the part.
    """
    with followed(storage, part, wanted) as (folder, _):
        yield folder


@contextlib.contextmanager
def followed(
    storage: str, part: str, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """The same, and a function that brings the copy up to date."""
    if not is_uri(storage):
        yield Path(storage) / part, lambda: None
        return
    with tempfile.TemporaryDirectory(prefix="raymc-") as scratch:
        folder = Path(scratch) / part
        mirror = Mirror(f"{storage.rstrip('/')}/{part}", folder)
        mirror.wanted = wanted
        mirror.pull()
        yield folder, mirror.pull


def _waves(names: list[str]) -> Iterator[list[str]]:
    """Names that may go at the same time, those of LAST after all others."""
    by_rank: dict[int, list[str]] = {}
    for name in names:
        own = name.rpartition("/")[2]
        by_rank.setdefault(LAST.index(own) if own in LAST else -1, []).append(name)
    for rank in sorted(by_rank):
        yield by_rank[rank]


def _is_ours(name: str) -> bool:
    words = name.split("/")
    return not any(word.startswith(".") or word in OWN or word.endswith("-journal") for word in words)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns
