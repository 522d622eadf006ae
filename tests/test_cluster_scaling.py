"""Which machine Ray's autoscaler asks for, by its own scheduler on the files of `clusters/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray")

from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.schema import AutoscalerInstance
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated import instance_manager_pb2 as messages

CLUSTERS = Path(__file__).parent.parent / "clusters"
TRIAL = {"CPU": 2.0, "GPU": 0.25}  # nmce_cifar20's `resources`
clouds = pytest.mark.parametrize("name", ["aws", "gcp"])


def the_head() -> AutoscalerInstance:
    message = messages.Instance(
        instance_id="0", instance_type="head", status=messages.Instance.ALLOCATED, node_kind=messages.NodeKind.HEAD
    )
    return AutoscalerInstance(im_instance=message, cloud_instance_id="0")


def ask(
    name: str, requests: list[Any], monitor: CloudResourceMonitor | None = None, min_on_demand: int = 0
) -> dict[str, int]:
    """How many machines of which type are asked for."""
    content = yaml.safe_load((CLUSTERS / f"{name}.yaml").read_text())
    content["available_node_types"]["gpu_on_demand"]["min_workers"] = min_on_demand
    config = AutoscalingConfig(prepare_config(content), skip_content_hash=True)
    monitor = monitor or CloudResourceMonitor()
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(requests),
        current_instances=[the_head()],
        cloud_resource_availabilities=monitor.get_resource_availabilities(),
        recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities(),
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(request)
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def trials(count: int) -> list[Any]:
    return [ResourceRequestUtil.make(TRIAL) for _ in range(count)]


def event(kind: str, status: Any) -> Any:
    return messages.InstanceUpdateEvent(instance_type=kind, new_instance_status=status)


@clouds
def test_trials_that_wait_bring_spot_machines(name: str) -> None:
    """Four trials with a quarter of a GPU share a machine."""
    assert ask(name, trials(1)) == {"gpu_spot": 1}
    assert ask(name, trials(8)) == {"gpu_spot": 2}
    assert ask(name, trials(400)) == {"gpu_spot": 8, "gpu_on_demand": 2}, "the rest when spot is at its max_workers"


@clouds
def test_on_demand_after_a_spot_machine_that_did_not_come_up(name: str) -> None:
    monitor = CloudResourceMonitor()
    monitor.notify([event("gpu_spot", messages.Instance.ALLOCATION_TIMEOUT)])
    assert ask(name, trials(4), monitor) == {"gpu_on_demand": 1}


@clouds
def test_a_refused_spot_request_is_asked_again(name: str) -> None:
    """What clusters/README.md warns of. When this fails, Ray has learnt it, and the warning can go."""
    monitor = CloudResourceMonitor()
    monitor.notify([event("gpu_spot", messages.Instance.ALLOCATION_FAILED)])
    assert ask(name, trials(4), monitor) == {"gpu_spot": 1}


@clouds
def test_min_workers_brings_on_demand_machines_without_a_trial(name: str) -> None:
    """clusters/README.md's way out."""
    assert ask(name, [], min_on_demand=2) == {"gpu_on_demand": 2}
    assert ask(name, trials(8), min_on_demand=2) == {"gpu_on_demand": 2}, "the trials fit there"
