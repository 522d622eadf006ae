"""The files of `clusters/` without a cloud: Ray's own validation, what they open and cost, their shell commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CLUSTERS = ROOT / "clusters"
CLOUDS = ("aws", "gcp")
LAUNCHED = (*CLOUDS, "local")
STARTERS = (
    *("aws.yaml", "aws-account.yaml", "bake.sh", "gcp.yaml", "gcp-account.sh", "local.yaml", "slurm.sh"),
    *("kuberay.yaml", "kuberay-search.yaml"),
)
SCRIPTS = sorted(path.name for path in CLUSTERS.glob("*.sh"))
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def load(name: str) -> dict[str, Any]:
    content = yaml.safe_load((CLUSTERS / f"{name}.yaml").read_text())
    assert isinstance(content, dict)
    return content


def commands(name: str) -> list[str]:
    content = load(name)
    return [command for key in COMMANDS for command in content[key]]


def workers(name: str) -> dict[str, Any]:
    content = load(name)
    return {key: kind for key, kind in content["available_node_types"].items() if key != content["head_node_type"]}


class Strict(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; this loader does not."""


def strict_mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    assert not twice, f"{node.start_mark}: {twice} given twice"
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True) for key, value in node.value
    }


Strict.add_constructor("tag:yaml.org,2002:map", strict_mapping)


@pytest.mark.parametrize("path", sorted(CLUSTERS.glob("*.yaml")), ids=lambda path: path.name)
def test_yaml_has_no_key_twice_and_no_tabs_or_trailing_blanks(path: Path) -> None:
    text = path.read_text()
    assert [document for document in yaml.load_all(text, Loader=Strict) if document]
    assert not re.search(r"\t|[ ]+$|\r", text, flags=re.MULTILINE)
    assert text.endswith("\n") and not text.endswith("\n\n")


@pytest.mark.parametrize("path", sorted(CLUSTERS.glob("*.yaml")), ids=lambda path: path.name)
def test_yamllint(path: Path) -> None:
    yamllint = shutil.which("yamllint")
    if not yamllint:
        pytest.skip("yamllint is not installed")
    rules = "{extends: default, rules: {line-length: disable, document-start: disable}}"
    done = subprocess.run([yamllint, "--strict", "-d", rules, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", STARTERS)
def test_begins_with_what_it_starts_costs_and_opens(name: str) -> None:
    lines = (CLUSTERS / name).read_text().splitlines()
    head = "\n".join(line for line in lines[:40] if line.startswith("#") and not line.startswith("#SBATCH"))
    for word in ("Starts", "Costs", "Opens"):
        assert re.search(rf"\b{word}\b", head), word
    costs = head[head.index("Costs") :]
    assert re.search(r"an hour|a month|from now on", costs)
    assert not re.search(r"[$€]\s?\d|\d\s?(USD|EUR|dollars?)", head), "prices go stale: give a formula"


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_accepts_the_file(name: str) -> None:
    """Against Ray's schema as it stands, and as `ray up` fills in and validates it."""
    pytest.importorskip("ray")
    import json

    import jsonschema
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(load(name), schema)
    prepared = prepare_config(load(name))
    validate_config(prepared)
    assert prepared["setup_commands"] == load(name)["setup_commands"], "a default of Ray's slipped in"
    assert prepared["head_start_ray_commands"] == load(name)["head_start_ray_commands"]


def test_ray_refuses_a_mistake() -> None:
    """The check above can fail."""
    pytest.importorskip("ray")
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    for wrong in ({"idle_timeout_minute": 5}, {"max_workers": "eight"}, {"available_node_types": {"head": {}}}):
        with pytest.raises((ValidationError, KeyError, ValueError)):
            validate_config(prepare_config(load("aws") | wrong))


@pytest.mark.parametrize("name", LAUNCHED)
def test_sends_the_wheel_and_not_the_working_folder(name: str) -> None:
    sent = load(name)["file_mounts"]
    assert set(sent.values()) == {"dist", "clusters", "~/.ray/auth_token"}
    assert sent["~/raymc/dist"] == "dist" and sent["~/raymc/clusters"] == "clusters"
    recipe = (ROOT / "Makefile").read_text().split("\nwheel:")[1].split("\n\n")[0]
    assert (
        "build --quiet --wheel --out-dir dist" in recipe and "cp requirements-run.txt clusters/head.txt dist/" in recipe
    )
    assert sum(path.stat().st_size for path in CLUSTERS.iterdir()) < 200_000
    for command in commands(name):
        for script in re.findall(r"~/raymc/clusters/(\S+)", command):
            assert (CLUSTERS / script).is_file(), script


@pytest.mark.parametrize("name", LAUNCHED)
def test_dashboard_stays_on_loopback_and_ray_wants_a_token(name: str) -> None:
    (start,) = [command for command in commands(name) if "ray start --head" in command]
    assert "--dashboard-host=127.0.0.1" in start and "--autoscaling-config=~/ray_bootstrap_config.yaml" in start
    for command in commands(name):
        assert "ray start" not in command or ". ~/raymc/environment.sh" in command
    assert "export RAY_AUTH_MODE=token" in (CLUSTERS / "node.sh").read_text()
    assert "--host 127.0.0.1" in (CLUSTERS / "head.sh").read_text()


@pytest.mark.parametrize("name", CLOUDS)
def test_idle_machines_go_and_their_number_is_bounded(name: str) -> None:
    content = load(name)
    assert 1 <= content["idle_timeout_minutes"] <= 30
    assert content["provider"]["cache_stopped_nodes"] is False
    assert 1 <= content["max_workers"] <= 16
    assert content["available_node_types"]["head"]["max_workers"] == 0
    for kind in workers(name).values():
        assert kind["min_workers"] == 0 and 1 <= kind["max_workers"] <= content["max_workers"]


@pytest.mark.parametrize("name", CLOUDS)
def test_spot_with_the_same_machine_on_demand_behind_it(name: str) -> None:
    spot, on_demand = (dict(workers(name)[key]["node_config"]) for key in ("gpu_spot", "gpu_on_demand"))
    if name == "aws":
        assert spot.pop("InstanceMarketOptions")["MarketType"] == "spot"
    else:
        assert spot.pop("scheduling")["provisioningModel"] == "SPOT"
        assert on_demand.pop("scheduling")["provisioningModel"] == "STANDARD"
    assert spot == on_demand
    assert workers(name)["gpu_spot"]["resources"] == workers(name)["gpu_on_demand"]["resources"]
    head = str(load(name)["available_node_types"]["head"]["node_config"])
    assert "spot" not in head.lower()


def test_aws_disks_are_encrypted_and_no_machine_holds_a_key() -> None:
    for kind in load("aws")["available_node_types"].values():
        machine = kind["node_config"]
        assert machine["BlockDeviceMappings"]
        assert all(disk["Ebs"]["Encrypted"] is True for disk in machine["BlockDeviceMappings"])
        assert machine["IamInstanceProfile"]["Name"].startswith("raymc-")
        assert machine["MetadataOptions"]["HttpTokens"] == "required"
        assert machine["ImageId"].startswith("resolve:ssm:"), "ids of images expire"


def test_the_account_opens_ssh_alone_to_a_place_that_is_asked_for() -> None:
    content = load("aws-account")
    (rule,) = content["Resources"]["Group"]["Properties"]["SecurityGroupIngress"]
    assert (rule["FromPort"], rule["ToPort"], rule["CidrIp"]) == (22, 22, {"Ref": "SshFrom"})
    asked = content["Parameters"]["SshFrom"]
    assert "Default" not in asked
    assert re.fullmatch(asked["AllowedPattern"], "203.0.113.7/32")
    assert not re.fullmatch(asked["AllowedPattern"], "0.0.0.0/0")
    inside = content["Resources"]["GroupInside"]["Properties"]
    assert inside["SourceSecurityGroupId"] == inside["GroupId"]
    bucket = content["Resources"]["Bucket"]["Properties"]
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    assert bucket["BucketEncryption"]
    names = {
        load("aws")["available_node_types"][key]["node_config"]["IamInstanceProfile"]["Name"]
        for key in ("head", "gpu_spot")
    }
    assert names == {
        content["Resources"][key]["Properties"]["InstanceProfileName"] for key in ("HeadProfile", "WorkerProfile")
    }


def test_no_file_opens_a_port_to_the_world_or_holds_a_secret() -> None:
    secret = r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|(?i:password|secret_access_key|auth_token)\s*[=:]\s*['\"]?\w"
    for path in CLUSTERS.iterdir():
        text = path.read_text()
        assert "0.0.0.0" not in text, path.name
        assert not re.search(secret, text), path.name


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse_and_stop_at_the_first_error(name: str) -> None:
    subprocess.run(["bash", "-n", str(CLUSTERS / name)], check=True)
    assert "\nset -euo pipefail\n" in (CLUSTERS / name).read_text()


def shellcheck(text: str, *options: str) -> None:
    found = shutil.which("shellcheck")
    if not found:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([found, *options, "-"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_of_scripts(name: str) -> None:
    shellcheck((CLUSTERS / name).read_text())


@pytest.mark.parametrize("name", LAUNCHED)
def test_commands_of_the_launcher_parse(name: str) -> None:
    for command in commands(name):
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("name", LAUNCHED)
def test_shellcheck_of_the_launchers_commands(name: str) -> None:
    """SC1090, SC1091: the file that is sourced is made on the machine; SC2086: RAY_HEAD_IP is an address."""
    for command in commands(name):
        shellcheck(command, "--shell=bash", "--exclude=SC1090,SC1091,SC2086")


def test_wrong_words_to_the_scripts_are_one_line_and_two() -> None:
    for words in (
        ["bake.sh", "aws"],
        ["node.sh", "COLOUR=red"],
        ["gcp-account.sh", "a", "b", "0.0.0.0/0", "d"],
        ["slurm.sh"],
    ):
        done = subprocess.run(["bash", str(CLUSTERS / words[0]), *words[1:]], capture_output=True, text=True)
        assert done.returncode == 2, words
        assert len(done.stderr.splitlines()) == 1 and not done.stdout


def pins(path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), flags=re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_pins_of_machines_agree_with_the_pins_of_all() -> None:
    everywhere, head = pins(ROOT / "requirements.txt"), pins(CLUSTERS / "head.txt")
    assert {"boto3", "psycopg2-binary", "google-cloud-storage", "google-api-python-client", "mlflow"} <= set(head)
    for pinned in (head, pins(ROOT / "requirements-run.txt")):
        assert {n: v for n, v in pinned.items() if n in everywhere and v - everywhere[n]} == {}


def test_machines_install_what_a_run_needs_and_no_more() -> None:
    everywhere, run = pins(ROOT / "requirements.txt"), pins(ROOT / "requirements-run.txt")
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    needed = {re.split(r"[\[>=<]", one)[0].lower() for one in named}
    assert needed - set(run) == {"mlflow"}, "make requirements"
    assert set(run) <= set(everywhere)
    assert set(run).isdisjoint("mypy ruff pytest kornia timm transformers pre-commit mlflow flask".split())


def test_a_trial_and_the_command_of_a_new_machine_do_without_what_only_the_driver_has() -> None:
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "import raymc.execution.driver, raymc.execution.train_seed, raymc.execution.worker, raymc.training.run\n"
        "from raymc.commands import data\n"
        "data.run(data.parser().parse_args(['list']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_names_every_way_to_start() -> None:
    table = (CLUSTERS / "README.md").read_text()
    for path in CLUSTERS.iterdir():
        assert path.name == "README.md" or path.name in table, path.name
