"""Scripts of `clusters/` with apt and the clouds' programs faked: what they ask for, and what they leave."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CLUSTERS = Path(__file__).parent.parent / "clusters"
AWS = """
case "$*" in
  *get-parameter*) echo ami-base ;;
  *run-instances*) echo i-1 ;;
  *create-image*) echo ami-new ;;
  "s3 ls"*) exit $FAILED ;;
esac
"""
GCLOUD = """
case "$*" in
  *describe*) echo TERMINATED ;;
  *"storage ls"*) exit $FAILED ;;
  *add-iam-policy-binding*) grep -c add-iam calls >count; [ $(cat count) -gt 2 ] ;;
esac
"""


def run(folder: Path, *words: str, failed: int = 0) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    for name, text in (("aws", AWS), ("gcloud", GCLOUD), ("sleep", "")):
        fake = folder / name
        fake.write_text(f'#!/bin/bash\necho "{name} $*" >>{folder}/calls\ncd {folder}\n{text}')
        fake.chmod(0o755)
    shutil.copytree(CLUSTERS, folder / "clusters")
    (folder / "dist").mkdir()
    (folder / "dist/requirements-run.txt").touch()
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "FAILED": str(failed)}
    command = ["bash", str(folder / "clusters" / words[0]), *words[1:]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return done, (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize("failed", [0, 1])
@pytest.mark.parametrize(
    "words, machine, made, gone",
    [
        (["aws", "b"], "run-instances --image-id ami-base", "put-parameter --name /raymc/image", "terminate-instances"),
        (["gcp", "b", "p", "r"], "instances create raymc-bake --zone r-a", "images create", "delete raymc-bake"),
    ],
)
def test_an_image_is_made_of_a_machine_that_installed_itself_and_is_gone(
    tmp_path: Path, words: list[str], machine: str, made: str, gone: str, failed: int
) -> None:
    done, calls = run(tmp_path, "bake.sh", *words, failed=failed)
    said = "\n".join(calls)
    assert done.returncode == failed and ("installation failed" in done.stderr) == bool(failed), done.stderr
    assert machine in said and gone in said and (made in said) == (not failed)
    assert said.index(machine) < said.index(gone)
    script = said if words[0] == "aws" else (tmp_path / "dist/startup.sh").read_text()
    assert "node.sh STORAGE=none://image" in script and "shutdown -h now" in script
    if words[0] == "aws":
        assert "HttpTokens=required" in said and "Encrypted=true" in said
        if not failed:
            assert "--data-type aws:ec2:image --overwrite --value ami-new" in said


def test_accounts_of_google_get_their_roles_though_they_are_new(tmp_path: Path) -> None:
    done, calls = run(tmp_path, "gcp-account.sh", "p", "r", "203.0.113.7/32", "b")
    assert done.returncode == 0, done.stderr
    bound = [line for line in calls if "add-iam-policy-binding" in line]
    pairs = {(line.split("--role ")[1].split()[0], line.split(":")[-1].split("@")[0]) for line in bound}
    roles = ("roles/storage.objectUser", "roles/storage.legacyBucketReader")
    assert pairs == {(role, account) for role in roles for account in ("raymc-worker", "ray-autoscaler-sa-v1")}
    assert len(bound) == 6, "the first was asked for three times"


@pytest.mark.parametrize("name", ["node.sh", "head.sh"])
@pytest.mark.parametrize("busy, code", [(3, 0), (10**6, 1)])
def test_apt_that_is_busy_is_asked_again(tmp_path: Path, name: str, busy: int, code: int) -> None:
    """A machine that has just started holds apt's locks; that of `update` does not wait."""
    fake = f"#!/bin/sh\necho >>{tmp_path}/calls\n[ $(wc -l <{tmp_path}/calls) -gt {busy} ]\n"
    for program, text in (("sudo", fake), ("sleep", "#!/bin/sh\n")):
        (tmp_path / program).write_text(text)
        (tmp_path / program).chmod(0o755)
    line = re.search(r'^source "\$here/clusters/.*$', (CLUSTERS / name).read_text(), flags=re.MULTILINE)
    assert line
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"here={CLUSTERS.parent}\n{line[0]}\npackages tool"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code and len(done.stderr.splitlines()) == code, done.stderr
