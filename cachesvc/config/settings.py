"""Which settings are there, with their defaults and limits?

Every component is handed its own section. The reference is docs/configuration.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from cachesvc.config import kinds
from cachesvc.config.access import AccessSettings, TlsSettings
from cachesvc.config.kinds import KindSettings
from cachesvc.config.sources import Variables
from cachesvc.config.values import (
    ENV_PREFIX,
    Count,
    Directory,
    Hours,
    MaybeDirectory,
    Milliseconds,
    Seconds,
    Section,
    Share,
    Size,
    split_address,
)
from cachesvc.core.access import Role
from cachesvc.core.kinds import Kinds
from cachesvc.core.watermarks import Watermarks

GIB = 1 << 30
MIB = 1 << 20


def _is_an_address(value: str) -> str:
    if value:
        split_address(value)
    return value


Listen = Annotated[str, AfterValidator(_is_an_address)]


class GrpcSettings(Section):
    """`socket` empty = `{runtime_dir}/cachesvc.sock`; `listen` is empty or host:port."""

    socket: MaybeDirectory = None
    listen: Listen = ""
    tls: TlsSettings = TlsSettings()
    # For calls without a deadline: every call ends.
    default_deadline_s: Seconds = Field(30.0, gt=0)
    # A caller has so long to take a stream's next message (1 MiB); the daemon holds it meanwhile.
    stream_stall_s: Seconds = Field(30.0, gt=0)
    # Rejects floods before they cost memory; a worker has a handful of calls in flight.
    max_concurrent_streams: Count = Field(256, ge=1)
    drain_s: Seconds = Field(10.0, ge=0)


class HttpSettings(Section):
    """`listen` empty = no HTTP."""

    listen: Listen = "127.0.0.1:8002"
    # What a caller on this host may do without a credential.
    loopback_role: Role = Role.ADMIN
    # /livez and /readyz answer every caller: the kubelet has no credential.
    open_probes: bool = False
    # Names, beside localhost and addresses, that a Host header may have.
    allowed_hosts: tuple[str, ...] = ()
    # Above this number, the connection that has been idle longest is closed.
    max_connections: Count = Field(256, ge=8)
    tls: TlsSettings = TlsSettings()


class AuditSettings(Section):
    # False = ids in the audit log are hashed with a key of this installation.
    plain_ids: bool = False


class L1Settings(Section):
    max_bytes: Size = Field(GIB, ge=MIB)
    allow_heap: bool = False
    # Files made in advance for the next misses; 0 = none.
    spare_bytes: Size = Field(32 * MIB, ge=0)
    # After a restart, load the last used entries of L2 in the background.
    rewarm: bool = True


class L2Settings(Section):
    root: Directory = Path("/opt/dlami/nvme/vton-cache")
    max_bytes: Size = Field(50 * GIB, ge=MIB)
    high_watermark: Share = Field(0.95, gt=0, le=1)
    low_watermark: Share = Field(0.80, gt=0, le=1)
    # Free space that the filesystem keeps, whichever program fills it.
    free_floor_bytes: Size = Field(2 * GIB, ge=0)
    # Filled entries that wait for the disk; above this limit, entries stay in L1 only.
    max_pending_bytes: Size = Field(256 * MIB, ge=MIB)
    # Expired entries stay so long: most still equal the origin's objects, and are renewed.
    keep_expired_hours: Hours = Field(24.0, ge=0)

    def watermarks(self) -> Watermarks:
        return Watermarks(
            low_bytes=int(self.max_bytes * self.low_watermark),
            high_bytes=int(self.max_bytes * self.high_watermark),
            capacity_bytes=self.max_bytes,
            floor_bytes=self.free_floor_bytes,
        )


class OriginSettings(Section):
    """`path` is for kind `directory`, the rest of the names for `s3`."""

    kind: Literal["s3", "directory"] = "s3"
    bucket: str = ""
    region: str = ""
    endpoint_url: str = ""
    path: MaybeDirectory = None
    # For one whole fill: queueing, all members, decoding.
    deadline_s: Seconds = Field(20.0, gt=0)
    max_concurrent_reads: Count = Field(48, ge=1)
    # `directory` only: each read and write first waits for so long, to imitate S3.
    added_latency_ms: Milliseconds = Field(0.0, ge=0)
    # S3's clock has whole seconds.
    origin_after_grace_s: Seconds = Field(2.0, ge=0)
    # So many fills in a row that cannot ask the origin open the circuit for `breaker_open_s`.
    breaker_failures: Count = Field(5, ge=2)
    breaker_open_s: Seconds = Field(5.0, gt=0)


class LimitSettings(Section):
    """How much one daemon does at once."""

    max_entry_bytes: Size = Field(64 * MIB, ge=1024)
    max_flights: Count = Field(1024, ge=1)
    max_concurrent_fills: Count = Field(8, ge=1)
    max_concurrent_warmups: Count = Field(8, ge=1)
    max_warm_keys: Count = Field(1000, ge=1)
    # Memory beside L1: decoding an image takes three to five times its size.
    max_decoding_bytes: Size = Field(256 * MIB, ge=16 * MIB)
    # Each Put holds a whole entry in memory.
    max_concurrent_puts: Count = Field(16, ge=1)


class Settings(BaseSettings):
    """Everything that can be set. Frozen."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    runtime_dir: Directory = Path("/dev/shm/cachesvc")  # noqa: S108 the documented place for shared memory
    state_dir: Directory = Path("/var/lib/cachesvc")
    # Name of the workers' group, which gets the socket and the shared files; empty = the daemon's.
    group: str = ""
    ttl_hours: Hours = Field(24.0, gt=0)
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    grpc: GrpcSettings = GrpcSettings()
    http: HttpSettings = HttpSettings()
    access: AccessSettings = AccessSettings()
    audit: AuditSettings = AuditSettings()
    l1: L1Settings = L1Settings()
    l2: L2Settings = L2Settings()
    origin: OriginSettings = OriginSettings()
    limits: LimitSettings = LimitSettings()
    kinds: dict[str, KindSettings] = {}

    @property
    def socket_path(self) -> Path:
        return self.grpc.socket or self.runtime_dir / "cachesvc.sock"

    @property
    def admin_socket_path(self) -> Path:
        return self.runtime_dir / "admin.sock"

    def build_kinds(self) -> Kinds:
        """Return the built-in kinds with their changes, and the added ones.

        Raises:
            ConfigError: a kind is not valid.
        """
        return kinds.build(self.kinds, self.ttl_hours)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # init_settings holds the TOML file's values (see `config.load`): variables win over them.
        return Variables(settings_cls), init_settings
