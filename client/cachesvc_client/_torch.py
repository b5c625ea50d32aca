"""The only module that imports torch: views of a blob as tensors, and tensors as fields.

Runs on torch 2.0. Nothing here unpickles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachesvc_client._blob import Layout
from cachesvc_client._views import view_of_address
from cachesvc_client.errors import InvalidRequest
from cachesvc_format.blob import FieldLayout, Tensor

try:
    import torch
except ImportError as exc:
    raise ImportError(
        "tensors need torch: pip install torch, or install the client's wheel or checkout with "
        "its extra [torch]"
    ) from exc

if TYPE_CHECKING:
    from typing import TypeAlias

    DeviceLike: TypeAlias = "torch.device | str | int"

_DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def tensor_of(blob: memoryview, field: FieldLayout) -> torch.Tensor:
    """Return the field as a tensor that shares the blob's memory, contiguous, on the CPU."""
    dtype = _DTYPES[field.dtype]
    if field.count == 0:
        return torch.empty(field.shape, dtype=dtype)  # frombuffer refuses an empty buffer
    flat = torch.frombuffer(blob, dtype=dtype, count=field.count, offset=field.begin)
    return flat.view(field.shape)


# What `tensors_of` needs of each field, in order.
_Plan = list[tuple[str, torch.dtype, int, int, tuple[int, ...]]]


def tensors_of(blob: memoryview, layout: Layout) -> dict[str, torch.Tensor]:
    """Return all fields, each as `tensor_of`. The hot path of a local hit."""
    plan: _Plan | None = layout.plan
    if plan is None:
        plan = layout.plan = [
            (name, _DTYPES[field.dtype], field.count, field.begin, field.shape)
            for name, field in layout.items()
        ]
    return {
        name: torch.frombuffer(blob, dtype=dtype, count=count, offset=begin).view(shape)
        if count
        else torch.empty(shape, dtype=dtype)
        for name, dtype, count, begin, shape in plan
    }


def moved(
    tensor: torch.Tensor,
    device: DeviceLike | None,
    dtype: torch.dtype | None,
    non_blocking: bool,
) -> torch.Tensor:
    """Return the tensor on `device`; `dtype` applies to floating tensors, images stay U8."""
    wanted = dtype if tensor.is_floating_point() else None
    if device is None and wanted is None:
        return tensor
    return tensor.to(
        device=tensor.device if device is None else device,
        dtype=tensor.dtype if wanted is None else wanted,
        non_blocking=non_blocking,
    )


def field_of(name: str, tensor: torch.Tensor) -> Tensor:
    """Return a tensor of any device and strides as a field.

    Shares the tensor's memory if possible: do not write to it until the Put ends.

    Raises:
        InvalidRequest: for a dtype or layout that a blob cannot hold.
    """
    dtype = _NAMES.get(tensor.dtype)
    if dtype is None or tensor.layout is not torch.strided or tensor.is_quantized:
        raise InvalidRequest(f"{name}: {_what_it_is(tensor)}", reason="UNSUPPORTED_DTYPE")
    if tensor.is_meta or tensor.is_nested:
        what = "a meta tensor, which has no values" if tensor.is_meta else "a nested tensor"
        raise InvalidRequest(
            f"{name} is {what}: store one tensor with values", reason="UNSUPPORTED_TYPE"
        )
    try:
        return _plain_field(dtype, tensor)
    except (RuntimeError, TypeError) as exc:
        # torch raises these for tensors without own values: fake ones, and those of a transform.
        raise InvalidRequest(
            f"{name}: the values of a {type(tensor).__name__} cannot be read: store a plain tensor",
            reason="UNSUPPORTED_TYPE",
        ) from exc


def _what_it_is(tensor: torch.Tensor) -> str:
    """Return what no entry holds, and what to store instead."""
    if tensor.layout is not torch.strided:
        return f"a tensor with layout {tensor.layout} cannot be stored: store tensor.to_dense()"
    if tensor.is_quantized:
        return "a quantized tensor cannot be stored: store tensor.dequantize()"
    if tensor.is_complex():
        return f"a {tensor.dtype} tensor cannot be stored: store torch.view_as_real(tensor)"
    held = ", ".join(str(dtype) for dtype in _NAMES)
    return f"a {tensor.dtype} tensor cannot be stored: convert it to one of {held}"


def _plain_field(dtype: str, tensor: torch.Tensor) -> Tensor:
    # A view may be negated by a flag alone: its memory then has the other sign.
    plain = tensor.detach().to("cpu").resolve_neg().contiguous()
    size_bytes = plain.numel() * plain.element_size()
    if size_bytes == 0:
        return Tensor(dtype, tuple(plain.shape), b"")
    # By address, not by .numpy(): numpy has no bf16, and may not be installed.
    data = view_of_address(plain.data_ptr(), size_bytes, plain).toreadonly()
    return Tensor(dtype, tuple(plain.shape), data)
