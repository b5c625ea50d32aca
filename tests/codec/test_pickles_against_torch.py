"""Does our reader return the tensor that torch itself loads? torch is the oracle.

Promise 7.
"""

from __future__ import annotations

import io
import pickle

import pytest
import torch

from cachesvc.codec.pickle_writer import encode_pickle
from cachesvc.codec.pickles import decode_pickle
from cachesvc.core.errors import InvalidRequest
from cachesvc_format.blob import Tensor

DTYPES = {
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
LAYOUTS = {
    "contiguous": lambda t: t,
    "a slice with an offset": lambda t: t[1:, :, 2:],
    "one row of a larger storage": lambda t: t[2],
    "every other element": lambda t: t[:, ::2],
    "transposed": lambda t: t.transpose(0, 2),
    "channels last": lambda t: t[None].contiguous(memory_format=torch.channels_last),
    "expanded within its storage": lambda t: t[:1, :1].expand(1, 3, 5),
    "overlapping windows": lambda t: t.reshape(-1)[:40].unfold(0, 4, 3),
    "size-1 dimensions with odd strides": lambda t: t.as_strided((1, 3, 1), (999, 1, 777)),
    "scalar": lambda t: t[0, 0, 1],
    "empty": lambda t: t[:0],
    "empty behind the last element": lambda t: t.reshape(-1)[60:],
    "no elements at all": lambda t: torch.empty((0, 3), dtype=t.dtype),
}
PROTOCOLS = range(6)


def _tensor(name: str) -> torch.Tensor:
    # Any bit pattern is a value, NaN and subnormals included, but a bool is 0 or 1.
    size_bytes = 60 * DTYPES[name].itemsize
    pattern = torch.arange(size_bytes, dtype=torch.int64) * 37 % 251
    raw = pattern % 2 if name == "BOOL" else pattern
    return raw.to(torch.uint8).view(DTYPES[name]).reshape(3, 4, 5)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _saved(tensor: torch.Tensor, *, as_zip: bool, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    torch.save(tensor, file, pickle_protocol=protocol, _use_new_zipfile_serialization=as_zip)
    return file.getvalue()


def _assert_same(decoded: Tensor, oracle: torch.Tensor, dtype: str) -> None:
    assert decoded.dtype == dtype
    assert decoded.shape == tuple(oracle.shape)
    assert bytes(decoded.data) == _bytes(oracle)
    assert decoded.size_bytes == len(decoded.data)
    assert decoded.mode is None


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_raw_pickle_decodes_to_what_torch_sees(dtype: str, protocol: int, layout: str) -> None:
    data = pickle.dumps(LAYOUTS[layout](_tensor(dtype)), protocol=protocol)

    _assert_same(decode_pickle(data), pickle.loads(data), dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_saved_file_decodes_to_what_torch_sees(
    dtype: str, protocol: int, as_zip: bool, layout: str
) -> None:
    data = _saved(LAYOUTS[layout](_tensor(dtype)), as_zip=as_zip, protocol=protocol)

    oracle = torch.load(io.BytesIO(data), weights_only=False)
    _assert_same(decode_pickle(data), oracle, dtype)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_parameter_decodes_as_its_tensor(protocol: int, requires_grad: bool) -> None:
    parameter = torch.nn.Parameter(_tensor("F16"), requires_grad=requires_grad)

    _assert_same(decode_pickle(pickle.dumps(parameter, protocol=protocol)), parameter, "F16")


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
def test_a_saved_parameter_decodes_as_its_tensor(as_zip: bool) -> None:
    parameter = torch.nn.Parameter(_tensor("BF16"))

    _assert_same(decode_pickle(_saved(parameter, as_zip=as_zip)), parameter, "BF16")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_tensor_that_requires_grad_decodes(protocol: int) -> None:
    tensor = _tensor("F32").requires_grad_()

    _assert_same(decode_pickle(pickle.dumps(tensor, protocol=protocol)), tensor, "F32")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_byte_value_survives_the_text_form_of_bytes(protocol: int) -> None:
    # Protocol 0 escapes newlines, backslashes and \x1a; protocols 1 and 2 use two bytes for high
    # ones.
    tensor = torch.arange(256, dtype=torch.uint8).repeat(3)

    data = pickle.dumps(tensor, protocol=protocol)

    assert bytes(decode_pickle(data).data) == bytes(range(256)) * 3


def test_a_tensor_in_the_size_of_a_real_pose_decodes_without_a_copy() -> None:
    pose = torch.randn(1, 3, 1024, 768).half()
    data = pickle.dumps(pose)

    decoded = decode_pickle(data)

    _assert_same(decoded, pose, "F16")
    assert isinstance(decoded.data, memoryview)
    assert decoded.data.obj is data


def test_a_small_part_of_a_pickled_batch_does_not_keep_the_batch_in_memory() -> None:
    batch = torch.arange(64 * 77, dtype=torch.int32).reshape(64, 77)

    decoded = decode_pickle(pickle.dumps(batch[3]))  # torch pickles the whole storage

    assert bytes(decoded.data) == batch[3].numpy().tobytes()
    assert len(memoryview(decoded.data).obj) == decoded.size_bytes


def test_a_zip_without_a_byteorder_record_is_little_endian() -> None:
    # torch before 2.1 wrote no byteorder record; a name of the same length hides this one.
    data = _saved(_tensor("F32"), as_zip=True).replace(b"/byteorder", b"/Byteorder")

    _assert_same(decode_pickle(data), _tensor("F32"), "F32")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_loads_what_we_write(dtype: str, layout: str) -> None:
    tensor = LAYOUTS[layout](_tensor(dtype))
    ours = Tensor(dtype, tuple(tensor.shape), _bytes(tensor))

    written = encode_pickle(ours)

    loaded = pickle.loads(written)
    assert loaded.dtype == DTYPES[dtype]
    assert loaded.shape == tensor.shape
    assert loaded.is_contiguous()
    assert not loaded.requires_grad
    assert _bytes(loaded) == _bytes(tensor)
    assert decode_pickle(written) == ours


@pytest.mark.parametrize("size", [1, 255, 256, 65_535, 65_536, 70_000])
def test_sizes_at_the_edges_of_the_number_opcodes_are_written_right(size: int) -> None:
    ours = Tensor("I16", (size,), bytes(2 * size))

    assert pickle.loads(encode_pickle(ours)).shape == (size,)


def test_equal_tensors_are_written_as_equal_bytes() -> None:
    one = decode_pickle(pickle.dumps(_tensor("F16"), protocol=0))
    other = decode_pickle(_saved(_tensor("F16").clone(), as_zip=True))

    assert encode_pickle(one) == encode_pickle(other)


def test_a_tensor_that_could_not_be_read_back_is_not_written() -> None:
    too_large = Tensor("U8", (256 * 1024 * 1024 + 1,), b"")

    with pytest.raises(InvalidRequest) as raised:
        encode_pickle(too_large)
    assert raised.value.reason == "TENSOR_TOO_LARGE"
