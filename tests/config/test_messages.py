"""Is every value that cannot be read refused in our words, by its names, with what it has to be?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from cachesvc import config
from cachesvc.cli.commands.config import value_text
from cachesvc.config import Settings
from cachesvc.config.messages import variable_of
from cachesvc.core.errors import ConfigError
from tests.config.conftest import Load

# What pydantic and the readers of TOML and JSON say.
_LIBRARIES_WORDS = re.compile(
    r"Input should|Value error|valid (?:integer|number|string|boolean|dictionary|list|tuple)|"
    r"Extra inputs|pydantic|instance of|Expecting|Expected|codec|unable to parse|Field required|"
    r"union_tag|SettingsError|Errno"
)
BAD_TEXTS = ("", "much", "-1", "1e400", "nan", "true", "{", "[1", '{"a": 1}', "\x7f", "~/x", "x/y")
BAD_TOML = ("[]", "{}", "true", "-1", "nan", "1e400", '""', '"much"', '[{ a = "b" }]', "2026-01-01")


def leaves(model: type[BaseModel], *above: str) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        path = (*above, field.alias or name)
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, *path)
        elif name == "kinds":
            yield from leaves(get_args(kind)[1], *path, "human")
        else:
            yield path


SETTINGS = list(leaves(Settings))


@pytest.mark.parametrize("path", SETTINGS, ids=".".join)
def test_no_word_of_a_library_reaches_the_user(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cachesvc.toml"
    said = []
    for text in BAD_TEXTS:
        monkeypatch.setenv(variable_of(path), text)
        said.append(problem_of(None))
        monkeypatch.delenv(variable_of(path))
    for value in BAD_TOML:
        file.write_text(f"{'.'.join(path)} = {value}\n")
        said.append(problem_of(file))
    refused = [text for text in said if text is not None]
    for text in refused:
        assert not _LIBRARIES_WORDS.search(text), text
        assert "\n" not in text
    assert any(".".join(path) in text for text in refused)


def problem_of(file: Path | None) -> str | None:
    try:
        config.load(file)
    except ConfigError as exc:
        return str(exc)
    return None


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"L2__MAX_BYTES": "much"},
            ["l2.max_bytes (CACHESVC_L2__MAX_BYTES)", '"much"', "2GiB", "512Mi"],
        ),
        ({"L1__MAX_BYTES": "5"}, ["l1.max_bytes", '"5"', "at least 1 MiB"]),
        ({"TTL_HOURS": "0"}, ["ttl_hours (CACHESVC_TTL_HOURS)", "more than 0s"]),
        ({"TTL_HOURS": "soon"}, ["ttl_hours", '"soon"', "1h30m"]),
        ({"TTL_HOURS": "400d"}, ["ttl_hours", '"400d"', "at most 366d"]),
        ({"GRPC__DRAIN_S": "-1"}, ["grpc.drain_s", "at least 0s"]),
        ({"ORIGIN__ADDED_LATENCY_MS": "1y"}, ["origin.added_latency_ms", "90s"]),
        ({"LOG_LEVEL": "loud"}, ["log_level (CACHESVC_LOG_LEVEL)", '"loud"', "'warning'"]),
        ({"L1__ALLOW_HEAP": "perhaps"}, ["l1.allow_heap", '"perhaps"', "true or false"]),
        ({"L2__HIGH_WATERMARK": "95"}, ["l2.high_watermark", '"95"', "at most 1"]),
        ({"LIMITS__MAX_FLIGHTS": "1.5"}, ["limits.max_flights", "whole number"]),
        ({"HTTP__MAX_CONNECTIONS": "4"}, ["http.max_connections", "at least 8"]),
        ({"ACCESS__SOCKET_ROLES": "worker"}, ["access.socket_roles", '["worker", "backend"]']),
        ({"ACCESS__SOCKET_ROLES": '["king"]'}, ["access.socket_roles.0", '"king"', "'observer'"]),
        ({"ACCESS": '{"tokens": ["s3cret"'}, ["access (CACHESVC_ACCESS)", "no valid JSON"]),
        ({"KINDS__HUMAN__MAX_ENTRIES": "0"}, ["kinds.human.max_entries", "at least 1"]),
        ({"L1": "5"}, ["l1 (CACHESVC_L1)", "section"]),
        ({"L1": '{"max_bytes": "lots"}'}, ["l1.max_bytes (CACHESVC_L1)", '"lots"']),
        ({"L2__ROOTS": "/x"}, ["l2.roots", "no such setting", "CACHESVC_L2__ROOT)"]),
        ({"L2__TYPO": "1"}, ["l2.typo", "no such setting", "l2 has root, max_bytes"]),
        ({"RUNTIME_DIR": ""}, ["runtime_dir", '""', "not empty"]),
        ({"RUNTIME_DIR": "cache"}, ["runtime_dir", '"cache"', "begins with /"]),
        ({"STATE_DIR": "~/state"}, ["state_dir", "~", "whole path"]),
        ({"L2__ROOT": "$HOME/l2"}, ["l2.root", "whole path"]),
        ({"GRPC__TLS__CERT_FILE": "~/cert.pem"}, ["grpc.tls.cert_file", "whole path"]),
        ({"GRPC__LISTEN": "8443"}, ["grpc.listen", '"8443"', "127.0.0.1:8443"]),
        ({"HTTP__LISTEN": "http://0.0.0.0:80"}, ["http.listen", "without a scheme"]),
        ({"HTTP__LISTEN": "*:8002"}, ["http.listen", "0.0.0.0 is every address"]),
        ({"GRPC__LISTEN": "[::1:8443"}, ["grpc.listen", "no host"]),
        ({"ACCESS__TOKENS": "s3cret"}, ["access.tokens", "cachesvc token new --json"]),
        ({"HTTP__LISTEN": "127.0.0.1:99999"}, ["http.listen", "up to 65535"]),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_read_says_what_it_has_to_be(
    load: Load, variables: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**variables)
    for word in words:
        assert word in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_variable_is_named_as_its_user_spelled_it(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("cachesvc_l1__max_bytes", "much")
    with pytest.raises(ConfigError, match=r"l1\.max_bytes \(cachesvc_l1__max_bytes\)"):
        load()


def test_a_token_is_never_shown(load: Load) -> None:
    line = '[{ name = "nest", sha256 = "cachesvc_s3cret", roles = ["backend"] }]'
    with pytest.raises(ConfigError) as caught:
        load(f"access.tokens = {line}\n")
    assert "64 hexadecimal digits" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bucket = b\n", ["line 1, column 10", "stands in quotes"]),
        ("[l2]\nmax_bytes = 2GiB\n", ["line 2", '"2GiB"']),
        ("[l2\n", ["line 1"]),
        ("l2:\n  root: /x\n", ["line 1"]),
        ("a = 1\na = 2\n", ["is not valid TOML", "line 2"]),
        ("bucket = 'b'\n", ["there is no such setting", "origin.bucket"]),
    ],
)
def test_a_file_that_is_no_toml_says_where_and_what_toml_needs(
    load: Load, text: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    for word in words:
        assert word in str(caught.value)
    assert not _LIBRARIES_WORDS.search(str(caught.value))


def test_a_file_that_cannot_be_a_config_file_says_why(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'group = "\xe9"\n')
    (tmp_path / "nested.toml").write_text(f"kinds = {'[' * 5000}{']' * 5000}\n")
    for name, why in (
        ("absent.toml", "does not exist"),
        (".", "is not a regular file"),
        ("latin.toml", "byte 9 is not UTF-8"),
        ("nested.toml", "not valid TOML"),
    ):
        with pytest.raises(ConfigError, match=why):
            config.load(tmp_path / name)


@pytest.mark.parametrize(
    ("variables", "read"),
    [
        ({"L2__MAX_BYTES": "2GiB"}, lambda s: s.l2.max_bytes == 2 << 30),
        ({"L1__MAX_BYTES": "512Mi"}, lambda s: s.l1.max_bytes == 512 << 20),
        ({"L1__SPARE_BYTES": "0"}, lambda s: s.l1.spare_bytes == 0),
        ({"LIMITS__MAX_ENTRY_BYTES": "1.5 MiB"}, lambda s: s.limits.max_entry_bytes == 3 << 19),
        ({"KINDS__HUMAN__MAX_BYTES": "1GB"}, lambda s: s.kinds["human"].max_bytes == 10**9),
        ({"TTL_HOURS": "90m"}, lambda s: s.ttl_hours == 1.5),
        ({"TTL_HOURS": "24"}, lambda s: s.ttl_hours == 24.0),
        ({"KINDS__TEXT__TTL_HOURS": "7d"}, lambda s: s.kinds["text"].ttl_hours == 168.0),
        ({"GRPC__DRAIN_S": "500ms"}, lambda s: s.grpc.drain_s == 0.5),
        ({"ORIGIN__ADDED_LATENCY_MS": "2s"}, lambda s: s.origin.added_latency_ms == 2000.0),
        ({"GRPC__SOCKET": "", "ACCESS__FILE": ""}, lambda s: s.access.file is s.grpc.socket),
    ],
    # The text of a function has its address, which differs from process to process.
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_units_are_taken_in_variables(load: Load, variables: dict[str, str], read: Any) -> None:
    assert read(load(**variables))


def test_units_are_taken_in_the_file(load: Load) -> None:
    settings = load('ttl_hours = "7d"\n[l2]\nmax_bytes = "2 GB"\n[grpc]\ndrain_s = "1m30s"\n')
    assert (settings.ttl_hours, settings.l2.max_bytes) == (168.0, 2 * 10**9)
    assert settings.grpc.drain_s == 90.0


def test_what_config_shows_can_be_written_as_a_setting(load: Load) -> None:
    for path in SETTINGS:
        if path[-1].endswith(("_bytes", "_s", "_ms", "_hours")) and path[0] != "kinds":
            value: Any = Settings()
            for name in path:
                value = getattr(value, name)
            again: Any = load(**{"__".join(path).upper(): value_text(path[-1], value)})
            for name in path:
                again = getattr(again, name)
            assert again == value
