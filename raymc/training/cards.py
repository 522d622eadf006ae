"""Cards in Markdown: a model's page, and the parts that a checkpoint's has too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from raymc.datasets.scaling import WORDS


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def settings_table(settings: Mapping[str, object]) -> str:
    """Keys and their values, as JSON has them."""
    return table(["key", "value"], [[f"`{key}`", f"`{json.dumps(value)}`"] for key, value in settings.items()])


def versions_in_words(versions: Mapping[str, str | None]) -> str:
    """Of the packages that are installed."""
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def model_page(record: Mapping[str, Any]) -> str:
    """The page: what the model is, what it takes, and how it is used."""
    name = f"{record['method'].upper()} on {record['dataset']}"
    mark = " Its training was shortened (smoke)." if record["smoke"] else ""
    return f"""# {name}

Labels samples with one of {record["n_clusters"]} clusters and embeds them.{mark}

```python
import raymc
model = raymc.load_model("this folder")
model.predict(X), model.transform(X)     # cluster [n], embedding [n, m]
```

or `raymc predict FOLDER DATA --out labels.csv`. Reading it runs no code: JSON and safetensors.

{table(["", ""], _facts(record))}

## Configuration

{settings_table(record["configuration"])}
"""


def _facts(record: Mapping[str, Any]) -> list[list[str]]:
    shape, trained, encoder = record["input"]["shape"], record["training"], record["encoder"]
    kind = "images " if len(shape) == 3 else "rows of "
    given = kind + "x".join(map(str, shape)) + (" numbers" if len(shape) == 1 else " (channels, height, width)")
    rows = [["takes", given if encoder is None else f"{encoder['takes']}, through {encoder['name']}"]]
    if encoder is not None:
        side = f", side {encoder['side']}" if encoder["side"] else ""
        rows.append(["encoder", f"`{encoder['name']}`{side}, weights `{encoder['sha256']}`"])
    if record["input"]["columns"]:
        rows.append(["columns", ", ".join(f"`{name}`" for name in record["input"]["columns"])])
    ruled = f"{trained['ruled']:.4f} of the training's samples get the cluster that the training gave them"
    return [
        *rows,
        ["scaling", WORDS[record["scaling"]] if record["scaling"] else "none"],
        ["clusters by", record["clusters_by"]],
        ["new samples by", f"{record['assigner'] or 'the cluster head'}: {ruled}"],
        ["classes of the labels", ", ".join(record["classes"]) if record["classes"] else "not named"],
        ["trained on", f"{trained['n']:,} samples ({trained['split']}), seed {record['seed']}"],
        *([name, f"{trained['metrics'][name]:.4f}"] for name in ("acc", "nmi", "ari") if name in trained["metrics"]),
        ["weights", f"{record['weights']['bytes']:,} bytes, sha256 `{record['weights']['sha256']}`"],
        ["with", versions_in_words(record["versions"])],
    ]
