"""Does `cachesvc config` show each setting in force and its source, and no secret?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cachesvc.config.messages import MASK, masked
from tests.cli.conftest import Run


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_alone: Run) -> Path:
    # After run_alone, which clears the caller's settings.
    monkeypatch.setenv("CACHESVC_TTL_HOURS", "7")
    monkeypatch.setenv("CACHESVC_ORIGIN__REGION", "eu-north-1")
    path = tmp_path / "cachesvc.toml"
    path.write_text(
        'ttl_hours = 3\n[origin]\nbucket = "my-bucket"\nregion = "eu-west-1"\n'
        'endpoint_url = "https://me:pa@ss@s3.example:9000"\n'
    )
    return path


def test_each_setting_says_where_it_comes_from(run_alone: Run, config_file: Path) -> None:
    shown = json.loads(run_alone("config", "--config", str(config_file), "--json").stdout)
    assert shown["ttl_hours"] == {"value": 7.0, "from": "environment"}
    assert shown["origin.region"] == {"value": "eu-north-1", "from": "environment"}
    assert shown["origin.bucket"] == {"value": "my-bucket", "from": "file"}
    assert shown["l1.allow_heap"] == {"value": False, "from": "default"}


def test_a_section_in_one_variable_is_the_source_of_what_it_has(
    run_alone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHESVC_ORIGIN__BUCKET", "my-bucket")
    monkeypatch.setenv("CACHESVC_L1", '{"max_bytes": "2GiB"}')
    shown = run_alone("config")
    lines = {line.split()[0]: line for line in shown.stdout.splitlines() if line.strip()}
    assert lines["l1.max_bytes"].split() == ["l1.max_bytes", "2", "GiB", "CACHESVC_L1"]
    assert lines["l1.spare_bytes"].split() == ["l1.spare_bytes", "32", "MiB", "default"]
    assert lines["ttl_hours"].split() == ["ttl_hours", "1d", "default"]


def test_a_secret_is_shown_to_nobody(run_alone: Run, config_file: Path) -> None:
    for options in ((), ("--json",)):
        shown = run_alone("config", "--config", str(config_file), *options)
        assert shown.exit_code == 0
        assert f"https://{MASK}@s3.example:9000" in shown.stdout
        assert "pa" not in shown.stdout.split("endpoint_url")[1].split("s3.example")[0]


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        (("origin", "endpoint_url"), "http://host:1", "http://host:1"),
        (("origin", "endpoint_url"), "http://token@host:1", f"http://{MASK}@host:1"),
        (("origin", "secret_key"), "abc", MASK),
        (("origin", "secret_key"), "", ""),
        (("l1", "max_bytes"), 5, 5),
    ],
)
def test_what_is_masked(path: tuple[str, ...], value: object, shown: object) -> None:
    assert masked(path, value) == shown


def test_a_setting_that_cannot_work_is_code_2(
    run_alone: Run, monkeypatch: pytest.MonkeyPatch, config_file: Path
) -> None:
    monkeypatch.setenv("CACHESVC_L1__MAX_BYTES", "much")
    refused = run_alone("config", "--config", str(config_file))
    assert refused.exit_code == 2
    assert "CACHESVC_L1__MAX_BYTES" in refused.stderr


def test_a_tls_file_that_cannot_be_used_is_code_2_and_one_line(
    run_alone: Run, monkeypatch: pytest.MonkeyPatch, config_file: Path, tmp_path: Path
) -> None:
    for name in ("CERT_FILE", "KEY_FILE"):
        monkeypatch.setenv(f"CACHESVC_HTTP__TLS__{name}", str(tmp_path / "absent.pem"))
    refused = run_alone("config", "--config", str(config_file))
    assert refused.exit_code == 2
    assert "http.tls.cert_file (CACHESVC_HTTP__TLS__CERT_FILE)" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("ttl_hours = inf", "CACHESVC_TTL_HOURS"),
        # In nanoseconds, the value has to fit the catalog's 63 bits.
        ("ttl_hours = 1e9", "CACHESVC_TTL_HOURS"),
        ("grpc = { drain_s = inf }", "CACHESVC_GRPC__DRAIN_S"),
        ("kinds = { text = { ttl_hours = inf } }", "CACHESVC_KINDS__TEXT__TTL_HOURS"),
    ],
)
def test_a_time_without_end_is_code_2(
    run_alone: Run, tmp_path: Path, line: str, named: str
) -> None:
    path = tmp_path / "cachesvc.toml"
    path.write_text(f'{line}\norigin = {{ bucket = "my-bucket" }}\n')
    refused = run_alone("config", "--config", str(path))
    assert refused.exit_code == 2
    assert named in refused.stderr


def test_a_file_that_nests_without_end_is_code_2(run_alone: Run, tmp_path: Path) -> None:
    nested = "[" * 5000 + "]" * 5000
    path, grants = tmp_path / "cachesvc.toml", tmp_path / "grants.toml"
    path.write_text(f"kinds = {nested}\n")
    refused = run_alone("config", "--config", str(path))
    assert (refused.exit_code, "not valid TOML" in refused.stderr) == (2, True)
    grants.write_text(f"tokens = {nested}\n")
    path.write_text(f'origin = {{ bucket = "my-bucket" }}\naccess = {{ file = "{grants}" }}\n')
    refused = run_alone("config", "--config", str(path))
    assert (refused.exit_code, "not valid TOML" in refused.stderr) == (2, True)
