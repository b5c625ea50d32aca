"""Does every setting that cannot work end the start, and say which it is and what to do?

`test_messages.py` has the values that cannot even be read.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cachesvc.config.together import problems_of_places
from cachesvc.core.errors import ConfigError
from tests.config.conftest import Load

FOLDER = {"ORIGIN__KIND": "directory", "ORIGIN__BUCKET": "", "ORIGIN__PATH": "/srv/origin"}
AWS = "https://s3.eu-west-1.amazonaws.com"
BUCKET, REGION = (
    "origin.bucket (CACHESVC_ORIGIN__BUCKET)",
    "origin.region (CACHESVC_ORIGIN__REGION)",
)
ENDPOINT = "origin.endpoint_url (CACHESVC_ORIGIN__ENDPOINT_URL)"
CASES: list[tuple[dict[str, str], list[str]]] = [
    # The bucket.
    ({"ORIGIN__BUCKET": ""}, [BUCKET, "is missing", "CACHESVC_ORIGIN__KIND=directory"]),
    ({"ORIGIN__BUCKET": "s3://photos"}, [BUCKET, '"s3://photos"', 'name alone, "photos"']),
    ({"ORIGIN__BUCKET": "s3://photos/users/"}, [BUCKET, 'alone, "photos"']),
    ({"ORIGIN__BUCKET": "photos/"}, [BUCKET, 'alone, "photos"']),
    ({"ORIGIN__BUCKET": "photos/users"}, [BUCKET, 'alone, "photos"']),
    ({"ORIGIN__BUCKET": "arn:aws:s3:::photos"}, [BUCKET, 'alone, "photos"']),
    ({"ORIGIN__BUCKET": "https://photos.s3.eu-west-1.amazonaws.com"}, [BUCKET, 'alone, "photos"']),
    ({"ORIGIN__BUCKET": "photos.s3.amazonaws.com"}, [BUCKET, 'alone, "photos"']),
    ({"ORIGIN__BUCKET": "http://minio:9000/photos"}, [BUCKET, 'alone, "photos"']),
    ({"ORIGIN__BUCKET": "My-Photos"}, [BUCKET, "lower-case", '"my-photos"']),
    ({"ORIGIN__BUCKET": "my_photos"}, [BUCKET, "3 to 63"]),
    ({"ORIGIN__BUCKET": "ab"}, [BUCKET, "3 to 63"]),
    ({"ORIGIN__BUCKET": "a" * 64}, [BUCKET, "3 to 63"]),
    ({"ORIGIN__BUCKET": "-photos"}, [BUCKET, "begins and ends"]),
    ({"ORIGIN__BUCKET": "photos."}, [BUCKET, "begins and ends"]),
    ({"ORIGIN__BUCKET": "my..photos"}, [BUCKET]),
    ({"ORIGIN__BUCKET": "192.168.5.4"}, [BUCKET]),
    ({"ORIGIN__BUCKET": "my photos"}, [BUCKET]),
    ({"ORIGIN__BUCKET": "/photos"}, [BUCKET]),
    # The region.
    ({"ORIGIN__REGION": "eu-west-1a"}, [REGION, "availability zone", '"eu-west-1"']),
    ({"ORIGIN__REGION": "EU-WEST-1"}, [REGION, "such as eu-west-1"]),
    ({"ORIGIN__REGION": "eu_west_1"}, [REGION, "such as eu-west-1"]),
    ({"ORIGIN__REGION": "Ireland (eu)"}, [REGION]),
    # The endpoint.
    ({"ORIGIN__ENDPOINT_URL": "minio:9000"}, [ENDPOINT, "http://minio:9000"]),
    ({"ORIGIN__ENDPOINT_URL": "minio.example"}, [ENDPOINT, "https://minio.example"]),
    ({"ORIGIN__ENDPOINT_URL": "//minio:9000"}, [ENDPOINT, "http://minio:9000"]),
    ({"ORIGIN__ENDPOINT_URL": "s3://photos"}, [ENDPOINT, "scheme"]),
    ({"ORIGIN__ENDPOINT_URL": "http://minio:9000/my-bucket"}, [ENDPOINT, "http://minio:9000,"]),
    ({"ORIGIN__ENDPOINT_URL": "http://minio:9000/?x=1"}, [ENDPOINT, "no path"]),
    ({"ORIGIN__ENDPOINT_URL": "http://:9000"}, [ENDPOINT, "no host"]),
    ({"ORIGIN__ENDPOINT_URL": "http://minio:port"}, [ENDPOINT, "no URL"]),
    ({"ORIGIN__ENDPOINT_URL": "http://[minio"}, [ENDPOINT, "no URL"]),
    ({"ORIGIN__ENDPOINT_URL": "https://my-bucket.s3.amazonaws.com"}, [ENDPOINT, "my-bucket."]),
    ({"ORIGIN__ENDPOINT_URL": "http://x.s3-website-eu-west-1.amazonaws.com"}, ["website"]),
    ({"ORIGIN__ENDPOINT_URL": AWS, "ORIGIN__REGION": "us-east-1"}, [ENDPOINT, REGION, "eu-west-1"]),
    # A folder as the origin.
    ({**FOLDER, "ORIGIN__PATH": ""}, ["origin.path (CACHESVC_ORIGIN__PATH)", "missing"]),
    ({**FOLDER, "ORIGIN__PATH": "/etc/passwd"}, ["origin.path", "not a directory"]),
    ({**FOLDER, "ORIGIN__ADDED_LATENCY_MS": "20s"}, ["added_latency_ms", "origin.deadline_s"]),
    ({"ORIGIN__BREAKER_FAILURES": "1"}, ["origin.breaker_failures", "at least 2"]),
    ({"ORIGIN__DEADLINE_S": "0"}, ["origin.deadline_s", "more than 0s"]),
    # Directories in each other.
    ({"STATE_DIR": "/opt/dlami/nvme/vton-cache"}, ["state_dir", "l2.root", "same directory"]),
    ({"STATE_DIR": "/opt/dlami/nvme/vton-cache/s"}, ["CACHESVC_STATE_DIR", "inside l2.root"]),
    ({"L2__ROOT": "/var/lib/cachesvc/l2"}, ["l2.root", "inside state_dir"]),
    ({"RUNTIME_DIR": "/var/lib/cachesvc/run"}, ["runtime_dir", "inside state_dir"]),
    ({"L2__ROOT": "/"}, ["l2.root", "runtime_dir", "state_dir"]),
    ({**FOLDER, "L2__ROOT": "/srv/origin/cache"}, ["l2.root", "inside origin.path"]),
    ({**FOLDER, "ORIGIN__PATH": "/dev/shm/cachesvc"}, ["origin.path", "runtime_dir", "same"]),
    # The socket.
    ({"GRPC__SOCKET": "/dev/shm/cachesvc/admin.sock"}, ["grpc.socket", "admin.sock"]),
    ({"GRPC__SOCKET": "/dev/shm/cachesvc/l1/x.sock"}, ["grpc.socket", "l1"]),
    ({"GRPC__SOCKET": "/dev/shm/cachesvc/control"}, ["grpc.socket", "control"]),
    ({"RUNTIME_DIR": f"/dev/shm/{'x' * 100}"}, ["runtime_dir", "107"]),
    ({"GRPC__SOCKET": f"/dev/shm/{'x' * 100}"}, ["grpc.socket", "107"]),
    # Listeners.
    (
        {"GRPC__LISTEN": "127.0.0.1:8002"},
        ["grpc.listen (CACHESVC_GRPC__LISTEN)", "http.listen (CACHESVC_HTTP__LISTEN)", "own port"],
    ),
    ({"GRPC__LISTEN": "0.0.0.0:9"}, ["grpc.listen", "CACHESVC_GRPC__TLS__CERT_FILE"]),
    ({"HTTP__TLS__KEY_FILE": "/k.pem"}, ["http.tls needs both", "CACHESVC_HTTP__TLS__CERT_FILE"]),
    ({"GRPC__TLS__CERT_FILE": "/c.pem"}, ["grpc.tls needs both", "CACHESVC_GRPC__TLS__KEY_FILE"]),
    ({"HTTP__ALLOWED_HOSTS": '["https://a.example"]'}, ["http.allowed_hosts", "no scheme"]),
    ({"HTTP__ALLOWED_HOSTS": '["*"]'}, ["http.allowed_hosts"]),
    ({"HTTP__ALLOWED_HOSTS": '["a.example:80"]'}, ["http.allowed_hosts", "port"]),
    ({"ACCESS__FILE": "/nonexistent/grants.toml"}, ["access.file", "does not exist"]),
    ({"ACCESS__CERTIFICATES": '{"a": []}'}, ["access.certificates.a", "at least one"]),
    # L2 and kinds.
    ({"L2__LOW_WATERMARK": "0.99"}, ["l2.low_watermark", "l2.high_watermark", "at most"]),
    ({"L2__LOW_WATERMARK": "0"}, ["l2.low_watermark", "more than 0"]),
    ({"L2__MAX_BYTES": "0"}, ["l2.max_bytes", "at least 1 MiB"]),
    ({"L2__MAX_BYTES": "1000000PB"}, ["l2.max_bytes", "at most"]),
    ({"LIMITS__MAX_FLIGHTS": "9999999999"}, ["limits.max_flights", "at most"]),
    ({"GRPC__DEFAULT_DEADLINE_S": "10000d"}, ["grpc.default_deadline_s", "at most 366d"]),
    ({"KINDS__HUMEN__MAX_ENTRIES": "5"}, ["kinds.humen", "nearest built-in kind is human"]),
    ({"KINDS__HUMAN__STALE_IF_ERROR_S": "1h"}, ["human", "never served stale"]),
    ({"KINDS__TEXT__VERSION": "a b"}, ["text", "version"]),
]


@pytest.mark.parametrize(("variables", "words"), CASES, ids=[str(case) for case, _ in CASES])
def test_a_setting_that_cannot_work_is_refused_by_name(
    load: Load, variables: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**variables)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        FOLDER,
        {"ORIGIN__BUCKET": "my.bucket-2", "ORIGIN__REGION": "eu-west-1"},
        {"ORIGIN__BUCKET": "arn:aws:s3:eu-west-1:123456789012:accesspoint/my-point"},
        {"ORIGIN__BUCKET": "my-point-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias"},
        {"ORIGIN__REGION": "default"},
        {"ORIGIN__REGION": "us-gov-west-1"},
        {"ORIGIN__ENDPOINT_URL": "http://127.0.0.1:9000/"},
        {"ORIGIN__ENDPOINT_URL": "https://me:pa@s3.example:9000"},
        {"ORIGIN__ENDPOINT_URL": AWS, "ORIGIN__REGION": "eu-west-1"},
        {"ORIGIN__ENDPOINT_URL": "https://s3.amazonaws.com", "ORIGIN__REGION": "us-east-1"},
        {"ORIGIN__ENDPOINT_URL": "https://s3.dualstack.eu-west-1.amazonaws.com"},
        {"GRPC__LISTEN": "127.0.0.1:0", "HTTP__LISTEN": "127.0.0.1:0"},
        {"GRPC__LISTEN": "[::1]:8443"},
        {"GRPC__SOCKET": "/run/cachesvc/grpc.sock", "HTTP__LISTEN": ""},
        {"HTTP__ALLOWED_HOSTS": '["cache.example", "CACHE"]'},
        {"L2__ROOT": "/opt/dlami/nvme/vton-cache-2", "STATE_DIR": "/opt/dlami/nvme/vton-cache"},
    ],
    ids=str,
)
def test_what_can_work_is_taken(load: Load, variables: dict[str, str]) -> None:
    load(**variables)


def test_directories_are_compared_behind_their_links(load: Load, tmp_path: Path) -> None:
    (tmp_path / "l2").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "l2")
    with pytest.raises(ConfigError, match=r"inside l2\.root"):
        load(L2__ROOT=str(tmp_path / "l2"), STATE_DIR=str(tmp_path / "link/state"))


def test_all_problems_are_named_at_once(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(ORIGIN__BUCKET="s3://b", STATE_DIR="/dev/shm/cachesvc", L2__LOW_WATERMARK="0.99")
    for name in ("origin.bucket", "state_dir", "l2.low_watermark"):
        assert name in str(caught.value)


def test_the_default_places_are_separate(load: Load) -> None:
    assert list(problems_of_places(load())) == []
