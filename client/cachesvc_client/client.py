# Generated from aio.py by `make client`: edit that file instead.
"""The synchronous client."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from cachesvc_client import _options, answers, requests
from cachesvc_client._arguments import Category, check, check_settings, is_usual
from cachesvc_client._credentials import TlsFiles
from cachesvc_client._fork import refuse_if_patched
from cachesvc_client._kept import needed_ns
from cachesvc_client._link import GrpcLink, Link
from cachesvc_client._local import REPORT_TIMEOUT_S, LocalDelivery, LocalOptions
from cachesvc_client._opened import Opened, opened_inline
from cachesvc_client._prefetch import follow_all
from cachesvc_client._reading import Received, ReceivedTryOn
from cachesvc_client._reports import HitReports
from cachesvc_client._route import Route, route_to
from cachesvc_client._target import admin_socket, resolve, runtime_directory
from cachesvc_client._travel import settings_of, state_of
from cachesvc_client._trust import trust_of
from cachesvc_client._waiting import off_main
from cachesvc_client._warming import WarmUp
from cachesvc_client.answers import (
    EntryInfo,
    EntryKey,
    Inspection,
    Invalidated,
    WarmSummary,
)
from cachesvc_client.entry import Entry, TryOn
from cachesvc_client.errors import CacheServiceError, Unsupported
from cachesvc_client.requests import PutOptions, TryOnKey
from cachesvc_format.namespaces import HUMAN_NAMESPACES

if TYPE_CHECKING:
    from types import TracebackType

    from PIL import Image

    from cachesvc_client._arguments import FieldLike, TensorLike
    from cachesvc_proto.v1.cache_pb2 import StatsResponse


A = TypeVar("A")


class CacheClient:
    """Talks to the daemon from any number of threads; a forked child connects again.

    `target` is a socket path, `unix:/path` or `host:port`; by default the socket that
    `CACHESVC_GRPC__SOCKET` or `CACHESVC_RUNTIME_DIR` name. The first call connects.

    `timeout_s` bounds each call, unless the method is given another. `wait_s` bounds the part of a
    call that waits for a daemon that is away (0: no wait). Calls are idempotent, and the client
    repeats a call whose connection breaks.

    A TCP target beyond loopback needs `tls`, and a client certificate in it or a `token`; by
    default those of `CACHESVC_TLS_CA`, `CACHESVC_TLS_CERT`, `CACHESVC_TLS_KEY` and
    `CACHESVC_TOKEN`. `credentials` replace `tls`: `grpc.ssl_channel_credentials(...)`.

    `daemon_user` is the name or number of the user that a daemon on this host runs as, if that is
    neither root nor this process's user; by default `CACHESVC_DAEMON_USER`. `local` bounds the
    shared files kept open, or switches them off. Raises InvalidSettings.

    A client may be pickled and copied, except with `credentials`: it travels as its arguments, a
    `token` among them, and connects anew.

    Every call can raise these subclasses of CacheServiceError, and its method names the others:
    CacheUnavailable (also CacheUnreachable), DeadlineExceeded, InvalidRequest, Overloaded,
    PermissionDenied (also Unauthenticated), UnreadableAnswer, Unsupported.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        timeout_s: float = _options.DEFAULT_TIMEOUT_S,
        wait_s: float = _options.DEFAULT_WAIT_S,
        credentials: grpc.ChannelCredentials | None = None,
        tls: TlsFiles | None = None,
        token: str | None = None,
        daemon_user: str | int | None = None,
        local: LocalOptions = LocalOptions(),  # noqa: B008 - frozen
    ) -> None:
        arguments = dict(locals())
        check_settings(arguments, none=("target", "credentials", "tls", "token", "daemon_user"))
        refuse_if_patched()
        address = resolve(target, os.environ)
        self._settings = settings_of(arguments, address)
        self._timeout_s = timeout_s
        self._target = address
        trust = trust_of(daemon_user, os.environ)
        route = route_to(address, trust, credentials, tls, token, os.environ)
        self._link: Link = GrpcLink(route, wait_s)
        self._admin_path = admin_socket(target, os.environ)
        self._admin: Link | None = None
        self._wait_s = wait_s
        self._trust = trust
        directory, only_there = runtime_directory(address, os.environ)
        self._reports = HitReports(self._report)
        self._local = LocalDelivery(
            directory, local, self._reports.begin, only_there=only_there, trust=trust
        )

    def __enter__(self) -> CacheClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._target}, {self.transport}>"

    def __getstate__(self) -> dict[str, Any]:
        return state_of(self._settings)

    def __setstate__(self, settings: dict[str, Any]) -> None:
        CacheClient.__init__(self, **settings)

    def close(self) -> None:
        """Report the last local hits and close the connection. Entries stay valid.

        May take seconds if the daemon does not answer. Repeating it is harmless.
        """
        self._reports.finish(self._local)
        self._local.close()
        self._link.close()
        if self._admin is not None:
            self._admin.close()

    @property
    def transport(self) -> str:
        """How entries are received: `shared_file`, or `inline: ` and the reason."""
        return self._local.transport

    def get_human(
        self,
        user_id: str,
        category: Category = "upper_body",
        *,
        origin_after: datetime | None = None,
        kind_version: str = "",
        timeout_s: float | None = None,
    ) -> Entry:
        """Return one person: images `human_img`, `mask`, `mask_gray`, tensor `pose_tensor`.

        `category` is `upper_body`, `lower_body` or `dresses`. `origin_after` refuses bytes that the
        origin last changed before that (aware) time; `kind_version` refuses another model's
        tensors.

        Raises NotCached, OriginUnavailable, PreconditionFailed (also OriginDenied), DataLoss,
        Aborted, and the errors of every call (see the class).
        """
        if not is_usual(user_id, category, kind_version, origin_after, timeout_s):
            check(locals(), none=("timeout_s",))
        hit = self._local.hit(
            (HUMAN_NAMESPACES.get(category, ""), user_id),
            needed_ns(origin_after),
            kind_version,
        )
        if hit is not None:
            return self._entry(hit)
        ask = partial(requests.get_human, user_id, category, origin_after, kind_version)
        return self._entry(self._fetch(ask, timeout_s))

    def get_garment(
        self,
        clothing_id: str,
        owner_id: str = "",
        *,
        origin_after: datetime | None = None,
        kind_version: str = "",
        timeout_s: float | None = None,
    ) -> Entry:
        """Return one garment: image `garm_img`, tensor `garm_tensor`.

        Without an owner only cached entries are served; a miss then raises PreconditionFailed,
        reason OWNER_REQUIRED. Also raises what `get_human` raises.
        """
        if not is_usual(clothing_id, owner_id, kind_version, origin_after, timeout_s):
            check(locals(), none=("timeout_s",))
        hit = self._local.hit(("garment", clothing_id), needed_ns(origin_after), kind_version)
        if hit is not None:
            return self._entry(hit)
        ask = partial(requests.get_garment, clothing_id, owner_id, origin_after, kind_version)
        return self._entry(self._fetch(ask, timeout_s))

    def get_text(
        self,
        clothing_id: str,
        owner_id: str = "",
        *,
        origin_after: datetime | None = None,
        kind_version: str = "",
        timeout_s: float | None = None,
    ) -> Entry:
        """Return the five embeddings of one garment's text.

        `owner_id` and the errors are those of `get_garment`.
        """
        if not is_usual(clothing_id, owner_id, kind_version, origin_after, timeout_s):
            check(locals(), none=("timeout_s",))
        hit = self._local.hit(("text", clothing_id), needed_ns(origin_after), kind_version)
        if hit is not None:
            return self._entry(hit)
        ask = partial(requests.get_text, clothing_id, owner_id, origin_after, kind_version)
        return self._entry(self._fetch(ask, timeout_s))

    def get_tryon(
        self,
        user_id: str,
        clothing_id: str,
        category: Category = "upper_body",
        owner_id: str = "",
        *,
        origin_after: datetime | None = None,
        kind_versions: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> TryOn[Entry]:
        """Return a person, a garment and its text, fetched side by side.

        `owner_id` is the garment's owner; empty means `user_id`. `origin_after` is for the
        person. `kind_versions` maps `human`, `garment`, `text` to the version expected. Raises what
        `get_human` raises; the error's `parts`, and NotCached's `missing`, name the failed parts.
        """
        is_plain = kind_versions is None and type(owner_id) is str
        if not is_plain or not is_usual(user_id, clothing_id, category, origin_after, timeout_s):
            check(locals(), none=("timeout_s",))
        key = TryOnKey(user_id, clothing_id, category, owner_id)
        hits = self._local.hit_tryon(key, needed_ns(origin_after), kind_versions)
        if hits is None:
            ask = partial(requests.get_tryon, key, origin_after, kind_versions)
            hits = self._fetch_tryon(ask, timeout_s)
        return TryOn(*(self._entry(part) for part in hits))

    def get(
        self,
        namespace: str,
        id: str,
        owner_id: str = "",
        *,
        origin_after: datetime | None = None,
        kind_version: str = "",
        timeout_s: float | None = None,
    ) -> Entry:
        """Return an entry of any kind, also an added one, as a stream of small messages.

        Raises what `get_garment` raises, and InvalidRequest, reason UNKNOWN_NAMESPACE.
        """
        call = requests.get(namespace, id, owner_id, origin_after, kind_version)
        streamed = self._link.collect(call, self._limit(timeout_s))
        return self._entry(opened_inline(streamed.finished()))

    def put_human(
        self,
        user_id: str,
        category: Category = "upper_body",
        *,
        human_img: Image.Image,
        mask: Image.Image,
        mask_gray: Image.Image,
        pose_tensor: TensorLike,
        as_of: datetime | None = None,
        ttl: timedelta | None = None,
        persist: bool = False,
        owner_id: str = "",
        timeout_s: float | None = None,
    ) -> EntryInfo:
        """Store one person, and return once the entry would survive a crash.

        Images are PIL images of mode L, LA, RGB or RGBA; tensors are torch tensors (any
        device, strides, `requires_grad`) or numpy arrays, and must not change until the
        call returns. `as_of` is when the source was read, by default now: a Put that is
        older than the last change of the key raises Aborted. `ttl` replaces the adaptive
        TTL. `persist` also writes the origin's own objects, before the answer.

        Raises Aborted, NotDurable, with `persist` OriginUnavailable and OriginDenied, and the
        errors of every call (see the class).
        """
        fields = {
            "human_img": human_img,
            "mask": mask,
            "mask_gray": mask_gray,
            "pose_tensor": pose_tensor,
        }
        options = PutOptions(owner_id, as_of, ttl, persist)
        upload = requests.put_human(user_id, category, fields, options)
        return self._link.send(upload, self._limit(timeout_s))

    def put_garment(
        self,
        clothing_id: str,
        *,
        garm_img: Image.Image,
        garm_tensor: TensorLike,
        owner_id: str = "",
        as_of: datetime | None = None,
        ttl: timedelta | None = None,
        persist: bool = False,
        timeout_s: float | None = None,
    ) -> EntryInfo:
        """Store one garment. `persist` needs the owner.

        Values, keywords and errors are those of `put_human`.
        """
        fields = {"garm_img": garm_img, "garm_tensor": garm_tensor}
        options = PutOptions(owner_id, as_of, ttl, persist)
        upload = requests.put_clothing("garment", clothing_id, fields, options)
        return self._link.send(upload, self._limit(timeout_s))

    def put_text(
        self,
        clothing_id: str,
        *,
        prompt_embeds: TensorLike,
        negative_prompt_embeds: TensorLike,
        pooled_prompt_embeds: TensorLike,
        negative_pooled_prompt_embeds: TensorLike,
        prompt_embeds_c: TensorLike,
        owner_id: str = "",
        as_of: datetime | None = None,
        ttl: timedelta | None = None,
        persist: bool = False,
        timeout_s: float | None = None,
    ) -> EntryInfo:
        """Store the five embeddings of one garment's text. `persist` needs the owner.

        Values, keywords and errors are those of `put_human`.
        """
        fields = {
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            "pooled_prompt_embeds": pooled_prompt_embeds,
            "negative_pooled_prompt_embeds": negative_pooled_prompt_embeds,
            "prompt_embeds_c": prompt_embeds_c,
        }
        options = PutOptions(owner_id, as_of, ttl, persist)
        upload = requests.put_clothing("text", clothing_id, fields, options)
        return self._link.send(upload, self._limit(timeout_s))

    def put(
        self,
        namespace: str,
        id: str,
        fields: Mapping[str, FieldLike],
        *,
        owner_id: str = "",
        as_of: datetime | None = None,
        ttl: timedelta | None = None,
        persist: bool = False,
        options: PutOptions | None = None,
        timeout_s: float | None = None,
    ) -> EntryInfo:
        """Store an entry of any kind, also an added one, from all its fields by name.

        Values, keywords and errors are those of `put_human`. `options` has the same four keywords
        as one value, instead of them.
        """
        keywords = PutOptions(owner_id, as_of, ttl, persist)
        upload = requests.put(namespace, id, fields, requests.one_of(options, keywords))
        return self._link.send(upload, self._limit(timeout_s))

    def check_put(
        self,
        namespace: str,
        id: str,
        fields: Mapping[str, FieldLike],
        *,
        owner_id: str = "",
        as_of: datetime | None = None,
        ttl: timedelta | None = None,
        persist: bool = False,
        options: PutOptions | None = None,
        timeout_s: float | None = None,
    ) -> bool:
        """Ask what `put` would be answered now, and store nothing.

        Returns whether L2 would take the entry; otherwise it would live in L1 only, until its
        eviction or a restart. Raises the errors of `put`, except those of the writing itself.
        """
        keywords = PutOptions(owner_id, as_of, ttl, persist)
        upload = requests.check_put(namespace, id, fields, requests.one_of(options, keywords))
        return self._link.send(upload, self._limit(timeout_s))

    def invalidate(
        self,
        *,
        user_id: str | None = None,
        clothing_id: str | None = None,
        owner_id: str | None = None,
        namespace: str | None = None,
        key: EntryKey | tuple[str, str] | None = None,
        everything: bool = False,
        changed_at: datetime | None = None,
        erase: bool = False,
        timeout_s: float | None = None,
    ) -> Invalidated:
        """Invalidate entries; once this returns, no later Get anywhere is served their bytes.

        Exactly one of: `user_id` (all categories), `clothing_id` (garment and text),
        `owner_id` (all entries from that owner's prefix), `key`, `namespace`,
        `everything` (the last two need the role admin, and use the daemon's admin socket if this
        process may open it). `changed_at` is when the source changed; older Puts are refused from
        now on. `erase` also zeroes mapped bytes.

        Raises NotDurable (the entries are no longer served, but call again for the proof), and the
        errors of every call (see the class).
        """
        call = requests.invalidate(
            {
                "user_id": user_id,
                "clothing_id": clothing_id,
                "owner_id": owner_id,
                "namespace": namespace,
                "key": key,
                "everything": everything,
            },
            changed_at,
            erase,
        )
        link = self._purging_link() if namespace or everything else self._link
        return link.ask(call, self._limit(timeout_s))

    def _purging_link(self) -> Link:
        """Return the admin socket's link if this process may open that socket.

        The role of the socket's group may not purge.
        """
        path = self._admin_path
        if path is None or not os.access(path, os.W_OK):
            return self._link
        if self._admin is None:
            self._admin = GrpcLink(Route(f"unix:{path}", self._trust), self._wait_s)
        return self._admin

    def warm(
        self,
        user_id: str = "",
        *,
        categories: Iterable[Category] = (),
        garments: Iterable[str | tuple[str, str]] = (),
        timeout_s: float = _options.DEFAULT_WARM_TIMEOUT_S,
    ) -> WarmUp:
        """Begin to fetch entries ahead of their use, and return the warm-up that has begun.

        No categories means all three. A garment is a `clothing_id`, or (`clothing_id`,
        `owner_id`). Iterate over the warm-up for its progress, first the start, in which keys that
        fail are reported; `warm_up.wait()` returns the counts; or drop it: the daemon goes
        on. Raises the daemon's errors at once.
        """
        check({"timeout_s": timeout_s})
        call = requests.warm(user_id, categories, garments)
        return WarmUp(self._link.follow(call, timeout_s))

    def prefetch(
        self,
        tryons: Iterable[TryOnKey | tuple[str, ...]],
        *,
        timeout_s: float = _options.DEFAULT_WARM_TIMEOUT_S,
    ) -> Future[WarmSummary]:
        """Start to fetch all entries that a batch of try-ons needs, and return at once.

        A try-on is (`user_id`, `clothing_id`[, `category`[, `owner_id`]]). The future ends
        when the warm-ups of all persons have ended, with the failed keys; waiting for it is
        optional. `timeout_s` is for each person. A daemon thread follows; it holds no entry.
        The future has the daemon's errors.
        """
        check({"timeout_s": timeout_s})
        return follow_all(self._link, requests.warm_tryons(tryons), timeout_s)

    def inspect(self, namespace: str, id: str, *, timeout_s: float | None = None) -> Inspection:
        """Return which tiers hold a key, without touching its recency or the origin."""
        return self._link.ask(requests.inspect(namespace, id), self._limit(timeout_s))

    def stats(self, *, timeout_s: float | None = None) -> StatsResponse:
        """Return the daemon's counters and gauges, the message that cache.proto documents."""
        return self._link.ask(requests.stats(), self._limit(timeout_s))

    # ---- a miss in this process

    def _fetch(self, ask: requests.Ask[Received], timeout_s: float | None) -> Opened:
        (entry,) = off_main(self._ask_until_opened, ask, lambda received: (received,), timeout_s)
        return entry

    def _fetch_tryon(
        self, ask: requests.Ask[ReceivedTryOn], timeout_s: float | None
    ) -> tuple[Opened, ...]:
        return off_main(self._ask_until_opened, ask, lambda received: received, timeout_s)

    def _ask_until_opened(
        self,
        ask: requests.Ask[A],
        parts_of: Callable[[A], tuple[Received, ...]],
        timeout_s: float | None,
    ) -> tuple[Opened, ...]:
        """Ask for shared files if they can be used, and again inline if a file is gone."""
        ends_s = time.monotonic() + self._limit(timeout_s)
        inline = ask(shared=False)  # raises InvalidRequest, before anything is sent
        self._attach(ends_s)
        asked_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        call = ask(shared=True) if self._local.is_attached else inline
        answer = self._link.ask(call, ends_s - time.monotonic())
        entries = self._local.accept_all(parts_of(answer), asked_ns)
        if entries is None:
            answer = self._link.ask(inline, ends_s - time.monotonic())
            entries = tuple(opened_inline(part) for part in parts_of(answer))
        return entries

    def _attach(self, ends_s: float) -> None:
        now_s = time.monotonic()
        if not self._local.wants_attach(now_s) or self._local.attach_to_known(now_s):
            return
        try:
            attachment = self._link.ask(requests.attach(), ends_s - now_s)
        except Unsupported:
            self._local.attach_to_named(None, now_s)
        else:
            self._local.attach_to_named(attachment, now_s)

    def _report(self) -> None:
        hits = self._local.take_hits()
        # A lost report costs some recency, which is not worth an error or a wait. gRPC raises
        # ValueError for a closed channel.
        with contextlib.suppress(CacheServiceError, RuntimeError, ValueError):
            for report in requests.report_hits(hits):
                self._link.ask(report, REPORT_TIMEOUT_S)

    def _entry(self, opened: Opened) -> Entry:
        return Entry(opened, self._is_current)

    def _is_current(self, info: EntryInfo) -> bool:
        known = self._local.is_current((info.key.namespace, info.key.id), info.generation)
        if known is not None:
            return known
        return answers.is_held(self.inspect(*info.key), info.generation)

    def _limit(self, timeout_s: float | None) -> float:
        if timeout_s is None:
            return self._timeout_s
        check(locals())
        return timeout_s
