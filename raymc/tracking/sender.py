"""One pass over a study's spools: everything that MLflow does not have yet, to the run that it belongs to."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from raymc.atomic import write_text
from raymc.tracking.store import Away, Forgotten, Point, Store
from raymc.tracking.tail import Record, Tail


class Sender:
    """Sends `<folder>/*.jsonl` to the runs of one experiment, each line once.

    A run is found by the tags `raymc.spool` (an id kept in the folder, so that studies of one name are not mixed) and
    `raymc.run` (the spool's name): a resumed study goes on with its runs. What is sent twice after all, MLflow keeps
    once, since the time of a point comes from its record.
    """

    def __init__(self, folder: Path, tracking_uri: str, experiment: str, *, study: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        place = hashlib.sha256(f"{tracking_uri}\n{experiment}".encode()).hexdigest()[:12]
        self._folder = folder
        self._sent = folder / "sent" / place
        self._tails: dict[str, Tail] = {}
        tags = {"raymc.study": study, "raymc.spool": _identity(folder)}
        self.store = Store(tracking_uri, experiment, tags, found_by=("raymc.spool",))

    def run_ids(self) -> dict[str, str]:
        """MLflow's run ids by spool name, also those of earlier sittings."""
        names = {path.stem for path in self._sent.glob("*.json")} | set(self._tails)
        tails = [self._tails.get(name) or self._new_tail(name) for name in sorted(names)]
        return {tail.name: tail.run_id for tail in tails if tail.run_id is not None}

    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment, now or in an earlier sitting; None where MLflow was never reached."""
        kept = self._sent / "experiment"
        return self.store.experiment_id or (kept.read_text() if kept.exists() else None)

    def send_all(self) -> None:
        """Send what is new in all spools. Raises Away where MLflow does not take it; the next call goes on."""
        try:
            if self.store.experiment_id is None:
                self._connect()
            for path in sorted(self._folder.glob("*.jsonl")):
                self._send_spool(self._tail(path.stem))
        except Forgotten as error:
            for name in self.run_ids():
                self._tail(name).forget()
            self.store.experiment_id = None
            raise Away(f"{error}; all is sent again") from error

    def _connect(self) -> None:
        self.store.connect()
        write_text(self._sent / "experiment", str(self.store.experiment_id))
        known = next(iter(self.run_ids().values()), None)
        if known is not None and not self.store.knows(known):
            raise Forgotten("it does not know the study's runs")

    def _send_spool(self, tail: Tail) -> None:
        while tail.pending():
            records, end = tail.read()
            if end == tail.offset:
                return
            try:
                for part in parts(records):
                    self._send(tail, part)
                tail.commit(end)
            except BaseException:
                tail.rewind()
                raise
            if records and records[-1]["kind"] == "end":
                tail.rewind()

    def _send(self, tail: Tail, part: list[Record]) -> None:
        run_id, is_new = self._run(tail.name)
        first = part[0]
        if first["kind"] == "end":
            self.store.set_status(run_id, first["status"], first["time"])
        elif first["kind"] == "artifact":
            self.store.artifact(run_id, Path(first["path"]), first["folder"])
        else:
            if first["kind"] == "start" and not is_new:
                self.store.set_status(run_id, "RUNNING")
            self.store.deliver(run_id, *merged(part))

    def _run(self, name: str) -> tuple[str, bool]:
        """The run of a spool, made with the runs above it where it is not there yet; whether it is new."""
        tail = self._tail(name)
        if tail.run_id is not None:
            return tail.run_id, False
        head = tail.head()
        parent = head.get("parent")
        parent_id = self._run(parent)[0] if parent and parent != name else None
        run_id, is_new = self.store.open_run(name, head.get("name", name), parent_id, head.get("time"))
        tail.attach(run_id)
        return run_id, is_new

    def _tail(self, name: str) -> Tail:
        if name not in self._tails:
            self._tails[name] = self._new_tail(name)
        return self._tails[name]

    def _new_tail(self, name: str) -> Tail:
        return Tail(self._folder / f"{name}.jsonl", self._sent / f"{name}.json")


def parts(records: list[Record]) -> list[list[Record]]:
    """Rows of records that go together: metrics, tags and parameters, behind the start of a run if one is there."""
    rows: list[list[Record]] = []
    for record in records:
        alone = record["kind"] in ("start", "end", "artifact")
        if alone or not rows or rows[-1][0]["kind"] in ("end", "artifact"):
            rows.append([record])
        else:
            rows[-1].append(record)
    return rows


def merged(part: list[Record]) -> tuple[list[Point], dict[str, str], dict[str, str]]:
    """Points, parameters (the first value stands) and tags (the last one does) of a row of records."""
    points: list[Point] = []
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for record in part:
        if record["kind"] == "metrics":
            points += [(key, value, record["time"], record["step"]) for key, value in record["values"].items()]
        elif record["kind"] == "params":
            params = record["values"] | params
        elif record["kind"] == "tags":
            tags |= record["values"]
        elif record["kind"] == "start":
            params, tags = record["params"] | params, tags | record["tags"]
    return points, params, tags


def _identity(folder: Path) -> str:
    """The id of a spool folder, made when it is first asked for."""
    file = folder / "id"
    if not file.exists():
        write_text(file, uuid.uuid4().hex)
    return file.read_text().strip()
