"""A real S3-compatible server for a test: SeaweedFS, one process on free ports of the loopback."""

from __future__ import annotations

import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.server_process import ServerProcess, free_port

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

KEY, OWNER, SECRET = "raymc", "owner", "a-secret-of-the-test"
BUCKET = "raymc-test"


def program() -> str | None:
    """SeaweedFS's `weed`, from the environment of the tests or PATH; None where it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class ObjectStore:
    """A server that can be stopped and started again on the same data; `env` is what its clients need."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._ports = [free_port() for _ in range(7)]
        actions = ["Read", "Write", "List", "Tagging"]  # whoever is Admin makes a bucket anew by writing into it
        rights = {KEY: actions, OWNER: [*actions, "Admin"]}
        identities = [
            {"name": name, "credentials": [{"accessKey": name, "secretKey": SECRET}], "actions": may}
            for name, may in rights.items()
        ]
        folder.mkdir(parents=True, exist_ok=True)
        self._process = ServerProcess(folder / "log")
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        self.start()
        self._make_bucket()

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        found = program()
        assert found is not None
        master, volume, filer, *grpc = self._ports
        words = [
            found,
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={self.folder / 'data'}",
            "-filer",
            "-s3",
        ]
        words += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={self.port}"]
        words += [f"-master.port.grpc={grpc[0]}", f"-volume.port.grpc={grpc[1]}", f"-filer.port.grpc={grpc[2]}"]
        words += [f"-s3.port.grpc={grpc[3]}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        words += [f"-s3.config={self.folder / 's3.json'}", "-volume.max=20", "-master.volumeSizeLimitMB=64"]
        (self.folder / "data").mkdir(exist_ok=True)
        self._process.start(words, self.folder)
        for _ in range(120):
            if self._answers():
                return
            time.sleep(0.5)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def stop(self) -> None:
        self._process.kill()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=2).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def remove_bucket(self) -> None:
        """Delete the bucket with all that is in it."""
        self._as_owner().delete_dir(BUCKET)

    def _as_owner(self) -> S3FileSystem:
        from pyarrow.fs import S3FileSystem

        return S3FileSystem(
            access_key=OWNER,
            secret_key=SECRET,
            endpoint_override=f"http://127.0.0.1:{self.port}",
            region="us-east-1",
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
        )

    def _make_bucket(self) -> None:
        for attempt in range(20):
            try:
                self._as_owner().create_dir(BUCKET)
                return
            except OSError:  # it answers before all of it is up
                if attempt == 19:
                    raise
                time.sleep(0.5)


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """A running server. AssertionError where SeaweedFS is missing: ask `program` before."""
    store = ObjectStore(folder)
    try:
        yield store
    finally:
        store.stop()
