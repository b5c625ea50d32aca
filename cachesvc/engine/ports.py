"""What the engine needs of the decoders: `codec/` implements it, and so do simulations.

The origin's port is `core/origin.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cachesvc.core.kinds import Field, Kind
from cachesvc.core.tensors import Buffer, DecodePlan
from cachesvc_format.blob import Tensor


class Codec(Protocol):
    """Translates between origin objects and blobs. Plain functions for worker threads."""

    def plan_member(self, field: Field, data: bytes) -> DecodePlan:
        """Raises OriginDataCorrupt. For the loop: it reads a header, and decodes nothing."""

    def decode_member(self, field: Field, data: bytes, plan: DecodePlan) -> Tensor:
        """Raises OriginDataCorrupt, or PlanTooSmall; executes nothing."""

    def blob_parts(self, tensors: Mapping[str, Tensor]) -> Sequence[Buffer]: ...

    def check_parts(self, kind: Kind, parts: Sequence[Buffer]) -> object:
        """Raises InvalidRequest unless the blob that lies in `parts` is the kind's."""

    def encode_members(
        self, kind: Kind, blob: Buffer, starts: Mapping[str, bytes]
    ) -> Mapping[str, Buffer]:
        """`starts` has the first bytes of the objects that the encoded ones replace."""
        ...
