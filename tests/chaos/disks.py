"""A small disk of its own that can be filled, go read-only under open files, and refuse new files; for root alone."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FAULTS = {
    "full": errno.ENOSPC,
    "read_only": errno.EROFS,
    "denied": errno.EPERM,
}
"""What happens to the disk, and the error that writers get."""

TOOLS = ("mkfs.ext4", "e2fsck", "mount", "umount", "chattr", "findmnt")


class Refused(Exception):
    """Disks cannot be mounted here; the message says why."""


class Disk:
    """An ext4 file system in a file, mounted at `place`."""

    def __init__(self, image: Path, place: Path, megabytes: int) -> None:
        self.image, self.place = image, place
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(megabytes * 2**20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        self._mount()

    def fault(self, kind: str) -> None:
        """Let it happen while files are open."""
        {"full": self._fill, "read_only": self._break, "denied": self._deny}[kind]()

    def mend(self, kind: str) -> None:
        """Undo it, as whoever looks after the machine would."""
        if kind == "full":
            (self.place / "ballast").unlink()
        elif kind == "read_only":
            self.close()
            self._mount()
        else:
            self._each_folder("-i")

    def close(self) -> None:
        """Unmount, and mend the file system where it was broken."""
        end = time.monotonic() + 60
        while subprocess.run(["umount", str(self.place)], capture_output=True).returncode:
            if time.monotonic() > end:
                _run("umount", "-l", str(self.place))
                break
            time.sleep(0.2)  # a process that was ended still closes its files
        subprocess.run(["e2fsck", "-fp", str(self.image)], capture_output=True)

    def _mount(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.place))

    def _fill(self) -> None:
        with (self.place / "ballast").open("wb", buffering=0) as file:
            size = 2**20
            while size:
                try:
                    file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2
            os.fsync(file.fileno())

    def _break(self) -> None:
        """Make the kernel meet an error in the file system: the disk is read-only from then on."""
        found = subprocess.run(["findmnt", "-n", "-o", "SOURCE", str(self.place)], capture_output=True, text=True)
        trigger = Path("/sys/fs/ext4") / Path(found.stdout.strip()).name / "trigger_fs_error"
        trigger.write_text("tests/chaos")

    def _deny(self) -> None:
        self._each_folder("+i")

    def _each_folder(self, flag: str) -> None:
        """Permissions do not bind root, immutable folders do: no file is made, renamed or removed in them."""
        folders = [folder for folder, _, _ in os.walk(self.place) if Path(folder).name != "lost+found"]
        _run("chattr", flag, *folders)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """A disk mounted at `folder/disk` for the length of the block. Raises Refused where that is not permitted."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        raise Refused(f"{', '.join(missing)} missing" if missing else "only root mounts disks")
    try:
        disk = Disk(folder / "image", folder / "disk", megabytes)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Refused(f"a disk cannot be mounted here: {error}") from error
    try:
        yield disk
    finally:
        subprocess.run(["chattr", "-R", "-i", str(disk.place)], capture_output=True)
        disk.close()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
