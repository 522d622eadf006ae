"""The end of a training: its metrics, and the files that it leaves."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from raymc import clusterers
from raymc.atomic import write_json
from raymc.config import Config
from raymc.metrics.rank_isometry import rank_and_isometry
from raymc.metrics.subspace import subspace_tables
from raymc.rng import seed_facts
from raymc.training import evaluate, inference, model_files, outputs, probing, rows, snapshots
from raymc.training.loop import Row
from raymc.training.model_files import TrainedModel
from raymc.training.precision import as_computed
from raymc.training.training import Training


def finish(
    training: Training,
    model: nn.ModuleDict,
    out: Path,
    records: list[Row],
    curve: list[Row],
    keep_model: bool,
    keep_rows: bool,
) -> Row | None:
    """Evaluate, write the files of a training into `out` and return the content of `metrics.json`.

    All workers take part in what is done on the device, which comes first and is given back then; the first one goes
    on alone, the others have None.
    """
    config, data = as_computed(training.config), training.dataset
    method, feed, seed = training.method, training.feed, training.cluster_seed
    found = evaluate.evaluate_model(method, model, config, data, feed, training.n_clusters, seed, training.banked)
    asked = (config.probe_views, config.probe_features)
    probed = probing.probe_features(method, model, data, feed, *asked) if config.probes else {}
    training.release_device(model)
    if found is None:
        return None
    metrics = evaluate.final_metrics(found, config, data, training.feed, seed)
    arrays = dict(found.arrays)
    z, ruled_labels, lengths = arrays.pop("embedding"), arrays.pop("ruled"), arrays.pop("coding_lengths", None)
    result: Row = {
        "method": config.method,
        "dataset": config.dataset,
        "seed": config.seed,
        "seeds": {name: seed_facts(seed) for name, seed in training.seeds.items()},
        "metrics": metrics,
        "stages": records,
        "n_clusters": int(metrics.get("clusters_found", training.n_clusters)),
        "n": len(data.train.x),
        "split": data.split,
        "clusters_by": clusterers.described(config, len(data.train), training.method.unit_rows),
        "test_n": 0 if data.test is None else len(data.test.x),
        **({} if data.classes is None else {"classes": list(data.classes)}),
        **({"remarks": list(data.remarks)} if data.remarks else {}),
        "precision": config.precision,
        "smoke": training.smoke,
        "out": str(out),
    }
    if lengths is not None:
        result["coding_lengths"] = {str(int(count)): length for count, length in lengths.tolist()}
    result["geometry"] = subspace_tables(z, arrays["labels"], data.train.y, *found.spectra)
    if config.probes:
        result["probes"] = probing.probes(probed, data)
        metrics |= probing.probe_metrics(result["probes"])
    write_json(out / "config.json", model_files.effective(config))
    labels = dict(arrays)
    if data.train.y is not None:
        labels["y"] = data.train.y
    if data.test is not None and data.test.y is not None:
        labels["test_y"] = data.test.y
    outputs.write_arrays(out / "labels.npz", labels)
    if keep_rows:
        rows.write_rows(out, data, arrays, z)
    outputs.write_curve(out / "curve.jsonl", curve)
    if data.train.x.dim() == 4:
        outputs.write_arrays(out / "gallery.npz", outputs.gallery(data.train.x, z, arrays["labels"]))
    outputs.write_arrays(out / "similarity.npz", outputs.similarity_map(z, arrays["labels"]))
    if not training.method.unit_rows:
        _picture(training, out, z, arrays["labels"])
    if keep_model:
        ruled = float((ruled_labels == arrays["labels"]).double().mean())
        model_files.save(out / model_files.FOLDER, _trained(training, config, model, result, ruled))
    write_json(out / "metrics.json", result)
    return result


def _picture(training: Training, out: Path, z: torch.Tensor, labels: torch.Tensor) -> None:
    """What the report shows of an embedding of points: its stages, its ranks and distances."""
    train = training.dataset.train
    if training.snapshots:
        some = snapshots.snapshot_rows(len(train))
        found = {int(epoch): points for epoch, points in training.snapshots.items()}
        pictures = outputs.snapshots(found) | {"labels": labels[some].long()}
        outputs.write_arrays(out / "snapshots.npz", pictures | ({} if train.y is None else {"y": train.y[some]}))
    x = inference.plain_inputs(training.feed, train.x)
    outputs.write_arrays(out / "geometry.npz", rank_and_isometry(x, z, labels))


def _trained(training: Training, config: Config, model: nn.ModuleDict, result: Row, ruled: float) -> TrainedModel:
    """The model that labels new samples; it labels a share `ruled` of those of the training as the training did."""
    data = training.dataset
    x = data.train.x
    record: Row = {
        **{key: result[key] for key in ("method", "dataset", "seed", "smoke", "n_clusters", "clusters_by")},
        "classes": None if data.classes is None else list(data.classes),
        "input": {
            "shape": list(x.shape[1:]),
            "dtype": str(x.dtype).removeprefix("torch."),
            "columns": None if data.columns is None else list(data.columns),
        },
        "encoder": None if data.encoder is None else dict(data.encoder),
        "training": {**{key: result[key] for key in ("n", "split", "seeds", "metrics")}, "ruled": ruled},
    }
    return TrainedModel(config, model, data.scaling, record)
