"""Three processes with gloo groups of 1, 2 and 3 of them, started when first asked for and kept for the session.

`on_workers(f, [shard0, shard1])` calls `f(group, shard_r)` on the workers of the group of two and returns their
results. `f` must be a function of a module that can be imported; arrays travel as numpy.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

MOST = 3
PATIENCE = 120  # seconds until a worker that does not answer is an error


def on_workers(function: Callable[..., Any], shards: Sequence[Any], **options: Any) -> list[Any]:
    """The results of `function(group, shard, **options)` on as many workers as there are shards, by rank."""
    pipes = _pool()[: len(shards)]
    for pipe, shard in zip(pipes, shards, strict=True):
        pipe.send((len(shards), function, shard, options))
    answers = [pipe.recv() if pipe.poll(PATIENCE) else (False, "no answer") for pipe in pipes]
    wrong = [f"worker {rank}: {result}" for rank, (fine, result) in enumerate(answers) if not fine]
    if wrong:
        raise RuntimeError("\n".join(wrong))
    return [result for _, result in answers]


@functools.cache
def _pool() -> list[Connection]:
    folder = tempfile.TemporaryDirectory()
    context = multiprocessing.get_context("forkserver")  # its server has torch already, and no threads
    context.set_forkserver_preload(["torch", "tests.worker_functions"])
    pipes, processes = [], []
    for rank in range(MOST):
        ours, theirs = context.Pipe()
        store = os.path.join(folder.name, "store")
        process = context.Process(target=_worker, args=(rank, store, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    atexit.register(_close, pipes, processes, folder)
    return pipes


def _close(pipes: list[Connection], processes: list[Any], folder: tempfile.TemporaryDirectory[str]) -> None:
    for pipe in pipes:
        pipe.close()  # a worker that reads on meets the end and leaves
    for process in processes:
        process.join(10)
        if process.is_alive():
            process.kill()
    folder.cleanup()


def _worker(rank: int, store: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    timeout = timedelta(seconds=PATIENCE)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=MOST, timeout=timeout)
    groups = [dist.new_group(list(range(size))) for size in range(1, MOST + 1)]
    while True:
        try:
            size, function, shard, options = pipe.recv()
        except EOFError:
            break
        try:
            pipe.send((True, function(groups[size - 1], shard, **options)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()
