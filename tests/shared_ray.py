"""One Ray for all tests of this process that train on one: started by the first, ended with the process's tests.

Ray takes longer to start than most tests to run. A command that is called in the process uses the Ray that is there.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

_running = ExitStack()


def start() -> None:
    """Start it where it does not run yet, as `raymc` does, with the dashboard that Ray Train needs."""
    import ray

    if ray.is_initialized():
        return
    from raymc.execution.cluster import ray_session
    from raymc.execution.driver import quiet_environment

    _running.callback(_put_back, dict(os.environ))
    quiet_environment()
    _running.enter_context(ray_session(None, dashboard=True))


def end() -> None:
    """End it, for a test that needs a Ray of its own; the next one that asks for it starts it again."""
    _running.close()


def _put_back(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
