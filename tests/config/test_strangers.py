"""Is a variable that looks like a setting and is none noticed, and its nearest setting named?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cachesvc.cli.doctor import names
from cachesvc.cli.doctor.findings import Level, Patient
from cachesvc.config import Settings
from cachesvc.config.sources import strangers
from tests.cli.conftest import Run, run_alone  # noqa: F401 a fixture

LINKS = {
    "CACHESVC_SERVICE_HOST": "10.0.0.1",
    "CACHESVC_SERVICE_PORT": "9090",
    "CACHESVC_SERVICE_PORT_GRPC": "9090",
    "CACHESVC_PORT": "tcp://10.0.0.1:9090",
    "CACHESVC_PORT_9090_TCP": "tcp://10.0.0.1:9090",
    "CACHESVC_PORT_9090_TCP_PROTO": "tcp",
    "CACHESVC_PORT_9090_TCP_PORT": "9090",
    "CACHESVC_PORT_9090_TCP_ADDR": "10.0.0.1",
    "CACHESVC_HTTP_SERVICE_HOST": "10.0.0.2",
    "CACHESVC_HTTP_PORT_8002_TCP_ADDR": "10.0.0.2",
}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("CACHESVC_L2_ROOT", "CACHESVC_L2__ROOT"),
        ("CACHESVC_ORGIN__BUCKET", "CACHESVC_ORIGIN__BUCKET"),
        ("CACHESVC_ORIGIN_BUCKET", "CACHESVC_ORIGIN__BUCKET"),
        ("CACHESVC_BUCKET", "CACHESVC_ORIGIN__BUCKET"),
        ("CACHESVC_L1_MAX_BYTES", "CACHESVC_L1__MAX_BYTES"),
        ("CACHESVC__L2__ROOT", "CACHESVC_L2__ROOT"),
        ("CACHESVC_LOGLEVEL", "CACHESVC_LOG_LEVEL"),
        ("cachesvc_state_dirs", "CACHESVC_STATE_DIR"),
        ("CACHSVC_L2__ROOT", "CACHESVC_L2__ROOT"),
        ("CACHESVC_TLS_CAA", "CACHESVC_TLS_CA"),
        ("CACHESVC_PORT", "CACHESVC_GROUP"),
        ("CACHESVC_ZZZZZZZZZZZZZZZ", None),
    ],
)
def test_an_unknown_variable_is_named_with_its_nearest_setting(
    name: str, nearest: str | None
) -> None:
    (found,) = strangers(Settings, {name: "1", "PATH": "/bin"})
    assert found.name == name
    if name != "CACHESVC_PORT":
        assert found.nearest == nearest
    assert "is ignored" in str(found)


@pytest.mark.parametrize(
    "variables",
    [
        {"CACHESVC_L2__ROOT": "/x", "cachesvc_ttl_hours": "3", "CACHESVC_L2": "{}"},
        {"CACHESVC_TLS_CA": "/x", "CACHESVC_TOKEN": "t", "CACHESVC_DAEMON_USER": "u"},
        {"CACHE_DIR": "/x", "CACHE__X": "y", "CACHING__L2__ROOT": "z"},
        LINKS,
    ],
    ids=["ours", "clients", "others", "kubernetes"],
)
def test_settings_the_clients_variables_and_kubernetes_links_are_no_strangers(
    variables: dict[str, str],
) -> None:
    assert strangers(Settings, variables) == []


def test_doctor_warns_of_a_stranger_and_explains_a_link(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    patient = Patient(Settings())
    assert [found.level for found in names.check_variables(patient)] == [Level.OK]
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    (links,) = names.check_variables(patient)
    assert (links.level, "links to a Service" in links.message) == (Level.OK, True)
    monkeypatch.setenv("CACHESVC_L2_ROOT", str(tmp_path))
    stranger, _ = names.check_variables(patient)
    assert stranger.level is Level.WARNING
    assert "CACHESVC_L2__ROOT" in stranger.message


def test_config_warns_of_a_stranger_on_stderr_and_shows_the_rest(
    run_alone: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CACHESVC_ORIGIN__BUCKET", "my-bucket")
    monkeypatch.setenv("CACHESVC_L2_ROOT", "/x")
    shown = run_alone("config", "--json")
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["origin.bucket"]["from"] == "environment"
    assert "warning: CACHESVC_L2_ROOT is no setting" in shown.stderr
