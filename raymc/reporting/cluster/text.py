"""The methods of a run of `cluster` on the terminal."""

from __future__ import annotations

from raymc.reporting.aligned import aligned
from raymc.reporting.cluster.sentences import trust, verdict
from raymc.reporting.words import SMOKE, score
from raymc.stability.cluster import Clustering
from raymc.study.words import about_the_data, duration


def terminal_text(found: Clustering) -> str:
    """The verdict, a line for each method, and how far to trust the choice."""
    columns = ["agreement", "stability", "probe", "silhouette", *(("acc", "nmi", "ari") if found.labelled else ())]
    table = [["method", *columns, "time a seed"]]
    for row in found.rows():
        mark = " *" if row["name"] == found.chosen.name else ""
        seconds = "–" if row["seconds"] is None else duration(row["seconds"])
        table.append([f"{row['name']}{mark}", *(score(row.get(name)) for name in columns), seconds])
    smoke = [SMOKE, ""] if found.smoke else []
    said = [*filter(None, [about_the_data({"remarks": found.dataset.remarks})])]
    return "\n".join([*smoke, verdict(found), *said, "", aligned(table), "", *trust(found)])
