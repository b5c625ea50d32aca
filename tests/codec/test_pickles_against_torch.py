"""Does our reader return the tensor that torch itself loads? torch is the oracle.

Promise 7.
"""

from __future__ import annotations

import io
import pickle
import types
import zipfile
from collections.abc import Iterator

import pytest
import torch
import torch.utils.serialization
from PIL import Image

from cachesvc.codec.pickle_writer import encode_pickle
from cachesvc.codec.pickles import decode_pickle
from cachesvc.core.errors import InvalidRequest, OriginDataCorrupt
from cachesvc_format.blob import Tensor
from tests.support.tensor_forms import DTYPES

LAYOUTS = {
    "contiguous": lambda t: t,
    "a slice with an offset": lambda t: t[1:, :, 2:],
    "one row of a larger storage": lambda t: t[2],
    "every other element": lambda t: t[:, ::2],
    "transposed": lambda t: t.transpose(0, 2),
    "channels last": lambda t: t[None].contiguous(memory_format=torch.channels_last),
    "expanded within its storage": lambda t: t[:1, :1].expand(1, 3, 5),
    "expanded beyond its storage": lambda t: t[:1, :1].expand(7, 9, 5),
    "one element expanded": lambda t: t[0, 0, 1].expand(300),
    "windows that overlap beyond their storage": lambda t: t.reshape(-1).unfold(0, 40, 1),
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


class OldPickler(pickle._Pickler):
    """Writes tensors as torch 0.4 did: without hooks as None, in all forms."""

    def reducer_override(self, value: object) -> object:
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        parts = (value.storage(), value.storage_offset(), tuple(value.size()), value.stride())
        return torch._utils._rebuild_tensor_v2, (*parts, value.requires_grad, None)


class OldestPickler(OldPickler):
    """Writes tensors as torch before 0.4 did: four parts, and the sizes as a torch.Size."""

    def reducer_override(self, value: object) -> object:
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        parts = (value.storage(), value.storage_offset(), value.size(), value.stride())
        return torch._utils._rebuild_tensor, parts


def _pickled_by(pickler: type[OldPickler], tensor: torch.Tensor, form: str) -> bytes:
    out = io.BytesIO()
    if form == "raw":
        pickler(out, protocol=2).dump(tensor)
        return out.getvalue()
    module = types.SimpleNamespace(__name__="old", Pickler=pickler, dump=pickle.dump)
    torch.save(tensor, out, pickle_module=module, _use_new_zipfile_serialization=form == "zip")
    return out.getvalue()


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("form", ["raw", "zip", "legacy"])
@pytest.mark.parametrize("pickler", [OldPickler, OldestPickler])
def test_a_tensor_that_an_old_torch_wrote_decodes(pickler: type[OldPickler], form: str) -> None:
    tensor = _tensor("F32")[1:, ::2]

    data = _pickled_by(pickler, tensor, form)

    assert b"OrderedDict" not in data
    _assert_same(decode_pickle(data), tensor, "F32")


@pytest.fixture
def no_checksums() -> Iterator[None]:
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(True)


@pytest.mark.usefixtures("no_checksums")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_torch_wrote_without_checksums_decodes(layout: str) -> None:
    tensor = LAYOUTS[layout](_tensor("F16"))

    data = _saved(tensor, as_zip=True)

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {record.CRC for record in archive.infolist()} == {0}
    _assert_same(decode_pickle(data), tensor, "F16")


@pytest.mark.parametrize("record", ["data.pkl", "byteorder", "data/0"])
def test_a_record_whose_checksum_alone_is_0_is_damaged(record: str) -> None:
    data = bytearray(_saved(_tensor("F32"), as_zip=True))
    entry_at = data.rindex(f"archive/{record}".encode()) - 46
    assert data[entry_at : entry_at + 4] == b"PK\x01\x02"

    data[entry_at + 16 : entry_at + 20] = bytes(4)

    with pytest.raises(OriginDataCorrupt, match="wrong checksum"):
        decode_pickle(bytes(data))


def test_every_flipped_element_of_a_file_with_checksums_is_found() -> None:
    good = _saved(_tensor("U8"), as_zip=True)
    start = good.index(_bytes(_tensor("U8")))
    for at in range(start, start + 60):
        data = bytearray(good)
        data[at] ^= 1
        with pytest.raises(OriginDataCorrupt, match="wrong checksum"):
            decode_pickle(bytes(data))


@pytest.mark.parametrize("form", ["zip", "legacy", "raw"])
def test_a_file_that_ends_early_is_cut_short(form: str) -> None:
    data = _in_form(form, torch.arange(100.0))

    for size_bytes in range(46, len(data)):
        with pytest.raises(OriginDataCorrupt, match="cut short"):
            decode_pickle(data[:size_bytes])


def _in_form(form: str, value: object) -> bytes:
    return pickle.dumps(value) if form == "raw" else _saved(value, as_zip=form == "zip")


class Derived(torch.Tensor):
    pass


def _with_attribute(tensor: torch.Tensor) -> torch.Tensor:
    tensor.tag = "x"
    return tensor


ONES = torch.ones(2, 3)
# What a refusal says of each value that is no plain tensor of a type that entries hold.
REFUSED = {
    **{
        name: (lambda name=name: ONES.to(getattr(torch, name)), f"it is a {name} tensor")
        for name in ("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "complex32", "uint16")
    },
    "uint32": (lambda: ONES.to(torch.uint32), "it is a uint32 tensor"),
    "uint64": (lambda: ONES.to(torch.uint64), "it is a uint64 tensor"),
    "float4": (
        lambda: torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "it is a float4_e2m1fn_x2 tensor",
    ),
    "complex64": (lambda: ONES.to(torch.complex64), "it is a complex tensor"),
    "complex128": (lambda: ONES.to(torch.complex128), "it is a complex tensor"),
    "negated": (lambda: torch.complex(ONES, ONES).conj().imag, "resolve_neg"),
    "quantized": (
        lambda: torch.quantize_per_tensor(ONES, 0.1, 0, torch.quint8),
        "it is a quantized tensor: save tensor.dequantize()",
    ),
    "sparse": (lambda: ONES.to_sparse(), "it is a sparse tensor: save tensor.to_dense()"),
    "csr": (lambda: ONES.to_sparse_csr(), "it is a sparse tensor: save tensor.to_dense()"),
    "nested": (lambda: torch.nested.nested_tensor([ONES, ONES]), "it is a nested tensor"),
    "meta": (lambda: ONES.to("meta"), "it is a meta tensor"),
    "derived": (lambda: ONES.as_subclass(Derived), "of a class or with attributes of its own"),
    "attribute": (lambda: _with_attribute(ONES.clone()), "with attributes of its own"),
    "parameter": (lambda: _with_attribute(torch.nn.Parameter(ONES)), "attributes of its own"),
    "dict": (lambda: {"pose": ONES}, "it is a dict, not one tensor"),
    "dict of two": (lambda: {"a": ONES, "b": ONES.clone()}, "more than one tensor"),
    "list": (lambda: [ONES], "it is a list, not one tensor"),
    "tuple": (lambda: (ONES, ONES), "it is a tuple, not one tensor"),
    "state_dict": (lambda: torch.nn.Linear(2, 2).state_dict(), "more than one tensor"),
    "small state_dict": (lambda: torch.nn.PReLU().state_dict(), "a state_dict"),
    "module": (lambda: torch.nn.PReLU(), "it is a module: save one tensor of it"),
    "array": (lambda: ONES.numpy(), "save torch.from_numpy(array)"),
    "image": (lambda: Image.new("L", (2, 2)), "it is an image of Pillow"),
    "number": (lambda: 7, "it is a number, not one tensor"),
    "text": (lambda: "pose", "it is text, not one tensor"),
    "nothing": (lambda: None, "it is None, not one tensor"),
    "size": (lambda: ONES.size(), "it is a tuple, not one tensor"),
    "storage": (lambda: ONES.untyped_storage(), "it is a storage without a tensor"),
}


@pytest.mark.filterwarnings("ignore")  # torch warns of what is new, and of what is old
@pytest.mark.parametrize("form", ["zip", "legacy", "raw"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_plain_tensor_is_named_with_what_to_save_instead(what: str, form: str) -> None:
    make, said = REFUSED[what]

    with pytest.raises(OriginDataCorrupt) as raised:
        decode_pickle(_in_form(form, make()))

    assert raised.value.reason == "PICKLE_REFUSED"
    assert said in raised.value.message


@pytest.mark.parametrize("alignment", [64, 4096, 64 * 1024])
def test_a_file_of_any_storage_alignment_decodes(alignment: int) -> None:
    config = torch.utils.serialization.config.save
    before, config.storage_alignment = config.storage_alignment, alignment
    try:
        data = _saved(_tensor("F32"), as_zip=True)
    finally:
        config.storage_alignment = before

    _assert_same(decode_pickle(data), _tensor("F32"), "F32")


@pytest.mark.parametrize("form", ["zip", "legacy", "raw"])
@pytest.mark.parametrize("location", ["cuda:0", "cuda:7", "mps", "xpu:0", "meta"])
def test_a_tensor_that_a_gpu_held_decodes(
    monkeypatch: pytest.MonkeyPatch, location: str, form: str
) -> None:
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: location)
    data = _in_form(form, _tensor("F32"))

    assert location.encode() in data
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
