"""Do Kubernetes' probes and the backend reach a daemon that has the manifests' settings?

Only places, sizes, the origin and the ports' numbers are the test's. The kubelet is a caller on
another host without a credential, and checks no certificate; a proxy's header makes one of a test.
"""

from __future__ import annotations

import json
import ssl
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support.daemons import ROOT, Daemon
from tests.support.secured import Credentials
from tests.support.server_processes import ReservedPort

MANIFESTS = ROOT / "deploy/kubernetes"
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
ELSEWHERE = {"X-Forwarded-For": "10.9.9.9"}
UNCHECKED = ssl._create_unverified_context()


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


def named_cachesvc(containers: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (each for each in containers if each["name"] == "cachesvc")
    return found


def flat(table: dict[str, Any], *path: str) -> Iterator[tuple[str, str]]:
    """Yield the variables, without their prefix, that say what a config file says."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, *path, name)
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            yield "__".join((*path, name)).upper(), text


def daemonset() -> tuple[dict[str, Any], dict[str, str]]:
    (text,) = documents("configmap.yaml")
    (pod,) = documents("daemonset.yaml")
    container = named_cachesvc(pod["spec"]["template"]["spec"]["containers"])
    return container, dict(flat(tomllib.loads(text["data"]["cachesvc.toml"])))


def sidecar() -> tuple[dict[str, Any], dict[str, str]]:
    *_, pod = documents("sidecar.yaml")
    container = named_cachesvc(pod["spec"]["initContainers"])
    return container, {
        each["name"].removeprefix("CACHESVC_"): each["value"] for each in container["env"]
    }


PODS = {"daemonset": daemonset, "sidecar": sidecar}


@pytest.fixture(scope="module", params=PODS)
def pod(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], Daemon, Credentials]]:
    container, settings = PODS[request.param]()
    folder = tmp_path_factory.mktemp(request.param)
    credentials = Credentials(folder)
    credentials.know(tokens=[{"name": "nestjs", "token": "of-nestjs", "roles": ["backend"]}])
    port = ReservedPort()
    ours = {
        "L1__MAX_BYTES": str(64 << 20),
        "ACCESS__FILE": str(credentials.access_file),
        "GRPC__LISTEN": settings["GRPC__LISTEN"].replace("8443", str(port.number)),
        **{f"{door}__TLS__CERT_FILE": str(credentials.cert_file) for door in ("GRPC", "HTTP")},
        **{f"{door}__TLS__KEY_FILE": str(credentials.key_file) for door in ("GRPC", "HTTP")},
    }
    assert ours.keys() <= settings.keys() | {"L1__MAX_BYTES"}
    with tempfile.TemporaryDirectory(prefix="cachesvc-test-", dir="/dev/shm") as memory:
        # As the kubelet makes an emptyDir under fsGroup.
        Path(memory).chmod(0o2777)
        places = {"L2__ROOT", "STATE_DIR", "ORIGIN__BUCKET"}
        kept = {name: value for name, value in settings.items() if name not in places}
        kept["RUNTIME_DIR"] = f"{memory}/run"
        daemon = Daemon(folder, kept | ours, is_forked=True)
        daemon.settings["HTTP__LISTEN"] = f"0.0.0.0:{daemon.http_port}"
        daemon.tls = UNCHECKED
        try:
            daemon.start()
            yield container, daemon, credentials
        finally:
            daemon.close()
            port.release()


def status_of(daemon: Daemon, path: str, scheme: str = "https") -> tuple[int, dict[str, Any]]:
    url = f"{scheme}://127.0.0.1:{daemon.http_port}{path}"
    asked = urllib.request.Request(url, headers=ELSEWHERE)
    try:
        with urllib.request.urlopen(asked, timeout=10, context=UNCHECKED) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.loads(exc.read())


def test_each_probe_is_answered_without_a_credential_and_nothing_else_is(
    pod: tuple[dict[str, Any], Daemon, Credentials],
) -> None:
    container, daemon, _ = pod
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    probes = [container[name] for name in PROBES if name in container]
    assert "livenessProbe" in container
    for probe in probes:
        asked = probe["httpGet"]
        assert ports[asked["port"]] == 8002
        status, body = status_of(daemon, asked["path"], asked["scheme"].lower())
        assert status == 200
        # What is wrong is for callers who are known.
        assert body.keys() == {"status"}
    for path in ("/metrics", "/health", "/api/status", "/"):
        assert status_of(daemon, path)[0] == 401


def test_the_backend_invalidates_there_with_a_token_of_its_role(
    pod: tuple[dict[str, Any], Daemon, Credentials],
) -> None:
    _, daemon, credentials = pod
    port = daemon.settings["GRPC__LISTEN"].rpartition(":")[2]
    token = (("authorization", "Bearer of-nestjs"),)
    with credentials.stub(f"127.0.0.1:{port}") as stub:
        answer = stub.Invalidate(pb.InvalidateRequest(user_id="user-7"), timeout=20, metadata=token)
    assert answer.invalidated_at.seconds > 0
