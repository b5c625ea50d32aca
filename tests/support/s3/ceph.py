"""How is a real S3 store started on loopback? Ceph: one monitor, one memstore OSD, RGW.

No cephx, no manager, one replica, data in memory. Only the gateway may be restarted: a memstore OSD
loses everything when it ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path

from tests.support import debian, server_processes
from tests.support.server_processes import ReservedPort

ACCESS_KEY = "CACHESVCTESTKEY"
SECRET_KEY = "cachesvc-test-secret"
_BINARIES = (
    "radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool",
)  # fmt: skip
_COMMAND_TIMEOUT_S = 60
_COMMAND_ATTEMPTS = 6

# paxos_*: otherwise the monitor waits a second per change, and starting takes 14 s.
# rgw_cache_enabled: a killed gateway stays a watcher of the cache for 30 s, and every new bucket
# would wait for its answer.
# *_shards, *_max_objs: each would be one more object to create at the first start.
_CONFIG = """\
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = [v1:127.0.0.1:{mon_port}]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr2 = false
ms_bind_ipv6 = false
run_dir = {folder}
admin_socket = {folder}/$name.asok
pid_file = {folder}/$name.pid
log_file = {folder}/$name.ceph.log
keyring = {folder}/keyring
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_min_pg_log_entries = 10
osd_max_pg_log_entries = 20
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 0
mon_osd_min_up_ratio = 0
mon_tick_interval = 1
osd_mon_report_interval = 1
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
[mon.a]
mon_data = {folder}/mon
[osd.0]
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
osd_max_object_name_len = 1024
osd_heartbeat_grace = 60
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{s3_port}
rgw_thread_pool_size = 64
rgw_cache_enabled = false
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_enable_gc_threads = false
rgw_enable_lc_threads = false
rgw_enable_quota_threads = false
rgw_run_sync_thread = false
rgw_data_log_num_shards = 1
rgw_override_bucket_index_max_shards = 1
rgw_lc_max_objs = 1
rgw_gc_max_objs = 1
rgw_usage_max_shards = 1
rgw_obj_expirer_num_shards = 1
rgw_reshard_num_logs = 1
"""


def why_not_available() -> str | None:
    """Return why Ceph cannot be used here, or None."""
    return debian.why_missing(*_BINARIES)


class _CommandFailed(RuntimeError):
    """A command of Ceph exited with an error; the text is Ceph's."""


class CephGateway:
    """A cluster of its own in `folder`. Starting takes 1.5-4 s, restarting the gateway 0.1 s."""

    kind = "ceph"
    access_key = ACCESS_KEY
    secret_key = SECRET_KEY
    region = "default"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = folder / "ceph.conf"
        self._ports = (ReservedPort(), ReservedPort())
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._gateway: subprocess.Popen[bytes] | None = None
        self.endpoint_url = f"http://127.0.0.1:{self._ports[1].number}"

    def start(self) -> None:
        fsid = str(uuid.uuid4())
        self._config.write_text(
            _CONFIG.format(
                fsid=fsid,
                folder=self._folder,
                mon_port=self._ports[0].number,
                s3_port=self._ports[1].number,
            )
        )
        self._start_monitor(fsid)
        self._start_osd()
        self.start_serving()
        self._run(
            "radosgw-admin", "-n", "client.rgw", "user", "create", "--uid=tests",
            "--display-name=tests", f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}",
        )  # fmt: skip

    def start_serving(self) -> None:
        """Start the gateway again, on the same port and the same data."""
        log = self._folder / "radosgw.log"
        self._gateway = self._daemon("radosgw", "-f", "-n", "client.rgw", log=log)
        server_processes.wait_until_http_answers(self.endpoint_url, self._gateway, log)

    def stop_serving(self) -> None:
        """Kill the gateway alone with SIGKILL; the data stays."""
        if self._gateway is not None:
            server_processes.kill(self._gateway)

    def close(self) -> None:
        self.stop_serving()
        for daemon in reversed(self._daemons):
            server_processes.kill(daemon)
        for port in self._ports:
            port.release()

    def _start_monitor(self, fsid: str) -> None:
        monmap, keyring = self._folder / "monmap", self._folder / "keyring"
        address = f"[v1:127.0.0.1:{self._ports[0].number}]"
        self._run("ceph-authtool", "--create-keyring", str(keyring), "--gen-key", "-n", "mon.",
                  "--cap", "mon", "allow *")  # fmt: skip
        self._run("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address,
                  str(monmap))  # fmt: skip
        (self._folder / "mon").mkdir()
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(monmap),
                  "--keyring", str(keyring))  # fmt: skip
        log = self._folder / "ceph-mon.log"
        self._daemons.append(self._daemon("ceph-mon", "-f", "-i", "a", log=log))

    def _start_osd(self) -> None:
        osd = str(uuid.uuid4())
        (self._folder / "osd").mkdir()
        number = json.loads(self._ceph("osd", "new", osd, "-f", "json"))
        assert number == {"osdid": 0}, number
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._ceph("osd", "crush", "add-bucket", "h", "host", "root=default")
        self._ceph("osd", "crush", "add", "osd.0", "1.0", "host=h")
        log = self._folder / "ceph-osd.log"
        self._daemons.append(self._daemon("ceph-osd", "-f", "-i", "0", log=log))

    def _daemon(self, binary: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        return server_processes.start([binary, *arguments], log, env=self._environment())

    def _ceph(self, *command: str) -> str:
        """Run an idempotent monitor command; repeat it if it was sent without the fsid."""
        for _ in range(_COMMAND_ATTEMPTS - 1):
            try:
                return self._run("ceph", *command)
            except _CommandFailed as exc:
                if "EPERM" not in str(exc):
                    raise
        return self._run("ceph", *command)

    def _environment(self) -> dict[str, str]:
        # A client that asks for the monitor's config forgets its own fsid. Without cephx its first
        # command may leave before it learns the fsid again: "wrong fsid", in one start of ten. The
        # daemons obey this argument, the `ceph` command does not.
        return {
            **os.environ,
            "CEPH_CONF": str(self._config),
            "CEPH_ARGS": "--no-mon-config",
        }

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise _CommandFailed(f"{' '.join(command)}: {done.stderr[-2000:]}")
        return done.stdout
