"""One entry: its fields as tensors, arrays or images.

All of them are views of one blob that belongs to the caller. The caller may write into a tensor;
only the other views of this entry see that.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from cachesvc_client._arguments import check
from cachesvc_client._blob import Layout
from cachesvc_client._opened import Opened
from cachesvc_client._reading import info_of
from cachesvc_client._travel import refuse_entry
from cachesvc_client.answers import EntryInfo

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from PIL import Image

    from cachesvc_client._torch import DeviceLike


@cache
def _torch() -> Any:
    """Import `_torch` at the first tensor: even a repeated import statement costs 0.3 us."""
    from cachesvc_client import _torch as module

    return module


class EntryFields(Mapping[str, "torch.Tensor"]):
    """A mapping of field name to torch tensor, read in place from one blob.

    Every tensor is contiguous, on the CPU and writable; images are U8, (H, W) or
    (H, W, C). A field becomes a tensor only when it is read.
    """

    layout: Layout
    #: The safetensors bytes, shape (info.size_bytes,). Shared with every view.
    blob: memoryview

    def __init__(self, opened: Opened) -> None:
        self._info, self.layout, self.blob = opened

    @property
    def info(self) -> EntryInfo:
        """The description of the entry."""
        if not isinstance(self._info, EntryInfo):
            self._info = info_of(self._info)
        return self._info

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = _torch().tensor_of(self.blob, self.layout[name])
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    # Identity, as for any handle: no caller needs a comparison of tensors field by field.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        key = self.info.key
        return f"<{type(self).__name__} {key.namespace}/{key.id} {', '.join(self.layout)}>"

    def __reduce__(self) -> NoReturn:
        refuse_entry(type(self).__name__, tuple(self.info.key))

    def torch(
        self,
        device: DeviceLike | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> dict[str, torch.Tensor]:
        """Return all fields as contiguous tensors on `device`.

        `dtype` applies only to floating tensors, so images stay U8. Without `device` and `dtype`
        nothing is copied.
        """
        # The usual call has nothing to check, and would take a tenth longer.
        if device is not None or dtype is not None or non_blocking is not False:
            check(locals())
        module = _torch()
        tensors: dict[str, torch.Tensor] = module.tensors_of(self.blob, self.layout)
        if device is None and dtype is None:
            return tensors
        return {name: module.moved(t, device, dtype, non_blocking) for name, t in tensors.items()}

    def numpy(self) -> dict[str, npt.NDArray[Any]]:
        """Return all fields as writable arrays, without a copy.

        Raises:
            TypeError: a field is BF16, which numpy does not have; the message names the field.
        """
        from cachesvc_client import _numpy

        return {name: _numpy.array_of(self.blob, field) for name, field in self.layout.items()}

    def image(self, name: str) -> Image.Image:
        """Return an image field in its original PIL mode; L without a copy.

        Raises:
            KeyError: no such field. TypeError: the field is not an image.
        """
        from cachesvc_client import _images

        return _images.image_of(self.blob, self.layout[name])


class Entry(EntryFields):
    """An entry from `CacheClient`."""

    def __init__(self, opened: Opened, is_current: Callable[[EntryInfo], bool]) -> None:
        super().__init__(opened)
        self._is_current = is_current

    def is_current(self) -> bool:
        """Return whether the daemon still serves exactly these bytes; a last look.

        An entry that came as a shared file and is still linked is current: no call is
        made. Otherwise the daemon is asked, without a fill. False also if the entry was
        only evicted from every tier, because the daemon then cannot tell. Raises CacheServiceError.
        """
        return self._is_current(self.info)


class _Question(Coroutine[Any, Any, bool]):
    """A question to the daemon that was not awaited yet, and that is neither true nor false.

    A coroutine is always true: without `await`, `if not entry.is_current()` would never be entered.
    """

    def __init__(self, asked: Coroutine[Any, Any, bool]) -> None:
        self._asked = asked

    def __await__(self) -> Generator[Any, Any, bool]:
        return self._asked.__await__()

    def send(self, value: Any) -> Any:
        return self._asked.send(value)

    def throw(self, *args: Any) -> Any:
        return self._asked.throw(*args)

    def close(self) -> None:
        self._asked.close()

    # A declared method would hide the mistake from mypy.
    if not TYPE_CHECKING:

        def __bool__(self) -> bool:
            self.close()
            raise TypeError("is_current() was not awaited: write `await entry.is_current()`")


class AsyncEntry(EntryFields):
    """An entry from `AsyncCacheClient`."""

    def __init__(
        self, opened: Opened, is_current: Callable[[EntryInfo], Coroutine[Any, Any, bool]]
    ) -> None:
        super().__init__(opened)
        self._is_current = is_current

    # Not `async def`: see _Question. This type lets mypy find a missing await (unused-coroutine,
    # truthy-bool).
    def is_current(self) -> Coroutine[Any, Any, bool]:
        """Return whether the daemon still serves exactly these bytes; a last look.

        An entry that came as a shared file and is still linked is current: no call is
        made. Otherwise the daemon is asked, without a fill. False also if the entry was
        only evicted from every tier, because the daemon then cannot tell. Raises CacheServiceError.
        """
        return _Question(self._is_current(self.info))


E_co = TypeVar("E_co", bound=EntryFields, covariant=True)


class TryOn(Generic[E_co]):
    """Everything one try-on needs: three entries."""

    def __init__(self, human: E_co, garment: E_co, text: E_co) -> None:
        self.human = human
        self.garment = garment
        self.text = text

    def __repr__(self) -> str:
        keys = (part.info.key for part in (self.human, self.garment, self.text))
        return f"<TryOn {', '.join('/'.join(key) for key in keys)}>"

    def pipe_inputs(
        self, device: DeviceLike = "cpu", dtype: torch.dtype | None = None
    ) -> dict[str, Any]:
        """Return the cached keyword arguments of IDM-VTON's pipeline: `pipe(**inputs, ...)`.

        | argument | field | value |
        |---|---|---|
        | `image` | `human_img` | PIL image, 768 x 1024 (W x H) in the original |
        | `mask_image` | `mask` | PIL image |
        | `ip_adapter_image` | `garm_img` | PIL image |
        | `pose_img` | `pose_tensor` | tensor (1, 3, 1024, 768) |
        | `cloth` | `garm_tensor` | tensor (1, 3, H, W) |
        | `text_embeds_cloth` | `prompt_embeds_c` | tensor (1, 77, 2048) |
        | `prompt_embeds`, `negative_prompt_embeds` | the same | tensors (1, 77, 2048) |
        | `pooled_prompt_embeds`, `negative_pooled_prompt_embeds` | the same | (1, 1280) |

        Tensors are on `device`, in `dtype` (None: as stored, fp16). `mask_gray` is no argument of
        the pipeline but for display: `tryon.human.image("mask_gray")`.
        """
        check(locals())
        tensors = {
            "pose_img": self.human["pose_tensor"],
            "cloth": self.garment["garm_tensor"],
            "text_embeds_cloth": self.text["prompt_embeds_c"],
            **{name: self.text[name] for name in _PROMPT_ARGUMENTS},
        }
        return {
            "image": self.human.image("human_img"),
            "mask_image": self.human.image("mask"),
            "ip_adapter_image": self.garment.image("garm_img"),
            **{name: _torch().moved(t, device, dtype, False) for name, t in tensors.items()},
        }


_PROMPT_ARGUMENTS = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
)
