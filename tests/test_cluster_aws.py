"""`clusters/aws.yaml` through Ray's own launcher and AWS node provider, against moto's copy of the AWS interfaces.

moto is none of the project's requirements: `uv pip install 'moto[server]' boto3` in an environment of your own runs
these tests. What they cannot see: whether AWS grants the machines, and what the commands do on them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
boto3 = pytest.importorskip("boto3")
pytest.importorskip("ray")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parent.parent
REGION = "us-west-2"
SSH_FROM = "203.0.113.7/32"

# The launcher's ssh and rsync: what they were asked for is kept, nothing is reached.
RECORDER = """#!{python}
import json, os, shutil, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv) + "\\n")
for source in sys.argv[1:]:
    if os.path.basename(source).startswith("ray-bootstrap-"):
        shutil.copy(source, {bootstrap!r})
"""


@dataclass(frozen=True)
class Launcher:
    """A checkout and a home for Ray's commands, with an ssh and an rsync that only keep what they are asked."""

    home: Path
    checkout: Path

    def ray(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", *words],
            cwd=self.checkout,
            env=os.environ | {"HOME": str(self.home), "PATH": f"{self.home}/bin:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def calls(self, program: str) -> list[str]:
        lines = (self.home / "calls.jsonl").read_text().splitlines()
        return [" ".join(words[1:]) for words in map(json.loads, lines) if Path(words[0]).name == program]

    def head_config(self) -> dict[str, Any]:
        """The configuration that the head's autoscaler reads."""
        config = json.loads((self.home / "bootstrap.json").read_text())
        assert isinstance(config, dict)
        return config


@pytest.fixture(scope="module")
def aws() -> Iterator[None]:
    """moto is AWS for this process and its children, with the stack of aws-account.yaml deployed."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        deploy()
        yield
    server.stop()


def deploy() -> None:
    ec2 = boto3.client("ec2")
    subnets = sorted(ec2.describe_subnets()["Subnets"], key=lambda subnet: subnet["AvailabilityZone"])
    values = {
        "SshFrom": SSH_FROM,
        "BucketName": "raymc-example",
        "Vpc": subnets[0]["VpcId"],
    }
    boto3.client("cloudformation").create_stack(
        StackName="raymc",
        TemplateBody=(ROOT / "clusters/aws-account.yaml").read_text(),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
    )
    # What bake.sh leaves.
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    boto3.client("ssm").put_parameter(Name="/raymc/image", Value=image, Type="String", Overwrite=True)


@pytest.fixture(scope="module")
def launched(aws: None, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    """After `ray up clusters/aws.yaml`."""
    launcher = Launcher(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("checkout"))
    shutil.copytree(ROOT / "clusters", launcher.checkout / "clusters")
    (launcher.checkout / "dist").mkdir()
    (launcher.checkout / "dist/raymc-0-py3-none-any.whl").touch()
    (launcher.home / ".ray").mkdir()
    (launcher.home / ".ray/auth_token").write_text("of a test")
    (launcher.home / "bin").mkdir()
    for name in ("ssh", "rsync"):
        recorder = launcher.home / "bin" / name
        files = {"log": str(launcher.home / "calls.jsonl"), "bootstrap": str(launcher.home / "bootstrap.json")}
        recorder.write_text(RECORDER.format(python=sys.executable, **files))
        recorder.chmod(0o755)
    launcher.ray("up", "-y", "--no-config-cache", "clusters/aws.yaml")
    return launcher


def instances() -> list[dict[str, Any]]:
    pages = boto3.client("ec2").describe_instances()["Reservations"]
    found = [instance for page in pages for instance in page["Instances"]]
    return [instance for instance in found if instance["State"]["Name"] in ("pending", "running")]


def test_the_head_is_one_machine_on_demand_without_keys_and_with_encrypted_disks(launched: Launcher) -> None:
    (head,) = [i for i in instances() if {"Key": "ray-node-type", "Value": "head"} in i["Tags"]]
    assert head["InstanceType"] == "m7i.2xlarge"
    assert head.get("InstanceLifecycle") != "spot"
    assert head["IamInstanceProfile"]["Arn"].endswith("/raymc-head")
    volumes = boto3.client("ec2").describe_volumes()["Volumes"]
    assert volumes and all(volume["Encrypted"] for volume in volumes)


def test_the_security_group_admits_ssh_from_one_place_and_itself(launched: Launcher) -> None:
    """Ray opens port 22 to the world in groups that it makes; this one it finds made."""
    (group,) = boto3.client("ec2").describe_security_groups(Filters=[{"Name": "group-name", "Values": ["raymc"]}])[
        "SecurityGroups"
    ]
    (ssh,) = [rule for rule in group["IpPermissions"] if rule["IpRanges"]]
    assert (ssh["FromPort"], ssh["ToPort"]) == (22, 22)
    assert [found["CidrIp"] for found in ssh["IpRanges"]] == [SSH_FROM]
    (inside,) = [rule for rule in group["IpPermissions"] if not rule["IpRanges"]]
    assert [pair["GroupId"] for pair in inside["UserIdGroupPairs"]] == [group["GroupId"]]
    assert {g["GroupId"] for i in instances() for g in i["SecurityGroups"]} == {group["GroupId"]}


def test_files_are_sent_and_commands_run_on_the_head(launched: Launcher) -> None:
    for source in ("dist", "clusters", "auth_token"):
        assert any(source in call for call in launched.calls("rsync")), source
    config = yaml.safe_load((ROOT / "clusters/aws.yaml").read_text())
    for command in (*config["setup_commands"], *config["head_setup_commands"], "ray start --head"):
        assert any(command in call for call in launched.calls("ssh")), command


def test_a_search_is_sent_to_the_head(launched: Launcher) -> None:
    search = "python -m raymc.tune nmce_cifar20 --address auto --concurrent 16"
    launched.ray("exec", "--no-config-cache", "clusters/aws.yaml", search)
    assert search in launched.calls("ssh")[-1]


def provider_of(head_config: dict[str, Any]) -> Any:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    return AWSNodeProvider(head_config["provider"], head_config["cluster_name"])


@pytest.mark.parametrize(("name", "lifecycle"), [("gpu_spot", "spot"), ("gpu_on_demand", None)])
def test_the_head_can_start_each_type_of_worker(launched: Launcher, name: str, lifecycle: str | None) -> None:
    """With the configuration that the head got, through the provider that its autoscaler uses."""
    config = launched.head_config()
    provider, kind = provider_of(config), config["available_node_types"][name]
    made = provider.create_node(kind["node_config"], {"ray-node-type": "worker", "ray-user-node-type": name}, 1)
    (identifier,) = made
    (worker,) = [i for i in instances() if i["InstanceId"] == identifier]
    assert worker["InstanceType"] == "g6.2xlarge"
    assert worker.get("InstanceLifecycle") == lifecycle
    assert worker["IamInstanceProfile"]["Arn"].endswith("/raymc-worker")
    assert identifier in provider.non_terminated_nodes({"ray-user-node-type": name})
    provider.terminate_node(identifier)
    assert identifier not in provider.non_terminated_nodes({"ray-user-node-type": name})


def test_the_account_has_what_the_file_names(launched: Launcher) -> None:
    assert boto3.client("s3").get_bucket_encryption(Bucket="raymc-example")
    outputs = boto3.client("cloudformation").describe_stacks(StackName="raymc")["Stacks"][0]["Outputs"]
    values = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    assert values["BUCKET"] == "s3://raymc-example"


def test_more_machines_on_demand_by_a_second_up_and_all_end_by_down(launched: Launcher) -> None:
    file = launched.checkout / "clusters/aws.yaml"
    content = yaml.safe_load(file.read_text())
    content["available_node_types"]["gpu_on_demand"]["min_workers"] = 2
    file.write_text(yaml.safe_dump(content))
    (head,) = instances()
    launched.ray("up", "-y", "--no-config-cache", "--no-restart", "clusters/aws.yaml")
    assert launched.head_config()["available_node_types"]["gpu_on_demand"]["min_workers"] == 2
    assert [instance["InstanceId"] for instance in instances()] == [head["InstanceId"]], "the same head"
    launched.ray("down", "-y", "clusters/aws.yaml")
    assert instances() == []
