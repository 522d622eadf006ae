"""Sends a study's spools to MLflow from a thread of the driver, and goes on trying while MLflow is away."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from raymc.tracking.sender import Sender
from raymc.tracking.store import Away, prepare
from raymc.tracking.uri import masked

INTERVAL, LONGEST_WAIT = 1.0, 10.0
"""Seconds between two looks at the spools, and at most between two tries during an outage."""

logger = logging.getLogger("raymc.tracking")


class Shipper:
    """A thread that keeps MLflow up to date with `<spool_dir>/*.jsonl`.

    Nothing that happens in it reaches the caller: an outage is one warning and a lengthening wait, and since a spool
    is only left behind when MLflow has it, nothing is lost.

    Args:
        spool_dir: the study's spools; made if missing (OSError where it cannot be).
        tracking_uri: as `raymc.tracking.uri.resolve` returns it.
        experiment: name of the experiment.
        study: the study's name, a tag of all its runs.
        interval: seconds between two looks at the spools.
    """

    def __init__(
        self, spool_dir: Path, tracking_uri: str, experiment: str, *, study: str, interval: float = INTERVAL
    ) -> None:
        self._folder = spool_dir
        self._uri = tracking_uri
        self._interval = interval
        self._sender = Sender(spool_dir, tracking_uri, experiment, study=study)
        self._is_away = False
        self._asked = self._answered = 0
        self._closing = False
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment, now or in an earlier sitting; None where MLflow was never reached."""
        return self._sender.experiment_id()

    def run_ids(self) -> dict[str, str]:
        """MLflow's run ids by spool name, also those of earlier sittings."""
        return self._sender.run_ids()

    def start(self) -> None:
        """Import MLflow, which takes seconds, and start the thread."""
        # The import is done here: two threads that import large packages at once can see each other's half.
        prepare()
        self._thread = threading.Thread(target=self._work, name="raymc-shipper", daemon=True)
        self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait until MLflow has what was written before this call; False where that takes over `timeout` seconds."""
        if self._thread is None or not self._thread.is_alive():
            return False
        with self._turn:
            self._asked += 1
            asked = self._asked
            self._turn.notify_all()
            return self._turn.wait_for(lambda: self._answered >= asked, timeout)

    def close(self, timeout: float) -> bool:
        """Flush and stop; what MLflow did not take stays in the spools, and a warning says so."""
        done = self.flush(timeout)
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        if self._thread is not None:
            self._thread.join(1.0)
        if not done:
            logger.warning("MLflow has not everything; the rest waits in %s and goes with --resume", self._folder)
        return done

    def _work(self) -> None:
        wait = self._interval
        while not self._closing:
            asked = self._asked
            try:
                self._sender.send_all()
            except Exception as error:  # whatever it is: the training goes on, and the spools are kept
                wait = min(LONGEST_WAIT, 2 * wait)
                self._tell(error)
            else:
                wait = self._interval
                self._answer(asked)
            self._sleep(asked, wait)

    def _sleep(self, asked: int, seconds: float) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._closing or self._asked != asked, seconds)

    def _answer(self, asked: int) -> None:
        if self._is_away:
            logger.info("MLflow at %s is back", masked(self._uri))
        self._is_away = False
        with self._turn:
            self._answered = asked
            self._turn.notify_all()

    def _tell(self, error: Exception) -> None:
        if not self._is_away:
            trace = None if isinstance(error, Away | OSError) else error
            text = "MLflow at %s does not take metrics (%s); they wait in %s"
            logger.warning(text, masked(self._uri), error, self._folder, exc_info=trace)
        self._is_away = True
