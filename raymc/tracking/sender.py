"""One pass over a study's records: everything that MLflow does not have yet, to the run that it belongs to."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from raymc.atomic import write_bytes
from raymc.tracking.client import Away, Client, Forgotten, Known, Refused
from raymc.tracking.projection import ENDINGS, Point, Run, TrialRuns, trial_places

IDENTITY = ("spool/id", "mlflow.id")
"""Where a study's id is: of studies made by older versions, and of others."""


class Sender:
    """Sends the runs of a study's folder to one experiment, each point once.

    How far a run is says MLflow itself, which is asked at the beginning and after every failure: a metric's points
    arrive in the order of their steps, so that its last step there is the cursor. Runs are found by the tags
    `raymc.spool` (an id kept in the folder, so that studies of one name are not mixed) and `raymc.run`.

    Attributes:
        study: the study's own run, which no record has.
        late: points that only the study as a whole gives, with the names of their runs.
        artifacts: files to keep with the study's run, and the folders there.
        over: nobody works at the study any more, so what has not ended was interrupted.
    """

    def __init__(self, folder: Path, tracking_uri: str, experiment: str, *, study: Run) -> None:
        self.folder, self.study, self.over = folder, study, False
        self.late: list[tuple[str, Point]] = []
        self.artifacts: list[tuple[Path, str | None]] = []
        self.client = Client(tracking_uri, experiment, {"raymc.spool": _identity(folder)})
        self._tags = {"raymc.study": study.title or study.name}
        self._known: dict[str, Known] = {}
        self._connected = False
        self._stamps: dict[str, object] = {}
        self._complete: set[tuple[str, int]] = set()

    def run_ids(self) -> dict[str, str]:
        """MLflow's run ids by name, as far as MLflow was reached."""
        return {name: known.run_id for name, known in dict(self._known).items()}

    def send_all(self) -> None:
        """Send what is new. Raises Away where MLflow does not take it; the next call asks what there is and goes on."""
        try:
            if not self._connected:
                self.client.connect()
                self._known, self._stamps, self._complete = self.client.runs(), {}, set()
                self._connected = True
            self._send_study()
        except BaseException as error:
            self._connected = False
            if isinstance(error, Forgotten):
                raise Away(f"{error}; all is sent again") from error
            if isinstance(error, Refused):  # of a run: its experiment may be deleted, which the next try says
                raise Away(str(error)) from error
            raise

    def _send_study(self) -> None:
        study, over, late, files = self.study, self.over, list(self.late), list(self.artifacts)
        known = self._open(study)
        for place in trial_places(self.folder):
            if place not in self._complete and self._send_trial(TrialRuns(self.folder, *place, over=over)):
                self._complete.add(place)
        for name in dict.fromkeys(name for name, _ in late):
            if name in self._known:
                self._deliver(self._known[name], [point for own, point in late if own == name])
        for path, folder in files:
            self.client.artifact(known.run_id, path, folder)
            self.artifacts.remove((path, folder))
        self._send(study)

    def _send_trial(self, trial: TrialRuns) -> bool:
        """Send a trial's runs; whether that was the last of it."""
        for name, state in trial.states.items():
            known, stamp = self._known.get(name), trial.stamp(name)
            if self._stamps.get(name) != stamp and not (known is not None and _is_ended(known, state)):
                self._send(trial.run(name, known.steps if known else {}))
                self._stamps[name] = stamp
        return bool(trial.states) and None not in trial.states.values()

    def _open(self, run: Run) -> Known:
        if run.name not in self._known:
            parent = self._known[run.parent].run_id if run.parent else None
            tags = {**self._tags, "raymc.run": run.name}
            self._known[run.name] = self.client.create_run(run.title or run.name, tags, parent, run.started)
        return self._known[run.name]

    def _send(self, run: Run) -> None:
        known = self._open(run)
        changes = known.status != run.status
        if changes and run.state is None:
            self.client.set_status(known.run_id, run.status)
        state = {} if run.state is None else {"raymc.state": run.state}
        self._deliver(known, run.points, run.params, {**run.tags, **state})
        if changes and run.state is not None:  # last, since a run that has ended is whole
            self.client.set_status(known.run_id, run.status, run.ended)
        known.status = run.status

    def _deliver(
        self, known: Known, points: Iterable[Point], params: Mapping[str, str] = {}, tags: Mapping[str, str] = {}
    ) -> None:
        if known.is_deleted:
            return
        steps, new = dict(known.steps), []
        for point in points:
            key, _, _, step = point
            if step > steps.get(key, -1):
                new.append(point)
                steps[key] = step
        # The first value of a parameter stands, the last one of a tag does.
        params = {key: value for key, value in params.items() if key not in known.params}
        tags = {key: value for key, value in tags.items() if known.tags.get(key) != value}
        self.client.deliver(known.run_id, new, params, tags)
        known.steps = steps
        known.params |= params
        known.tags |= tags


def _is_ended(known: Known, state: str | None) -> bool:
    """Whether MLflow has a run to its end: that is told last, so all else is there."""
    return state is not None and known.status == ENDINGS[state] and known.tags.get("raymc.state") == state


def _identity(folder: Path) -> str:
    """The id of a study's folder, given when it is first asked for."""
    for file in IDENTITY:
        if (folder / file).exists():
            return (folder / file).read_text().strip()
    identity = uuid.uuid4().hex
    write_bytes(folder / IDENTITY[-1], identity.encode())
    return identity
