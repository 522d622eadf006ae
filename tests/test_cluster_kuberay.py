"""`clusters/kuberay.yaml` and `kuberay-search.yaml` without a Kubernetes.

`CRD` has the fields that the files use, with their types, as KubeRay declares them (ray-project/kuberay on GitHub,
Apache License 2.0: raycluster_types.go, of after 1.6, and rayjob_types.go in ray-operator/apis/ray/v1, from which its
CRDs are generated; those have 1.2 MB). What the operator refuses beyond them is in its controllers/ray/utils/
validation.go. Kubernetes' own objects are checked against its published schema where the package kubernetes-validate
is installed.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import raymc

ROOT = Path(__file__).parent.parent
TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
WORDS = {"type": "object", "additionalProperties": TEXT}


def record(required: str = "", **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": required.split(), "additionalProperties": False}


POD = record("spec", metadata={"type": "object"}, spec={"type": "object", "required": ["containers"]})
QUANTITIES = record(requests={"type": "object"}, limits={"type": "object"})
HEAD = record(
    "template", serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, rayStartParams=WORDS, template=POD
)
WORKERS = record(
    "groupName minReplicas maxReplicas template",
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    rayStartParams=WORDS,
    template=POD,
)
CRD = {
    "RayCluster": record(
        "headGroupSpec",
        rayVersion=TEXT,
        authOptions=record(mode={"enum": ["disabled", "token"]}),
        enableInTreeAutoscaling={"type": "boolean"},
        autoscalerOptions=record(version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=COUNT, resources=QUANTITIES),
        headGroupSpec=HEAD,
        workerGroupSpecs={"type": "array", "items": WORKERS},
    ),
    "RayJob": record(clusterSelector=WORDS, entrypoint=TEXT),
}


def documents() -> dict[str, Any]:
    """By kind; of two of a kind the first, which is raymc's."""
    search = yaml.safe_load((ROOT / "clusters/kuberay-search.yaml").read_text())
    return {document["kind"]: document for document in (search, *reversed(cluster_file()))}


def cluster_file() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "clusters/kuberay.yaml").read_text()))


def templates() -> list[dict[str, Any]]:
    cluster = documents()["RayCluster"]["spec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


@pytest.mark.parametrize("kind", sorted(CRD))
def test_fields_are_those_of_the_crd(kind: str) -> None:
    document = documents()[kind]
    assert document["apiVersion"] == "ray.io/v1"
    jsonschema.validate(document["spec"], CRD[kind])


def test_a_misspelt_field_is_found() -> None:
    spec = copy.deepcopy(documents()["RayCluster"]["spec"])
    spec["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(spec, CRD["RayCluster"])


def test_the_operator_refuses_nothing() -> None:
    """Its checks of a RayCluster with a token and the autoscaler's version 2, and of a RayJob on one that is there."""
    cluster, job = documents()["RayCluster"], documents()["RayJob"]
    for document in (cluster, job):
        name = document["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 47
    spec = cluster["spec"]
    assert tuple(int(part) for part in spec["rayVersion"].split(".")) >= (2, 52, 0), "tokens need it"
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["containers"] and pod.get("restartPolicy", "Never") == "Never"
        assert not {"labels", "redis-password", "redis-username"} & set(group["rayStartParams"])
        set_there = {variable["name"] for variable in pod["containers"][0]["env"]}
        assert not {"RAY_enable_autoscaler_v2", "RAY_REDIS_ADDRESS", "REDIS_USERNAME"} & set_there
    assert set(job["spec"]) == {"clusterSelector", "entrypoint"}, "no suspend and no sidecar, which a selector excludes"


def test_kubernetes_objects_by_kubernetes_schema() -> None:
    checker = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod{number}"}, "spec": spec}
        for number, spec in enumerate(templates())
    ]
    for document in (*(one for one in cluster_file() if one["kind"] != "RayCluster"), *pods):
        checker.validate(document, checker.latest_version(), strict=True)


def test_versions_are_those_of_the_project() -> None:
    pin = re.search(r"^ray==(\S+)", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)
    assert pin and documents()["RayCluster"]["spec"]["rayVersion"] == pin[1]
    for spec in templates():
        assert spec["containers"][0]["image"].endswith(f":{raymc.__version__}")


def test_head_keeps_trials_away() -> None:
    parameters = documents()["RayCluster"]["spec"]["headGroupSpec"]["rayStartParams"]
    assert parameters["num-cpus"] == "0"


def test_workers_come_and_go_on_spot_and_on_demand() -> None:
    cluster = documents()["RayCluster"]["spec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert 60 <= cluster["autoscalerOptions"]["idleTimeoutSeconds"] <= 1800
    assert all(group["minReplicas"] == 0 < group["maxReplicas"] for group in cluster["workerGroupSpecs"])
    markets = [spec.get("nodeSelector", {}).get("raymc/market") for spec in templates()]
    assert markets == [None, "spot", "on-demand"], "spot first: Ray takes the first of equal groups"


def test_nothing_is_open_and_no_pod_is_root() -> None:
    assert documents()["RayCluster"]["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert documents()["RayCluster"]["spec"]["authOptions"] == {"mode": "token"}
    policy = documents()["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == {} and policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    assert all("ipBlock" not in peer and "podSelector" in peer for peer in rule["from"])
    for spec in templates():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_job_runs_on_the_cluster_of_the_file_with_an_environment_it_has() -> None:
    parsed = documents()
    assert parsed["RayJob"]["spec"]["clusterSelector"] == {"ray.io/cluster": parsed["RayCluster"]["metadata"]["name"]}
    words = parsed["RayJob"]["spec"]["entrypoint"].split()
    assert words[:2] == ["raymc", "tune"] and (ROOT / f"search_spaces/{words[2]}.yaml").is_file()
    assert "--resume=auto" in words and "--name" in words, "the job that is applied again goes on with its study"
    for spec in templates():
        (container,) = spec["containers"]
        paths = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert "/shared" in mounted and paths["RAYMC_STORAGE"].startswith("/shared/")
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


def test_applying_the_cluster_starts_no_search() -> None:
    """The datasets are copied between the two files."""
    assert {one["kind"] for one in cluster_file()} & {"RayJob", "Job"} == set()


def test_databases_are_on_a_server_with_a_password_of_a_secret_that_workers_do_not_get() -> None:
    from raymc.study.database import check_url

    (server,) = documents()["Deployment"]["spec"]["template"]["spec"]["containers"]
    head, *workers = templates()
    environment = {one["name"]: one for one in head["containers"][0]["env"]}
    secret = {"secretKeyRef": {"name": "postgres", "key": "password"}}
    assert environment["POSTGRES_PASSWORD"]["valueFrom"] == secret
    assert {"name": "POSTGRES_PASSWORD", "valueFrom": secret} in server["env"]
    for name, database in (("RAYMC_DATABASE", "optuna"), ("MLFLOW_TRACKING_URI", "mlflow")):
        url = environment[name]["value"]
        assert check_url(url) and url.endswith(f":$(POSTGRES_PASSWORD)@postgres/{database}")
    ports = documents()["Service"]["spec"]
    assert ports["selector"] == documents()["Deployment"]["spec"]["selector"]["matchLabels"]
    for spec in workers:
        assert not [one for one in spec["containers"][0]["env"] if "valueFrom" in one or "postgres" in str(one)]
