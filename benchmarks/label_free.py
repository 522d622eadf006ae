"""How far each label-free score goes with ACC, over the trials of labelled studies: the tables of docs/label_free.md.

    python -m benchmarks.label_free raymc-storage/studies/nmce-digits raymc-storage/studies/mlc-digits
    python -m benchmarks.label_free reports/*/summary.json --json

Trains nothing: it reads folders of studies, or the summary.json of their reports.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raymc.errors import InputError
from raymc.metrics.names import RANKED, STUDY_METRICS
from raymc.reporting.search.facts import gather
from raymc.reporting.search.view import data_name
from raymc.study.reader import read_study

SCORES = (*RANKED, *STUDY_METRICS)


def read(path: Path) -> dict[str, Any]:
    """What a study's report says about choosing without labels. Raises InputError where there are no ACC or scores."""
    summary = path / "summary.json" if path.is_dir() else path
    if (path / "study.json").is_file():
        facts = gather(read_study(path))
    else:
        try:
            facts = json.loads(summary.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is neither a study's folder nor the summary.json of a report") from error
    found = facts.get("label_free")
    if not found or not found["scores"] or found["best"] is None:
        raise InputError(f"{path}: no trials with label-free scores and ACC")
    kept = {key: facts[key] for key in ("study", "method", "dataset", "seeds_varied", "objective")}
    return kept | {"seeds": facts["manifest"]["seeds"], "git": facts["manifest"]["git"], "label_free": found}


def table(
    head: str,
    studies: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    cell: Callable[[Mapping[str, Any], str], str],
) -> str:
    """A Markdown table with one row per study; `trials` are those that pass the gates."""
    rows = [["study", "trials", *columns]]
    for one in studies:
        found = one["label_free"]
        name = f"{one['method'].upper()} on {data_name(one)} (`{one['study']}`)"
        rows.append([name, str(found["trials"] - len(found["gated"])), *(cell(found, column) for column in columns)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "", lines[0], "|---|" + "---:|" * (len(rows[0]) - 1), *lines[1:]])


def correlation(found: Mapping[str, Any], score: str) -> str:
    """`0.81 (0.52 to 0.93)`; nothing where it is not defined."""
    row = _row(found, score)
    if row is None or row["rank_correlation"] is None:
        return ""
    ends = " ({:.2f} to {:.2f})".format(*row["interval"]) if row["interval"] else ""
    return f"{row['rank_correlation']:.2f}{ends}"


def regret(found: Mapping[str, Any], column: str) -> str:
    """Regrets in points of ACC; of `best` its ACC in per cent, of `at random` the mean regret of any trial."""
    if column == "best ACC":
        return f"{100 * found['best']['acc']:.1f} %"
    row = _row(found, column)
    value = found["chance_regret"] if column == "at random" else row["regret"] if row else None
    return "" if value is None else f"{100 * value:.1f}"


def _row(found: Mapping[str, Any], score: str) -> Mapping[str, Any] | None:
    return next((row for row in found["scores"] if row["score"] == score), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY", help="a study's folder, or a summary.json")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        studies = [read(path) for path in args.studies]
    except InputError as error:
        parser.error(str(error))
    if args.json:
        print(json.dumps(studies, indent=1))
        return
    print(table("Rank correlation with ACC (Spearman; 95 % interval):", studies, SCORES, correlation))
    print()
    print(table("Selection regret, points of ACC:", studies, ("best ACC", *SCORES, "at random"), regret))


if __name__ == "__main__":
    main()
