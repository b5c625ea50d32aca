"""Promise 10: principal x method x listener, every cell; unknown means denied.

The table of what each role may do is written out here, apart from the product's: a wrong cell fails
by name. 127.0.0.2 stands for "beyond loopback".
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support.certificates import Authority, Certificate
from tests.support.daemons import Daemon, stub_on
from tests.support.grpc_calls import Refusal, put_messages, refused
from tests.support.secured import Credentials, bearer, secured_daemon
from tests.support.server_processes import ReservedPort

Code = grpc.StatusCode
TIMEOUT_S = 10
UPPER = pb.HUMAN_CATEGORY_UPPER_BODY
DELIVERY_NONE = pb.DELIVERY_NONE
NOBODY = "nobody-7"
KEY = pb.EntryKey(namespace="garment", id=NOBODY)
Metadata = tuple[tuple[str, str], ...] | None
Call = Callable[[grpc.Channel, Metadata], Any]


def unary(method: str, request: Any) -> Call:
    def call(channel: grpc.Channel, metadata: Metadata) -> Any:
        answer = getattr(stub_on(channel), method)(request, timeout=TIMEOUT_S, metadata=metadata)
        return list(answer) if hasattr(answer, "__iter__") else answer

    return call


def put(channel: grpc.Channel, metadata: Metadata) -> Any:
    messages = put_messages(pb.PutHeader(key=KEY), b"no blob")
    return stub_on(channel).Put(messages, timeout=TIMEOUT_S, metadata=metadata)


def check_health(channel: grpc.Channel, metadata: Metadata) -> Any:
    stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
    return stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S, metadata=metadata)


def watch_health(channel: grpc.Channel, metadata: Metadata) -> Any:
    stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
    watched = stub.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S, metadata=metadata)
    first = next(watched)
    watched.cancel()
    return first


def reflect(channel: grpc.Channel, metadata: Metadata) -> Any:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    return list(stub.ServerReflectionInfo(iter([ask]), timeout=TIMEOUT_S, metadata=metadata))


# None of these ids exists: a role that may call gets an answer, or an error other than denied.
CALLS: dict[str, Call] = {
    "GetHuman": unary("GetHuman", pb.GetHumanRequest(user_id=NOBODY, category=UPPER)),
    "GetHuman NONE": unary(
        "GetHuman", pb.GetHumanRequest(user_id=NOBODY, category=UPPER, delivery=DELIVERY_NONE)
    ),
    "GetGarment": unary("GetGarment", pb.GetGarmentRequest(clothing_id=NOBODY)),
    "GetGarment NONE": unary(
        "GetGarment", pb.GetGarmentRequest(clothing_id=NOBODY, delivery=DELIVERY_NONE)
    ),
    "GetText": unary("GetText", pb.GetTextRequest(clothing_id=NOBODY)),
    "GetText NONE": unary("GetText", pb.GetTextRequest(clothing_id=NOBODY, delivery=DELIVERY_NONE)),
    "GetTryOn": unary(
        "GetTryOn", pb.GetTryOnRequest(user_id=NOBODY, clothing_id=NOBODY, category=UPPER)
    ),
    "GetTryOn NONE": unary(
        "GetTryOn",
        pb.GetTryOnRequest(
            user_id=NOBODY, clothing_id=NOBODY, category=UPPER, delivery=DELIVERY_NONE
        ),
    ),
    "Get": unary("Get", pb.GetRequest(key=KEY)),
    "Put": put,
    "Invalidate user": unary("Invalidate", pb.InvalidateRequest(user_id=NOBODY)),
    "Invalidate clothing": unary("Invalidate", pb.InvalidateRequest(clothing_id=NOBODY)),
    "Invalidate owner": unary("Invalidate", pb.InvalidateRequest(owner_id=NOBODY)),
    "Invalidate key": unary("Invalidate", pb.InvalidateRequest(key=KEY)),
    "Invalidate namespace": unary("Invalidate", pb.InvalidateRequest(namespace="garment")),
    "Invalidate everything": unary("Invalidate", pb.InvalidateRequest(everything=True)),
    "Warm": unary("Warm", pb.WarmRequest(user_id=NOBODY, categories=[UPPER])),
    "Inspect": unary("Inspect", pb.InspectRequest(key=KEY)),
    "Stats": unary("Stats", pb.StatsRequest()),
    "Attach": unary("Attach", pb.AttachRequest()),
    "ReportHits": unary("ReportHits", pb.ReportHitsRequest()),
    "health Check": check_health,
    "health Watch": watch_health,
    "reflection": reflect,
}
PROBES = {"health Check", "health Watch", "reflection"}
OBSERVES = PROBES | {"Stats"}
FINDS = {"Inspect", "GetHuman NONE", "GetGarment NONE", "GetText NONE", "GetTryOn NONE"}
READS = {"GetHuman", "GetGarment", "GetText", "GetTryOn", "Get", "Attach", "ReportHits"}
INVALIDATES = {
    "Invalidate user",
    "Invalidate clothing",
    "Invalidate owner",
    "Invalidate key",
}
PURGES = {"Invalidate namespace", "Invalidate everything"}
MAY: dict[str, set[str]] = {
    "worker": OBSERVES | FINDS | READS | {"Put", "Warm"},
    "backend": OBSERVES | FINDS | {"Warm"} | INVALIDATES,
    "observer": OBSERVES,
    "admin": set(CALLS),
}
TOKENS = [{"name": role, "token": f"token-of-{role}", "roles": [role]} for role in MAY]


@dataclass
class House:
    """Two daemons, since a port demands certificates or does not; both run for the whole module."""

    credentials: Credentials
    by_certificate: str
    by_token: str
    daemon: Daemon

    def issue(self, *names: str, **options: Any) -> Certificate:
        return self.credentials.authority.issue(*names, **options)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("secured")
    credentials = Credentials(folder)
    expired = {"name": "old", "token": "token-of-old", "roles": ["admin"]}
    credentials.know(
        {f"{role}.example": [role] for role in MAY},
        [*TOKENS, {**expired, "expires": "2020-01-01T00:00:00Z"}],
    )
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    with (
        secured_daemon(folder / "a", credentials, demand_certificates=True) as (_, first),
        secured_daemon(folder / "b", credentials, demand_certificates=False) as (other, second),
    ):
        yield House(credentials, first, second, other)


def cells(channel: grpc.Channel, metadata: Metadata = None) -> dict[str, tuple[Any, str]]:
    """Return how each call ended: its code, and its reason if it has one."""
    return {name: ended(call, channel, metadata) for name, call in CALLS.items()}


def ended(call: Call, channel: grpc.Channel, metadata: Metadata) -> tuple[Any, str]:
    try:
        call(channel, metadata)
    except grpc.RpcError as exc:
        refusal = Refusal()
        refusal.read(exc)
        return refusal.status
    return Code.OK, ""


def denied(found: dict[str, tuple[Any, str]]) -> set[str]:
    return {name for name, status in found.items() if status[0] is Code.PERMISSION_DENIED}


def test_every_method_of_the_contract_has_its_cells() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["CacheService"].methods}
    targets = pb.InvalidateRequest.DESCRIPTOR.oneofs_by_name["target"].fields

    assert {name.split()[0] for name in CALLS} >= methods
    assert len(INVALIDATES | PURGES) == len(targets)


@pytest.mark.parametrize("role", MAY)
def test_a_certificate_has_the_cells_of_its_role(house: House, role: str) -> None:
    with house.credentials.channel(house.by_certificate, house.issue(f"{role}.example")) as channel:
        found = cells(channel)

    assert denied(found) == CALLS.keys() - MAY[role]
    assert {found[name][1] for name in denied(found)} <= {"ROLE_MISSING"}


@pytest.mark.parametrize("role", MAY)
def test_a_token_has_the_cells_of_its_role(house: House, role: str) -> None:
    with house.credentials.channel(house.by_token) as channel:
        found = cells(channel, bearer(f"token-of-{role}"))

    assert denied(found) == CALLS.keys() - MAY[role]


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (None, "CREDENTIAL_REQUIRED"),
        (bearer("token-of-somebody"), "CREDENTIAL_UNKNOWN"),
        (bearer(""), "CREDENTIAL_UNKNOWN"),
        (bearer("token-of-old"), "CREDENTIAL_EXPIRED"),
        ((("authorization", "Basic YTpi"),), "CREDENTIAL_UNKNOWN"),
        (bearer("token-of-admin") * 2, "CREDENTIAL_UNKNOWN"),
    ],
)
def test_without_a_known_token_every_cell_is_unauthenticated(
    house: House, metadata: Metadata, reason: str
) -> None:
    with house.credentials.channel(house.by_token) as channel:
        assert set(cells(channel, metadata).values()) == {(Code.UNAUTHENTICATED, reason)}


@pytest.mark.parametrize(
    "names",
    [
        ["other.example"],
        ["*.example"],
        [],
        ["admin.example.evil"],
    ],
)
def test_a_certificate_whose_names_are_not_listed_is_unauthenticated(
    house: House, names: list[str]
) -> None:
    with house.credentials.channel(house.by_certificate, house.issue(*names)) as channel:
        found = cells(channel)

    assert {code for code, _ in found.values()} == {Code.UNAUTHENTICATED}


def test_a_uri_that_spells_a_listed_name_is_not_that_name(house: House) -> None:
    certificate = house.issue(sans=[x509.UniformResourceIdentifier("admin.example")])
    with (
        house.credentials.stub(house.by_certificate, certificate) as stub,
        refused() as refusal,
    ):
        stub.Stats(pb.StatsRequest(), timeout=TIMEOUT_S)
    assert refusal.code is Code.UNAUTHENTICATED


@pytest.mark.parametrize("what", ["absent", "foreign", "expired"])
def test_tls_refuses_a_certificate_that_is(house: House, what: str) -> None:
    """The handshake fails, so no call has a status of its own."""
    certificate = {
        "absent": lambda: None,
        "foreign": lambda: Authority("theirs").issue("admin.example"),
        "expired": lambda: house.issue("admin.example", expired=True),
    }[what]()
    with (
        house.credentials.stub(house.by_certificate, certificate) as stub,
        refused() as refusal,
    ):
        stub.Stats(pb.StatsRequest(), timeout=TIMEOUT_S)
    assert refusal.status == (Code.UNAVAILABLE, "")


def test_plain_text_to_a_tls_port_is_no_call(house: House) -> None:
    with grpc.insecure_channel(house.by_token) as channel, refused() as refusal:
        stub_on(channel).Stats(pb.StatsRequest(), timeout=TIMEOUT_S)
    assert refusal.status == (Code.UNAVAILABLE, "")


def test_the_sockets_group_is_worker_and_backend(house: House) -> None:
    found = cells(house.daemon.channel())

    assert denied(found) == CALLS.keys() - (MAY["worker"] | MAY["backend"])


def test_the_daemons_own_user_has_every_cell_on_the_admin_socket(house: House) -> None:
    assert denied(cells(house.daemon.channel(target=house.daemon.admin_target))) == set()


def test_a_method_that_nobody_knows_is_not_served(house: House) -> None:
    for target in (house.daemon.target, house.daemon.admin_target):
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = house.daemon.channel(
            target=target
        ).unary_unary("/cachesvc.v1.CacheService/DropEverything")
        with refused() as refusal:
            call(b"", timeout=TIMEOUT_S)
        assert refusal.code is Code.UNIMPLEMENTED


def test_loopback_without_a_credential_is_a_worker(new_daemon: NewDaemon, tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    credentials.know(tokens=TOKENS)
    port = ReservedPort()
    address = f"127.0.0.1:{port.number}"
    new_daemon(GRPC__LISTEN=address, ACCESS__FILE=str(credentials.access_file))
    with grpc.insecure_channel(address) as channel:
        assert denied(cells(channel)) == CALLS.keys() - MAY["worker"]
        assert denied(cells(channel, bearer("token-of-backend"))) == CALLS.keys() - MAY["backend"]
        assert set(cells(channel, bearer("unknown")).values()) == {
            (Code.UNAUTHENTICATED, "CREDENTIAL_UNKNOWN")
        }
        passed_on = (("x-envoy-external-address", "203.0.113.7"),)
        assert set(cells(channel, passed_on).values()) == {
            (Code.UNAUTHENTICATED, "CREDENTIAL_REQUIRED")
        }
        with_token = cells(channel, (*passed_on, *bearer("token-of-backend")))
        assert denied(with_token) == CALLS.keys() - MAY["backend"]
    port.release()


def test_a_token_is_revoked_without_a_restart(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    credentials.know(tokens=TOKENS)
    with (
        secured_daemon(tmp_path, credentials, demand_certificates=False) as (daemon, address),
        credentials.stub(address) as stub,
    ):
        stub.Stats(pb.StatsRequest(), timeout=TIMEOUT_S, metadata=bearer("token-of-worker"))

        credentials.access_file.write_text("tokens = nonsense")
        stub.Stats(pb.StatsRequest(), timeout=TIMEOUT_S, metadata=bearer("token-of-worker"))
        assert daemon.metrics()['cachesvc_reload_failures_total{what="access"}'] == 1

        credentials.know(tokens=TOKENS[1:])
        with refused() as refusal:
            stub.Stats(pb.StatsRequest(), timeout=TIMEOUT_S, metadata=bearer("token-of-worker"))
    assert refusal.status == (Code.UNAUTHENTICATED, "CREDENTIAL_UNKNOWN")
    assert "reload_failed" in daemon.log_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_stranger_on_the_host_reaches_neither_socket(house: House) -> None:
    """uid 65534 cannot pass the runtime directory's 0750, nor the sockets' modes."""
    for name in ("cachesvc.sock", "admin.sock"):
        assert not _connects_as_nobody(house.daemon.runtime_dir / name)


def _connects_as_nobody(path: Path) -> bool:
    code = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except PermissionError: sys.exit(13)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], timeout=TIMEOUT_S)
    assert ended.returncode in (0, 13)
    return ended.returncode == 0
