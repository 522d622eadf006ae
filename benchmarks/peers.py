"""raymc beside other libraries on the same samples: ACC, NMI, seconds and peak memory of each, seed by seed.

    python -m benchmarks.peers OUT --environment PEERS --smoke --datasets digits --seeds 1     # the whole path, minutes
    python -m benchmarks.peers OUT --environment PEERS                                         # days of one core
    python -m benchmarks.peers OUT --environment PEERS --datasets --features cifar20_lite2_10k.npz

PEERS is a folder outside the repository: where there is no Python in it, uv makes an environment of `peers.txt` there
(6 GB with CUDA's libraries). On pixels and pen strokes ClustPy's deep methods stand beside raymc's, on features (an
.npz with x and y, as `raymc embed` leaves it) EVoC and HDBSCAN on UMAP beside MLC. Peers have their defaults
(`peer_fit.py`), raymc the default preset of the dataset, and `gcml_own` the preset that no label had a part in.

Each fit is a process of its own from start to end with an empty store: `seconds` and `cpu_seconds` hold imports and
loading too, and compiling where a peer compiles at its start. On a machine with other work compare `cpu_seconds`.
OUT keeps each fit: the same command goes on where it stopped. `OUT/results.json` has what is there, and the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.machine import facts
from benchmarks.samplers import shown
from raymc.atomic import write_json
from raymc.datasets import Dataset, load
from raymc.errors import InputError
from raymc.metrics import clustering_scores
from raymc.training.smoke import limit

HERE = Path(__file__).parent
CLUSTPY = ("dec", "idec", "n2d", "vade", "shade", "dipdeck")
PEERS = {**dict.fromkeys(CLUSTPY, "clustpy"), "evoc": "evoc", "evoc_clusters": "evoc", "umap_hdbscan": "umap-learn"}
DATASETS = {  # raymc's methods on each
    "digits": ("gcml", "gcml_own", "nmce", "mlc"),
    "usps": ("gcml", "gcml_own"),
    "pendigits": ("gcml", "gcml_own"),
    "fashion_mnist": ("gcml", "gcml_own"),
}
OF_FEATURES = ("mlc", "evoc", "evoc_clusters", "umap_hdbscan")
ROWS = {"fashion_mnist": 10_000}
SMOKE_ROWS = 300


@dataclass(frozen=True)
class Fit:
    """One method on one dataset with one seed; `file` is an .npz with x and y."""

    out: Path
    method: str
    dataset: str
    file: Path
    seed: int
    smoke: bool

    @property
    def row(self) -> Path:
        return self.out / "rows" / f"{self.dataset}-{self.method}-{self.seed}.json"


def environment(folder: Path) -> Path:
    """The peers' Python; made where there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--python", "3.11", str(folder)], check=True)
        install = [uv, "pip", "install", "--python", str(python), "-r", str(HERE / "peers.txt")]
        subprocess.run(install, check=True)
    return python


def export(out: Path, name: str, smoke: bool) -> Path:
    """The file of the samples of a dataset, flat and in 0..1, as an .npz."""
    rows = SMOKE_ROWS if smoke else ROWS.get(name)
    target = out / "data" / f"{name}.npz"
    if not target.exists():
        data: Dataset = load(name)
        data = data if rows is None else limit(data, rows, test=False)
        x = data.train.x.flatten(1)
        x = x.float() / (1.0 if x.is_floating_point() else 255.0)
        assert data.train.y is not None
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, x=x.numpy(), y=data.train.y.numpy())
    return target


def measured(command: Sequence[str], threads: int) -> dict[str, float]:
    """Wall and processor seconds and the most memory, MB, of a process. Raises InputError with its last line."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    with tempfile.TemporaryFile("w+") as messages:
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=messages, stderr=messages, env=os.environ | limits)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        messages.seek(0)
        if process.returncode:
            raise InputError((messages.read().strip().splitlines() or ["nothing said"])[-1][:200])
    cpu = used.ru_utime + used.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": used.ru_maxrss / 1024}


def peer(fit: Fit, python: Path, threads: int, folder: Path) -> dict[str, Any]:
    """A fit of another library."""
    y = np.load(fit.file)["y"]
    clusters, labels = len(np.unique(y)), folder / "labels.npy"
    words = [fit.method, str(fit.file), str(clusters), str(fit.seed), str(labels)]
    command = [str(python), str(HERE / "peer_fit.py"), *words, *(["--smoke"] if fit.smoke else [])]
    cost = measured(command, threads)
    found = np.unique(np.load(labels), return_inverse=True)[1]
    scores = clustering_scores(y, found)
    return {"acc": scores["acc"], "nmi": scores["nmi"], "clusters": int(found.max()) + 1, **cost}


def own(fit: Fit, threads: int, folder: Path) -> dict[str, Any]:
    """A fit of raymc."""
    method, _, preset = fit.method.partition("_")
    space: dict[str, Any] = {"method": method, "dataset": fit.dataset}
    if preset or fit.dataset not in DATASETS:
        data = {"path": str(fit.file.resolve()), "name": f"{fit.dataset}_rows"}
        space |= {"dataset": data, "preset": preset or "features"}
    (folder / "space.yaml").write_text(json.dumps(space), encoding="utf-8")
    words = [] if preset or fit.dataset not in ROWS else [f"n_samples={ROWS[fit.dataset]}"]
    place = ["--seed", str(fit.seed), "--out", str(folder / "out"), "--storage", str(folder / "storage")]
    command = [sys.executable, "-m", "raymc.train", str(folder / "space.yaml"), *words, *place]
    cost = measured([*command, *(["--smoke"] if fit.smoke else [])], threads)
    scores = json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    return {"acc": scores["acc"], "nmi": scores["nmi"], "clusters": int(scores["clusters_used"]), **cost}


def make(fit: Fit, python: Path, threads: int) -> None:
    """Fit, unless it was; what fails is noted, and tried again by the next call."""
    if fit.row.exists() and json.loads(fit.row.read_text(encoding="utf-8"))["acc"] is not None:
        return
    known = {"library": PEERS.get(fit.method, "raymc"), "method": fit.method, "dataset": fit.dataset, "seed": fit.seed}
    nothing = dict.fromkeys(("acc", "nmi", "seconds", "peak_mb"))
    with tempfile.TemporaryDirectory(dir=fit.out) as folder:
        try:
            place = Path(folder)
            found = own(fit, threads, place) if fit.method not in PEERS else peer(fit, python, threads, place)
        except InputError as error:
            found = nothing | {"error": str(error)}
    write_json(fit.row, known | found | {"threads": threads, "load": os.getloadavg()[0], "smoke": fit.smoke})


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, the best mean ACC of each dataset first."""
    lines = ["| dataset | method | library | seeds | ACC | NMI | clusters | seconds | of a core | peak MB |"]
    lines.append("|---|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        there = [row for row in rows if row["dataset"] == dataset and row["acc"] is not None]
        groups = [[row for row in there if row["method"] == one] for one in {row["method"] for row in there}]
        for group in sorted(groups, key=lambda group: -fmean(row["acc"] for row in group)):
            scores = [shown([row[name] for row in group], (0.0, 1.0)) for name in ("acc", "nmi")]
            keys = ("clusters", "seconds", "cpu_seconds", "peak_mb")
            costs = [f"{fmean(row[name] for row in group):.0f}" for name in keys]
            cells = [dataset, group[0]["method"], group[0]["library"], str(len(group)), *scores, *costs]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def results(out: Path, threads: int) -> list[dict[str, Any]]:
    """All rows; they are left in `results.json`."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "rows").glob("*.json"))]
    versions = (HERE / "peers.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in versions if line.split("==")[0] in {*PEERS.values(), "hdbscan", "torch"}]
    write_json(out / "results.json", {"machine": facts("cpu", threads), "peers": pins, "rows": rows})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--environment", type=Path, required=True, metavar="PEERS")
    parser.add_argument("--datasets", nargs="*", choices=list(DATASETS), default=list(DATASETS))
    parser.add_argument("--features", nargs="*", type=Path, default=[], metavar="NPZ", help="features, with x and y")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help=f"an epoch on {SMOKE_ROWS} samples; not for --features")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    python = environment(args.environment)
    plan = [(name, export(args.out, name, args.smoke), (*DATASETS[name], *CLUSTPY)) for name in args.datasets]
    plan += [(path.stem, path, OF_FEATURES) for path in args.features]
    for dataset, file, methods in plan:
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            for method in methods:
                if args.methods is None or method in args.methods:
                    make(Fit(args.out, method, dataset, file, seed, args.smoke), python, args.threads)
                    results(args.out, args.threads)
                    print(dataset, method, seed, flush=True)
    print(table(results(args.out, args.threads)))


if __name__ == "__main__":
    main()
