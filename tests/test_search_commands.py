"""Every command that raymc prints, run as it is pasted: in another shell and folder, from an installed wheel."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import urllib.request
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.mlflow_server import wait_for
from tests.server_process import ServerProcess, free_port

ROWS, STORE = "my rows.csv", "it's a store"
SPACE = f"""
method: gcml
dataset: {{path: "{ROWS}", label: species}}
fixed: {{backbone: dense_256, pretrain.epochs: 1, finetune.epochs: 1, finetune.centers_by: kmeans, n_clusters: 3}}
space: {{scaling: {{choices: [none, null]}}}}
first: [{{scaling: none}}, {{scaling: null}}]
objective: {{metric: acc, mode: max, uses_labels: true}}
budget: {{trials: 2, seeds: 1, confirm: {{top: 1, seeds: 2}}}}
"""
GO_ON = "interrupted; go on with: "


class User:
    """Somebody with the programs in `bin`, whose files are in a folder with a space in its name."""

    def __init__(self, home: Path, bin: Path) -> None:
        self.home, self.bin, self.work = home, bin, home / "my work"
        self.work.mkdir()
        draw = np.random.default_rng(0)
        with (self.work / ROWS).open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["a", "b", "c", "species"])
            rows.writerows([*draw.normal([4.0 * (i % 3), 0, 50 * (i % 3 == 1)]), "uvw"[i % 3]] for i in range(60))
        (self.work / "mine.yaml").write_text(SPACE)

    def environment(self, on_path: bool) -> dict[str, str]:
        path = [str(self.bin)] if on_path else []
        own = {"HOME": str(self.home), "PATH": ":".join([*path, "/usr/bin", "/bin"]), "OMP_NUM_THREADS": "1"}
        return own | {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "COLUMNS": "200"}

    def start(self, line: str, folder: Path, on_path: bool = True, **variables: str) -> subprocess.Popen[str]:
        environment = self.environment(on_path) | variables
        return subprocess.Popen(
            ["/bin/sh", "-c", line], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
        )  # fmt: skip

    def run(self, line: str, folder: Path | None = None, on_path: bool = True, **variables: str) -> dict[str, Any]:
        """What `line` ends with as JSON, in a shell that knows nothing; beside its keys all that it printed."""
        out, err = (process := self.start(f"{line} --json", folder or self.home, on_path, **variables)).communicate()
        assert process.returncode == 0, f"{line}\n{err}"
        return json.loads(out.splitlines()[-1]) | {"shown": out, "err": err}

    def interrupted(self, line: str, after: str, on_path: bool = True, **variables: str) -> str:
        """The command by which `line`, interrupted once it has said `after`, asks to go on."""
        process = self.start(f"exec {line}", self.work, on_path, **variables)
        assert process.stderr is not None
        said = []
        for row in process.stderr:
            said.append(row)
            if after in row and process.poll() is None:
                process.send_signal(signal.SIGINT)
                after = "\0"
        process.communicate()
        assert process.returncode == 130, "".join(said)
        return next(row.removeprefix(GO_ON) for row in reversed(said) if row.startswith(GO_ON)).strip()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> User:
    return User(tmp_path_factory.mktemp("home"), installed)


@pytest.mark.slow
def test_what_a_search_prints_goes_on_and_reproduces(user: User) -> None:
    words = f"raymc tune mine.yaml --name mine --storage {shlex.quote(STORE)} --concurrent 1"
    line = user.interrupted(words, "trial 0 started")
    assert line.startswith("cd ") and " && raymc tune " in line
    done = user.run(line)
    assert done["trials"]["finished"] == 2
    page = user.work / "reports" / "mine"
    facts = json.loads((page / "summary.json").read_text())
    lines, best = facts["commands"], done["best"]

    again = user.run(lines["train"])
    seed = next(one for one in facts["confirmation"][0]["per_seed"] if one["seed"] == again["seed"])
    assert again["metrics"]["acc"] == seed["metrics"]["acc"] and all(stage["cached"] for stage in again["stages"])
    (said,) = re.findall(r"winner: trial \d+: (.*)", done["shown"])
    by_hand = user.run(f"raymc train mine.yaml {said} --seed {again['seed']} --storage {shlex.quote(STORE)}", user.work)
    assert by_hand["metrics"]["acc"] == seed["metrics"]["acc"]

    seeds = user.run(f"{lines['stability']} --seeds 2")
    rewritten = re.search(r"<pre>([^<]* report [^<]*)</pre>", Path(seeds["report"]).read_text())
    assert rewritten is not None and user.run(unescape(rewritten[1]))["study"] == seeds["name"]

    winner = Path(user.work, STORE, "studies", "mine", "winner")
    (first, *_) = (winner / "config.yaml").read_text().splitlines()
    assert user.run(first.partition(": ")[2], winner)["metrics"]["acc"] == seed["metrics"]["acc"]

    deleted = user.run(f"raymc studies delete mine --yes --storage {shlex.quote(STORE)}", user.work)["err"]
    (cleaning,) = re.findall("`(.*)`", deleted)
    user.run(f"{cleaning} --dry-run")
    repeated = user.run(lines["search"])
    assert repeated["best"]["params"] == best["params"] and repeated["best"]["metrics"] == best["metrics"]

    with (page / "trials.csv").open() as file:
        seconds = {row["trial"]: f"{float(row['seconds']):.1f}" for row in csv.DictReader(file)}
    told = re.findall(r"trial (\d+) finished .* after (\S+) s of training", repeated["err"])
    assert dict(told) == seconds and len(told) == 2, "the terminal's time is the table's"

    served = re.search(r"<code>([^<]*mlflow ui [^<]*)</code>", (page / "index.html").read_text())
    assert served is not None
    port = free_port()
    server = ServerProcess(user.home / "served.log")
    line = f"{unescape(served[1])} --port {port} --workers 1"
    server.start(["/bin/sh", "-c", line], user.home)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), 240)
    finally:
        server.kill()  # with its workers


@pytest.mark.slow
def test_what_train_and_cluster_print_by_a_python_that_is_not_on_the_path(user: User) -> None:
    python, variables = shlex.quote(str(user.bin / "python")), {"RAYMC_STORAGE": STORE}
    words = "-m raymc.train mine.yaml pretrain.epochs=400 scaling=null"
    line = user.interrupted(f"{python} {words}", "pretrain", on_path=False, **variables)
    assert f" RAYMC_STORAGE={shlex.quote(STORE)} {user.bin}/python -m raymc.train " in line
    done = user.run(line, on_path=False)
    assert done["stages"][0]["epochs"] == 400 and os.listdir(user.work / STORE)
    assert not (user.home / "raymc-storage").exists()

    card = (Path(done["out"]) / "model" / "README.md").read_text()
    predict = re.search("`raymc (predict FOLDER DATA --out labels.csv)`", card)
    assert predict is not None
    model, rows = (shlex.quote(str(place)) for place in (Path(done["out"]) / "model", user.work / ROWS))
    labelled = predict[1].replace("FOLDER", model).replace("DATA", rows)
    assert user.run(f"{python} -m raymc.{labelled}", user.home, on_path=False)["n"] == 60

    found = user.run(
        f"{python} -m raymc.cluster {shlex.quote(ROWS)} --clusters 3 --methods kmeans --seeds 2 --label species",
        user.work, on_path=False, **variables,
    )  # fmt: skip
    started = re.search(r"<pre>([^<]* -m raymc.cluster [^<]*)</pre>", Path(found["report"]).read_text())
    assert started is not None
    again = user.run(unescape(started[1]).removesuffix(" --json"), on_path=False)
    assert again["arms"] == found["arms"] and again["out"] == found["out"]
