"""How often the intervals of the mean cover it, and how far the scores of a search and of its confirmation are off.

    OMP_NUM_THREADS=1 python -m benchmarks.seed_statistics --json

No training: scores are drawn from known laws, in points of ACC. `normal` has the standard deviation of NMCE's row in
MLC's Table 6. `two modes` is derived from the row's ten values: with probability 0.8 from the normal of the eight seeds
that went well (77.9 to 83.7), with 0.2 from that of the two that did not (73.7 and 72.7).

Coverage: t and expanded are `ci95` and `ci95_bootstrap` of `raymc.metrics.seeds.summary`; percentile and BCa are
SciPy's, 10,000 resamples each. An interval that is too narrow covers too rarely.

Searches: `--trials` configurations whose true means are normal around the law's mean, with standard deviation
`--spread`; each is scored on `--seeds` seeds, and the best `--top` are run on `--fresh` new ones. A share `--shared` of
the variance between seeds is the seed's own, the same for all configurations. `off` is the mean of a score minus the
truth of the configuration that it belongs to, `se` its standard error over the simulated searches.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.stats import bootstrap

from benchmarks.machine import facts
from raymc.metrics.seeds import RESAMPLES, summary
from raymc.provenance import versions

WELL = (83.7, 82.1, 81.6, 80.4, 77.9, 81.7, 81.4, 80.9)
BADLY = (73.7, 72.7)
MEAN = float(np.mean(WELL + BADLY))
STD = float(np.std(WELL + BADLY, ddof=1))

Array = NDArray[Any]
Law = Callable[[np.random.Generator, tuple[int, ...]], Array]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(MEAN, STD, shape)


def two_modes(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    well, badly = (rng.normal(np.mean(mode), np.std(mode, ddof=1), shape) for mode in (WELL, BADLY))
    return np.where(rng.random(shape) < len(BADLY) / 10, badly, well)


LAWS: dict[str, Law] = {"normal": normal, "two modes": two_modes}  # both have mean MEAN


def coverage(name: str, n: int, repetitions: int, seed: int) -> dict[str, Any]:
    """Share of groups of n seeds whose interval holds the true mean, and the mean width of the intervals."""
    draws = LAWS[name](np.random.default_rng([seed, n]), (repetitions, n))
    found: dict[str, list[Sequence[float]]] = {"t": [], "expanded": [], "percentile": [], "BCa": []}
    for at, values in enumerate(draws):
        stats = summary(values.tolist())
        found["t"].append(stats["ci95"])
        found["expanded"].append(stats["ci95_bootstrap"])
        for method in ("percentile", "BCa"):
            found[method].append(_scipy_interval(values, method, [seed, n, at]))
    row: dict[str, Any] = {"law": name, "n": n, "repetitions": repetitions}
    for method, intervals in found.items():
        low, high = np.array(intervals).T
        row[method] = {"covers": float(np.mean((low <= MEAN) & (MEAN <= high))), "width": float(np.mean(high - low))}
    return row


def _scipy_interval(values: Array, method: str, seed: Sequence[int]) -> Sequence[float]:
    rng = np.random.default_rng(seed)
    done = bootstrap((values,), np.mean, n_resamples=RESAMPLES, vectorized=True, method=method, rng=rng)
    low, high = done.confidence_interval
    return float(low), float(high)


def searches(args: argparse.Namespace, name: str, shared: float, seed: int) -> dict[str, Any]:
    """Many searches at once: what was chosen by the search and by the confirmation, and how far its figures are off."""
    rng = np.random.default_rng([seed, round(100 * shared)])
    truth = rng.normal(MEAN, args.spread, (args.searches, args.trials))
    score = truth + _noise(rng, LAWS[name], (args.searches, args.trials, args.seeds), shared)
    best = np.argsort(-score, axis=1)[:, : args.top]
    among = np.take_along_axis(truth, best, 1)
    fresh = among + _noise(rng, LAWS[name], (args.searches, args.top, args.fresh), shared)
    again = among + _noise(rng, LAWS[name], (args.searches, args.top, args.fresh), shared)
    rows, first, winner = np.arange(args.searches), np.zeros(args.searches, int), fresh.argmax(1)
    figures = {
        "best by search: search score": (score[rows, best[:, 0]], first),
        "best by search: confirmed": (fresh[:, 0], first),
        "best by confirmation: search score": (score[rows, best[rows, winner]], winner),
        "best by confirmation: confirmed": (fresh[rows, winner], winner),
        "best by confirmation: seeds of a further run": (again[rows, winner], winner),
    }
    off = {figure: _mean(value - among[rows, which]) for figure, (value, which) in figures.items()}
    regret = {by: _mean(truth.max(1) - among[rows, w]) for by, w in (("search", first), ("confirmation", winner))}
    return {"law": name, "shared": shared, "off": off, "regret": regret}


def _noise(rng: np.random.Generator, law: Law, shape: tuple[int, int, int], shared: float) -> Array:
    """Mean over the seeds of what they add to a configuration's truth, `[searches, configurations]`."""
    own = law(rng, shape) - MEAN
    common = law(rng, (shape[0], 1, shape[2])) - MEAN
    noise: Array = (np.sqrt(1 - shared) * own + np.sqrt(shared) * common).mean(2)
    return noise


def _mean(values: Array) -> dict[str, float]:
    return {"mean": float(values.mean()), "se": float(values.std(ddof=1) / np.sqrt(len(values)))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=500, help="groups of seeds per law and size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--searches", type=int, default=20_000)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--spread", type=float, default=2.0, help="standard deviation of the true means, points")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--fresh", type=int, default=10)
    parser.add_argument("--shared", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    machine, begun = facts("cpu", 1), time.perf_counter()
    covered = [coverage(name, n, args.repetitions, args.seed) for name in LAWS for n in args.sizes]
    found = [searches(args, name, shared, args.seed) for name in LAWS for shared in args.shared]
    settings = {key: value for key, value in vars(args).items() if key != "json"}
    result = {
        "machine": machine,
        "versions": versions() | {"scipy": scipy.__version__},
        "settings": settings,
        "coverage": covered,
        "searches": found,
        "seconds": time.perf_counter() - begun,
    }
    if args.json:
        print(json.dumps(result, indent=1))
        return
    for row in covered:
        shares = "  ".join(f"{name} {row[name]['covers']:.3f}" for name in ("t", "expanded", "percentile", "BCa"))
        print(f"{row['law']}, n = {row['n']}: {shares}")
    for row in found:
        print(f"{row['law']}, {row['shared']:.0%} of the variance shared")
        for name, figure in [*row["off"].items(), *((f"regret by {by}", value) for by, value in row["regret"].items())]:
            print(f"  {name}: {figure['mean']:+.3f} ± {figure['se']:.3f}")


if __name__ == "__main__":
    main()
