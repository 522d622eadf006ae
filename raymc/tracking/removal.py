"""Deleting the runs of a study in MLflow, which keeps them as deleted until `mlflow gc`."""

from __future__ import annotations

from collections.abc import Sequence

from raymc.errors import InputError
from raymc.masking import masked
from raymc.tracking.client import RUNS_PER_PAGE, Away, Forgotten, Refused, prepare, translated


def delete_runs(uri: str, spools: Sequence[str]) -> int:
    """Delete the runs of these ids of studies' folders; how many there were. Raises InputError without an answer."""
    prepare()
    from mlflow import MlflowClient

    found: list[str] = []
    try:
        with translated():
            client = MlflowClient(tracking_uri=uri)
            experiments = [one.experiment_id for one in client.search_experiments()]
            for spool in spools:
                token = None
                while experiments:
                    where = f"tags.`raymc.spool` = '{spool}'"
                    page = client.search_runs(experiments, where, max_results=RUNS_PER_PAGE, page_token=token)
                    found += [run.info.run_id for run in page]
                    token = page.token
                    if not token:
                        break
            for run in found:
                client.delete_run(run)
    except (Away, Forgotten, Refused) as error:
        raise InputError(f"MLflow at {masked(uri)}: {error}; nothing was deleted here") from error
    return len(found)
