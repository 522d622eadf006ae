"""A checkpoint's card in Markdown, from what `card.json` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raymc.training.cards import settings_table, table, versions_in_words

POINTS = 12  # rows of the learning curve that the page shows; the whole of it is in `card.json`


def model_card(name: str, card: Mapping[str, Any]) -> str:
    """The page: what the weights are, how they were trained, how to go on from them."""
    data, rows = card["data"], _rows(card["curve"])
    files = [[file["name"], f"{file['bytes']:,}", f"`{file['sha256']}`"] for file in card["files"]]
    curve = [[f"{v:g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    return f"""# {name}

Weights after stage `{card["stage"]}` of {card["method"].upper()} on {data["name"]} ({data["split"]}), \
{card["epochs"]} epochs, seed {card["seed"]}. Matrices and kernels are in float16, biases and BatchNorm in float32.

```
{card["command"]}{f" --from {card['next']}" if card["next"] else ""}
```

goes on from here, and so does whatever else has a stage of this key. raymc looks for it in `./checkpoints`,
in its own source tree, or where RAYMC_CHECKPOINTS points, and checks every file before its weights are used.
{lacking(card)}

{table(["", ""], _facts(card))}

## Files

{table(["file", "bytes", "sha256"], files)}

## Learning curve

{table(list(rows[0]), curve)}

## Configuration

{settings_table(card["configuration"])}
"""


def lacking(card: Mapping[str, Any]) -> str:
    """What must be there beside the checkpoint of a stage that is not the first, in a sentence, else nothing."""
    needs = " and ".join(f"{one['stage']} {one['key']}" for one in card["needs"])
    begin = f"It holds only what stage {card['stage']} changed and is no start alone:"
    return f"{begin} the store, or checkpoints of their own, must have {needs} too." if needs else ""


def _facts(card: Mapping[str, Any]) -> list[list[str]]:
    run = card["made"] or card["exported"]
    hardware, versions = run["hardware"], run["versions"]
    rows = [
        ["key", f"`{card['key']}`"],
        ["stages", ", ".join(f"{one['stage']} `{one['key']}`" for one in card["chain"])],
        ["space", f"`{card['space']}`, preset `{card['preset']}`"],
        ["samples", f"{card['data']['n']:,}, sha256 `{card['data']['fingerprint']}`"],
        ["trained" if card["made"] else "exported", run["date"]],
        ["on", ", ".join([*hardware["gpus"], hardware["cpu"], f"{hardware['cores']} cores"])],
        ["with", versions_in_words(versions)],
        ["revision", f"`{run['git']}`" if run["git"] else "unknown"],
    ]
    if card.get("checkpoint"):
        rows.append(["weights from", f"the float16 checkpoint {card['checkpoint']}"])
    return rows


def _rows(curve: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The numbers of evenly spaced epochs, the first and the last among them."""
    last = len(curve) - 1
    picked = sorted({round(at * last / (POINTS - 1)) for at in range(POINTS)})
    numbers = [key for key in curve[0] if key not in ("stage", "epochs")]
    return [{key: curve[at].get(key, "") for key in numbers} for at in picked]
