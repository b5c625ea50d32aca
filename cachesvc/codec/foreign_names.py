"""What is in a pickle that names something no plain tensor names, and what should be saved instead?

For messages only: a name is refused whatever this module says of it.
"""

from __future__ import annotations

import re

from cachesvc_format.names import clipped

# The type of a `_rebuild_tensor_v3` is named this near to the function or to the stream's end.
NEARBY_BYTES = 512

_SPARSE = "it is a sparse tensor: save tensor.to_dense()"
_COMPLEX = "it is a complex tensor, and no entry holds complex numbers: save two real tensors"
_QUANTIZED = "it is a quantized tensor: save tensor.dequantize()"
_OTHER_DEVICE = "it is a tensor of another device: save tensor.cpu()"
_NESTED = "it is a nested tensor: save tensor.to_padded_tensor(0)"
_STORAGE = "it is a storage without a tensor: save the tensor"
_WITH_ATTRIBUTES = (
    "it is a tensor of a class or with attributes of its own: "
    "save tensor.detach().as_subclass(torch.Tensor).clone()"
)
_REBUILDERS = {
    "_rebuild_sparse_tensor": _SPARSE,
    "_rebuild_sparse_csr_tensor": _SPARSE,
    "_rebuild_qtensor": _QUANTIZED,
    "_rebuild_nested_tensor": _NESTED,
    "_rebuild_meta_tensor_no_storage": "it is a meta tensor, which has no values",
    "_rebuild_device_tensor_from_numpy": _OTHER_DEVICE,
    "_rebuild_device_tensor_from_cpu_tensor": _OTHER_DEVICE,
    "_rebuild_xla_tensor": _OTHER_DEVICE,
    "_rebuild_mlc_tensor": _OTHER_DEVICE,
    "_rebuild_wrapper_subclass": _WITH_ATTRIBUTES,
    "_rebuild_from_type": _WITH_ATTRIBUTES,
    "_rebuild_from_type_v2": _WITH_ATTRIBUTES,
    "_rebuild_parameter_with_state": _WITH_ATTRIBUTES,
}
_OF_TORCH = {
    "ComplexFloatStorage": _COMPLEX,
    "ComplexDoubleStorage": _COMPLEX,
    "QInt8Storage": _QUANTIZED,
    "QUInt8Storage": _QUANTIZED,
    "QInt32Storage": _QUANTIZED,
    "QUInt4x2Storage": _QUANTIZED,
    "QUInt2x4Storage": _QUANTIZED,
    "UntypedStorage": _STORAGE,
    "TypedStorage": _STORAGE,
    "Size": "it is a tensor's size without the tensor: save the tensor",
}
_OF_MODULES = "it is a module: save one tensor of it"
_BY_PACKAGE = {
    "numpy": "it holds numpy's values: save torch.from_numpy(array)",
    "PIL": "it is an image of Pillow: save a tensor, or the image as PNG for an image's field",
    "__torch__": "it is a module of TorchScript: save one tensor of it",
    "transformers": "it is an object of transformers: save one tensor of it",
    "diffusers": "it is an object of diffusers: save one tensor of it",
    "pandas": "it is an object of pandas: save torch.tensor(frame.values)",
    "jax": "it is an array of JAX: save torch.from_numpy(numpy.asarray(array))",
    "jaxlib": "it is an array of JAX: save torch.from_numpy(numpy.asarray(array))",
    "tensorflow": "it is a tensor of TensorFlow: save torch.from_numpy(tensor.numpy())",
}
_NO_STORAGE_CLASS = "_rebuild_tensor_v3"
_TYPE = re.compile(
    rb"\b(float8_e\w+|float4_e\w+|uint16|uint32|uint64|complex32|u?int[1-7]|bits\w+)\b"
)


def said_of(module: str, name: str, nearby: bytes) -> str:
    """Return what a refusal says of `module.name`; `nearby` is a part of the pickle."""
    if module == "torch._utils" and name == _NO_STORAGE_CLASS:
        return _of_type(nearby)
    known = _known(module, name)
    named = f"it names {clipped(f'{module}.{name}')}"
    return f"{named}: {known}" if known else f"{named}, which no plain tensor does"


def _known(module: str, name: str) -> str | None:
    package, _, rest = module.partition(".")
    if package != "torch":
        return _BY_PACKAGE.get(package)
    if rest.partition(".")[0] == "nn":
        return _OF_MODULES
    return (_OF_TORCH if rest in ("", "storage") else _REBUILDERS).get(name)


def _of_type(nearby: bytes) -> str:
    found = _TYPE.search(nearby)
    which = f"a {found[1].decode()} tensor" if found else "a tensor of another type"
    return f"it is {which}, which no entry holds: convert it, as with tensor.to(torch.float32)"
