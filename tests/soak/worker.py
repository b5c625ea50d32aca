"""One worker of the soak: `... TARGET BLOB_FILE SEED CALLS LOCAL_CALLS`.

It makes exactly CALLS calls of all kinds, AT_ONCE at a time, and cancels CANCELLED of them at a
random moment. Beside them it makes LOCAL_CALLS Gets with the synchronous client, which are local
hits if there is a daemon. It prints a line for each REPORT_EVERY calls and, at last, how its calls
ended. It ends without closing anything, like a killed worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from cachesvc_client import CacheClient
from cachesvc_client.errors import CacheServiceError
from cachesvc_proto.v1 import cache_pb2 as pb
from cachesvc_proto.v1 import cache_pb2_grpc
from tests.soak.subjects import (
    CLOTHES,
    OWNER,
    PEOPLE,
    clothing_id,
    user_id,
)

AT_ONCE = 8
CANCELLED = 0.3
REPORT_EVERY = 50
# A call that was not cancelled and takes longer has hung.
TIMEOUT_S = 60.0
_LONGEST_BEFORE_CANCEL_S = 0.01
_UPPER = pb.HUMAN_CATEGORY_UPPER_BODY
_SHARED, _INLINE = pb.DELIVERY_SHARED_FILE, pb.DELIVERY_INLINE

Call = Any  # the base class of the aio calls is not public


class Calls:
    """Makes calls on random subjects of its own."""

    def __init__(
        self, stub: cache_pb2_grpc.CacheServiceStub, chance: random.Random, blob: bytes
    ) -> None:
        self._stub = stub
        self._chance = chance
        self._blob = blob

    def choose(self) -> Callable[[], Call]:
        kinds: tuple[tuple[Callable[[], Call], int], ...] = (
            (self._human, 20),
            (lambda: self._garment(_INLINE), 15),
            (lambda: self._garment(_SHARED), 15),
            (self._try_on, 10),
            (self._streamed, 10),
            (self._put, 10),
            (self._invalidate, 10),
            (self._warm, 3),
            (self._inspect, 4),
            (self._stats, 3),
        )
        return self._chance.choices([kind for kind, _ in kinds], [often for _, often in kinds])[0]

    def _user(self) -> str:
        return user_id(self._chance.randrange(PEOPLE))

    def _clothing(self) -> str:
        return clothing_id(self._chance.randrange(CLOTHES))

    def _key(self) -> pb.EntryKey:
        return pb.EntryKey(namespace="garment", id=self._clothing())

    def _human(self) -> Call:
        request = pb.GetHumanRequest(user_id=self._user(), category=_UPPER)
        return self._stub.GetHuman(request, timeout=TIMEOUT_S)

    def _garment(self, delivery: pb.Delivery) -> Call:
        request = pb.GetGarmentRequest(
            clothing_id=self._clothing(), owner_id=OWNER, delivery=delivery
        )
        return self._stub.GetGarment(request, timeout=TIMEOUT_S)

    def _try_on(self) -> Call:
        request = pb.GetTryOnRequest(
            user_id=self._user(),
            category=_UPPER,
            clothing_id=self._clothing(),
            owner_id=OWNER,
        )
        return self._stub.GetTryOn(request, timeout=TIMEOUT_S)

    def _streamed(self) -> Call:
        request = pb.GetRequest(key=self._key(), owner_id=OWNER)
        return self._stub.Get(request, timeout=TIMEOUT_S)

    def _put(self) -> Call:
        return self._stub.Put(self._put_messages(), timeout=TIMEOUT_S)

    def _put_messages(self) -> Iterator[pb.PutRequest]:
        yield pb.PutRequest(header=pb.PutHeader(key=self._key(), owner_id=OWNER))
        yield pb.PutRequest(data=self._blob)

    def _invalidate(self) -> Call:
        request = pb.InvalidateRequest(clothing_id=self._clothing())
        if self._chance.random() < 0.5:
            request = pb.InvalidateRequest(user_id=self._user(), erase=True)
        return self._stub.Invalidate(request, timeout=TIMEOUT_S)

    def _warm(self) -> Call:
        garment = pb.WarmGarment(clothing_id=self._clothing(), owner_id=OWNER)
        request = pb.WarmRequest(user_id=self._user(), categories=[_UPPER], garments=[garment])
        return self._stub.Warm(request, timeout=TIMEOUT_S)

    def _inspect(self) -> Call:
        return self._stub.Inspect(pb.InspectRequest(key=self._key()), timeout=TIMEOUT_S)

    def _stats(self) -> Call:
        return self._stub.Stats(pb.StatsRequest(), timeout=TIMEOUT_S)


async def work(target: str, blob: bytes, seed: int, count: int) -> Counter[str]:
    """Make `count` calls; return the number of calls by their ends."""
    chance = random.Random(seed)
    ended: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(target) as channel:
        stub = cache_pb2_grpc.CacheServiceStub(channel)  # type: ignore[no-untyped-call]
        calls, left = Calls(stub, chance, blob), iter(range(count))

        async def caller() -> None:
            for number in left:
                ended[await _one(calls.choose()(), chance)] += 1
                if (number + 1) % REPORT_EVERY == 0:
                    _say(REPORT_EVERY)

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return ended


async def _one(call: Call, chance: random.Random) -> str:
    leaving = None
    if chance.random() < CANCELLED:
        loop = asyncio.get_running_loop()
        leaving = loop.call_later(chance.random() * _LONGEST_BEFORE_CANCEL_S, call.cancel)
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except asyncio.CancelledError:
        return "cancelled"
    except grpc.aio.AioRpcError as exc:
        reasons = [value for name, value in exc.trailing_metadata() if name == "cachesvc-reason"]
        return str(reasons[0]) if reasons else exc.code().name.lower()
    finally:
        if leaving is not None:
            leaving.cancel()
    return "ok"


def get_locally(target: str, seed: int, count: int) -> int:
    """Return how many of the client's Gets were answered; another call may make a Get fail."""
    chance, answered = random.Random(seed), 0
    with CacheClient(target) as client:
        for _ in range(count):
            try:
                entry = client.get_garment(clothing_id(chance.randrange(CLOTHES)), owner_id=OWNER)
            except CacheServiceError:
                continue
            answered += bool(entry.numpy())
    return answered


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def main(target: str, blob_file: str, seed: int, count: int, local_count: int) -> None:
    local = asyncio.create_task(asyncio.to_thread(get_locally, target, seed, local_count))
    ended = await work(target, Path(blob_file).read_bytes(), seed, count)
    _say({**ended, "local": await local})
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
