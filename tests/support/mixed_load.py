"""How is a daemon kept busy with all kinds of calls, by callers whose ids are known?

Each caller has ids of its own and repeats the same round: misses, hits of every tier and delivery,
changes, and calls that are refused. The used ids and the calls' ends are recorded.
"""

from __future__ import annotations

import contextlib
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from cachesvc_client import CacheClient
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support import sample_objects
from tests.support.daemons import Daemon, wait_until
from tests.support.grpc_calls import get_garment, get_human, moment, put, refused
from tests.support.sample_objects import fresh_id

_WITHIN_S = 30.0


class MixedLoad:
    """Callers in threads of their own, until `stop`, which raises the error of a caller that
    failed.
    """

    def __init__(self, daemon: Daemon, callers: int = 2) -> None:
        self._daemon = daemon
        self._stopped = threading.Event()
        self._callers = callers
        self._threads = ThreadPoolExecutor(callers, thread_name_prefix="load")
        self._running: list[Future[None]] = []
        self.ids: set[str] = set()
        self.statuses: set[str] = set()
        self.rounds = 0
        daemon.stub()  # one channel for all, made by one thread

    def start(self) -> None:
        self._running = [self._threads.submit(self._run) for _ in range(self._callers)]

    def stop(self) -> None:
        self._stopped.set()
        self._threads.shutdown()
        for caller in self._running:
            caller.result()

    def wait_for_rounds(self, rounds: int) -> None:
        """Return once that many rounds are done, or a caller has failed."""
        wait_until(
            lambda: self.rounds >= rounds or any(caller.done() for caller in self._running),
            _WITHIN_S,
        )

    def _run(self) -> None:
        with CacheClient(self._daemon.target) as client:
            while not self._stopped.is_set():
                self._round(client)
                self.rounds += 1

    def _new_id(self, kind: str) -> str:
        entry_id = fresh_id(kind)
        self.ids.add(entry_id)
        return entry_id

    def _round(self, client: CacheClient) -> None:
        daemon, stub = self._daemon, self._daemon.stub()
        user, owner, clothing = (self._new_id(kind) for kind in ("user", "owner", "clothing"))
        person = sample_objects.person(user)
        garment = sample_objects.garment(clothing, owner)
        text = sample_objects.text(clothing, owner)
        sample_objects.put_in_folder(daemon.origin_dir, person, garment, text)
        get_human(stub, user)
        get_human(stub, user)
        for _ in range(3):
            client.get_human(user)
        client.get_tryon(user, clothing, owner_id=owner)
        daemon.wait_until_stored()
        put(stub, "human_dresses", user, person.blob())
        list(stub.Warm(pb.WarmRequest(user_id=user), timeout=_WITHIN_S))
        stub.Inspect(pb.InspectRequest(key=pb.EntryKey(namespace="garment", id=clothing)))
        self._provoke(user, owner)
        stub.Invalidate(pb.InvalidateRequest(user_id=user, erase=True))
        self._delete(f"/cache/garment/{clothing}")
        get_garment(stub, clothing, owner)

    def _provoke(self, user: str, owner: str) -> None:
        """Make calls that are refused, each in another way."""
        stub, absent, broken = self._daemon.stub(), self._new_id("absent"), self._new_id("broken")
        bad = sample_objects.garment(broken, owner)
        bad.objects[f"users/{owner}/vton-cache/garments/{broken}_img.png"] = b"not a PNG"
        sample_objects.put_in_folder(self._daemon.origin_dir, bad)
        self._expect("NOT_FOUND", lambda: get_garment(stub, absent, owner))
        self._expect("DATA_LOSS", lambda: get_garment(stub, broken, owner))
        self._expect("FAILED_PRECONDITION", lambda: get_garment(stub, absent))
        self._expect("INVALID_ARGUMENT", lambda: get_human(stub, f"../{user}"))
        past = moment(1.0)
        blob = sample_objects.person(user).blob()
        self._expect("ABORTED", lambda: put(stub, "human_dresses", user, blob, as_of=past))

    def _expect(self, status: str, call: Callable[[], object]) -> None:
        with refused() as refusal:
            call()
        self.statuses.add(refusal.code.name)
        assert refusal.code.name == status, refusal.message

    def _delete(self, path: str) -> None:
        url = f"http://127.0.0.1:{self._daemon.http_port}{path}"
        request = urllib.request.Request(url, method="DELETE")
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request):
            pass


@contextlib.contextmanager
def running_load(daemon: Daemon, callers: int = 2) -> Iterator[MixedLoad]:
    load = MixedLoad(daemon, callers)
    load.start()
    try:
        yield load
    finally:
        load.stop()


def traces(load: MixedLoad, text: str) -> set[str]:
    """Return the ids of `load` that occur in `text`."""
    return {entry_id for entry_id in load.ids if entry_id in text}
