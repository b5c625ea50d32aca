"""Can an object at the origin make the daemon do anything but build one plain tensor?

Each attack is a stream that would run code, take memory without end or read outside of its bytes in
a naive reader. Every attack that runs code would create a file, the canary. Promise 7.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cachesvc.codec import pickles
from cachesvc.codec.pickles import decode_pickle
from cachesvc.core.errors import OriginDataCorrupt

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
VERSION = b"\x80\x02M\xe9\x03."


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes((len(raw),)) + raw


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _numbers(*values: int) -> bytes:
    return _tuple(*map(_number, values))


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _bytes(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


NO_HOOKS = _name("collections", "OrderedDict") + b")R"
REBUILD = _name("torch._utils", "_rebuild_tensor_v2")
LITTLE = b"\x80\x02}" + _text("little_endian") + b"\x88s."
STORAGE_ID = (_text("storage"), _name("torch", "HalfStorage"), _text("7"), _text("cpu"))
ELEMENTS = bytes(range(12))


def _payload(
    *,
    magic: bytes = MAGIC,
    facts: bytes = LITTLE,
    object_: bytes = _tuple(*STORAGE_ID, _number(6), b"N") + b"Q",
    keys: bytes = b"]" + _text("7") + b"a",
    elements: bytes = struct.pack("<q", 6) + ELEMENTS,
) -> bytes:
    """Return six float16 in torch's legacy form."""
    return magic + VERSION + facts + b"\x80\x02" + object_ + b".\x80\x02" + keys + b"." + elements


def _load(payload: bytes) -> bytes:
    return _name("torch.storage", "_load_from_bytes") + _tuple(_bytes(payload)) + b"R"


def _stream(
    *,
    storage: bytes = _load(_payload()),
    offset: bytes = _number(0),
    size: bytes = _numbers(2, 3),
    stride: bytes = _numbers(3, 1),
    grad: bytes = b"\x89",
    hooks: bytes = NO_HOOKS,
    more: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Return a raw pickle of a (2, 3) float16 tensor."""
    arguments = _tuple(storage, offset, size, stride, grad, hooks, more)
    return b"\x80\x04" + REBUILD + arguments + b"R" + after + b"."


class _Reduced:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._reduced


def _touching(canary: Path) -> str:
    return f"__import__('pathlib').Path({str(canary)!r}).touch()"


def _eval_call(canary: Path) -> bytes:
    """Return opcodes that leave eval's result on the stack."""
    return _name("builtins", "eval") + _tuple(_text(_touching(canary))) + b"R"


CODE_ATTACKS: dict[str, Callable[[Path], bytes]] = {
    "eval by REDUCE": lambda c: pickle.dumps(_Reduced(eval, _touching(c))),
    "eval by REDUCE, protocol 0": lambda c: pickle.dumps(_Reduced(eval, _touching(c)), 0),
    "exec by REDUCE, protocol 2": lambda c: pickle.dumps(_Reduced(exec, _touching(c)), 2),
    "os.system": lambda c: (
        b"\x80\x04" + _name("os", "system") + _tuple(_text(f"touch {c}")) + b"R."
    ),
    "os.system by INST": lambda c: b"(" + _text(f"touch {c}") + b"ios\nsystem\n.",
    "os.system by OBJ": lambda c: b"(" + _name("os", "system") + _text(f"touch {c}") + b"o.",
    "subprocess.Popen by NEWOBJ": lambda c: (
        b"\x80\x04" + _name("subprocess", "Popen") + _tuple(_text(f"touch {c}")) + b"\x81."
    ),
    "a name with dots": lambda c: (
        b"\x80\x04\x8c\x0ctorch._utils\x8c\x09os.system\x93" + _tuple(_text(f"touch {c}")) + b"R."
    ),
    "eval in the place of the storage": lambda c: _stream(storage=_eval_call(c)),
    "eval in the place of the hooks": lambda c: _stream(hooks=_eval_call(c)),
    "eval after the tensor": lambda c: _stream(after=_eval_call(c) + b"0"),
    "eval inside of the storage's bytes": lambda c: _stream(
        storage=_load(_payload(object_=_eval_call(c)))
    ),
    "eval in the facts about the machine": lambda c: _stream(
        storage=_load(_payload(facts=b"\x80\x02}" + _text("little_endian") + _eval_call(c) + b"s."))
    ),
    "eval in the place of the magic number": lambda c: _stream(
        storage=_load(_payload(magic=_eval_call(c) + b"."))
    ),
    "eval in the storage's keys": lambda c: _stream(storage=_load(_payload(keys=_eval_call(c)))),
    "eval in a legacy file": lambda c: _payload(object_=_eval_call(c)),
    "a raw pickle in the storage's bytes": lambda c: _stream(
        storage=_load(b"\x80\x04" + _eval_call(c) + b".")
    ),
    "a zip of torch in the storage's bytes": lambda c: _stream(
        storage=_load(zipped(_eval_call(c)))
    ),
    "eval in a zip": lambda c: zipped(_eval_call(c)),
    "a parameter of an evaluated tensor": lambda c: (
        _name("torch._utils", "_rebuild_parameter")
        + _tuple(_eval_call(c), b"\x88", NO_HOOKS)
        + b"R."
    ),
}
# Attacks that create the canary in plain Python: they prove that the canary works.
WORKING_ATTACKS = [name for name in CODE_ATTACKS if name.startswith(("eval by", "exec by", "os."))]


def zipped(object_: bytes, *, members: dict[str, bytes] | None = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + object_ + b".")
        for name, content in (members or {"a/data/7": ELEMENTS}).items():
            archive.writestr(name, content)
    return file.getvalue()


def _rebuilt(storage: bytes) -> bytes:
    parts = (storage, _number(0), _numbers(2, 3), _numbers(3, 1), b"\x89", NO_HOOKS)
    return REBUILD + _tuple(*parts) + b"R"


ZIP_TENSOR = _rebuilt(_tuple(*STORAGE_ID, _number(6)) + b"Q")
LEGACY_FILE = _payload(object_=_rebuilt(_tuple(*STORAGE_ID, _number(6), b"N") + b"Q"))


def _assert_refused(data: bytes) -> OriginDataCorrupt:
    with pytest.raises(OriginDataCorrupt) as raised:
        decode_pickle(data)
    assert raised.value.reason == "PICKLE_REFUSED"
    assert len(raised.value.message) < 200
    return raised.value


def test_the_parts_that_the_attacks_are_made_of_are_a_good_tensor() -> None:
    decoded = decode_pickle(_stream())

    assert bytes(decoded.data) == ELEMENTS
    assert decoded.shape == (2, 3)
    assert pickle.loads(_stream()).shape == (2, 3)
    assert decode_pickle(zipped(ZIP_TENSOR)) == decoded
    assert decode_pickle(LEGACY_FILE) == decoded


@pytest.mark.parametrize("attack", WORKING_ATTACKS)
def test_the_attack_runs_in_a_naive_reader(attack: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    pickle.loads(CODE_ATTACKS[attack](canary))

    assert canary.exists()


@pytest.mark.parametrize("attack", CODE_ATTACKS)
def test_code_in_an_object_is_refused_and_not_run(attack: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    _assert_refused(CODE_ATTACKS[attack](canary))

    assert not canary.exists()


NAMES = {
    "torch.load itself": ("torch", "load"),
    "torch's zip loader": ("torch.serialization", "load"),
    "getattr": ("builtins", "getattr"),
    "an old name of the builtins": ("__builtin__", "eval"),
    "the copy registry": ("copyreg", "_reconstructor"),
    "numpy's array": ("numpy.core.multiarray", "_reconstruct"),
    "pickle in pickle": ("pickle", "loads"),
    "a tensor with attributes": ("torch._tensor", "_rebuild_from_type_v2"),
    "a parameter with state": ("torch._utils", "_rebuild_parameter_with_state"),
    "a sparse tensor": ("torch._utils", "_rebuild_sparse_tensor"),
    "an untyped storage": ("torch.storage", "UntypedStorage"),
    "a storage class outside of a storage": ("torch", "HalfStorage"),
    "a name with a line's worth of text": ("x" * 100, "y" * 100),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_plain_tensor_needs_is_refused(name: str) -> None:
    error = _assert_refused(_stream(storage=_name(*NAMES[name]) + b")R"))

    assert "it names" in error.message


STREAMS: dict[str, bytes] = {
    # Opcodes that no tensor needs.
    "NEWOBJ": _stream(hooks=_name("collections", "OrderedDict") + b")\x81"),
    "NEWOBJ_EX": _stream(hooks=_name("collections", "OrderedDict") + b")}\x92"),
    "INST": _stream(hooks=b"(icollections\nOrderedDict\n"),
    "OBJ": _stream(hooks=b"(" + _name("collections", "OrderedDict") + b"o"),
    "EXT1": _stream(hooks=b"\x82\x01"),
    "EXT2": _stream(hooks=b"\x83\x01\x00"),
    "EXT4": _stream(hooks=b"\x84\x01\x00\x00\x00"),
    "BUILD sets state on the tensor": _stream(after=b"}" + _text("data") + b"Nsb"),
    "a persistent id in text": _stream(storage=b"P7\n"),
    "a persistent id in a raw stream": _stream(
        storage=_tuple(*STORAGE_ID[:1], b"N", *STORAGE_ID[2:], _number(6)) + b"Q"
    ),
    "a float": _stream(offset=b"F0.0\n"),
    "a bytearray of 2**60 bytes": b"\x80\x05\x96" + struct.pack("<Q", 2**60),
    "bytes of 2**60 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**60),
    "an out-of-band buffer": _stream(storage=b"\x97"),
    "a frozen set": _stream(hooks=b"(\x91"),
    # Calls.
    "a number is called": _stream(storage=_number(7) + b")R"),
    "a tensor is called": _stream(after=b")R"),
    "a storage class is called": _stream(
        storage=_load(_payload(object_=_name("torch", "HalfStorage") + b")R"))
    ),
    "arguments that are a list": b"\x80\x04" + REBUILD + b"]R.",
    "text names a function": _stream(storage=_text("torch.storage") + _tuple(_bytes(b"")) + b"R"),
    "a list names a global": _stream(storage=b"]]\x93"),
    "a hook is set": _stream(hooks=NO_HOOKS + _text("0") + b"\x89s"),
    "hooks that are a dict": _stream(hooks=b"}"),
    "an OrderedDict with items": _stream(
        hooks=_name("collections", "OrderedDict") + _tuple(b"]") + b"R"
    ),
    "a negative bit in the metadata": _stream(more=b"}" + _text("neg") + b"\x88s"),
    "too few parts": b"\x80\x04" + REBUILD + b")R.",
    "a parameter of a number": _name("torch._utils", "_rebuild_parameter")
    + _tuple(_number(1), b"\x88", NO_HOOKS)
    + b"R.",
    "a parameter of too many parts": _name("torch._utils", "_rebuild_parameter")
    + _tuple(_number(1), b"\x88", NO_HOOKS, b"}")
    + b"R.",
    "requires_grad that is a number": _stream(grad=_number(1)),
    "rot13": _stream(
        storage=_name("_codecs", "encode") + _tuple(_text("grfg"), _text("rot13")) + b"R"
    ),
    "zlib": _stream(
        storage=_name("_codecs", "encode") + _tuple(_bytes(b"x"), _text("zlib")) + b"R"
    ),
    "encode without a codec": _stream(
        storage=_name("_codecs", "encode") + _tuple(_text("x")) + b"R"
    ),
    "text as a storage's bytes": _stream(
        storage=_name("torch.storage", "_load_from_bytes") + _tuple(_text("x")) + b"R"
    ),
    "two storages": _stream(more=_load(_payload())),
    # Sizes, strides and offsets.
    "a stride of 0 that makes gigabytes": _stream(size=_numbers(2**30), stride=_numbers(0)),
    "a view expanded to a gigabyte": _stream(size=_numbers(2**29), stride=_numbers(0)),
    "an empty view of a gigabyte": _stream(size=_numbers(0, 2**29), stride=_numbers(0, 0)),
    "a negative size": _stream(size=_numbers(-2, -3)),
    "a negative stride": _stream(stride=_numbers(-3, 1)),
    "a negative offset": _stream(offset=_number(-1)),
    "an offset behind the end": _stream(offset=_number(1)),
    "an empty view behind the end": _stream(
        offset=_number(7), size=_numbers(0), stride=_numbers(1)
    ),
    "a stride that leaves the storage": _stream(stride=_numbers(4, 1)),
    "a stride of 2**62": _stream(stride=_numbers(2**62, 1)),
    "an offset of 2**63": _stream(offset=_number(2**63)),
    "an offset that is a bool": _stream(offset=b"\x88"),
    "a size that is a bool": _stream(size=_tuple(b"\x88", b"\x88"), stride=_numbers(1, 1)),
    "a size that is text": _stream(size=_text("23")),
    "a size that is a list": _stream(size=b"]"),
    "more strides than sizes": _stream(stride=_numbers(3, 1, 1)),
    "17 dimensions": _stream(size=_numbers(*[1] * 17), stride=_numbers(*[1] * 17)),
    "an empty tensor whose other sizes overflow": _stream(
        size=_numbers(0, 2**40, 2**40), stride=_numbers(1, 1, 1)
    ),
    # The storage's own form.
    "another magic number": _stream(storage=_load(_payload(magic=b"\x80\x02K\x07."))),
    "an unknown version": _stream(storage=_load(MAGIC + b"\x80\x02K\x07.")),
    "big-endian": _stream(
        storage=_load(_payload(facts=b"\x80\x02}" + _text("little_endian") + b"\x89s."))
    ),
    "no facts about the machine": _stream(storage=_load(_payload(facts=b"\x80\x02]."))),
    "a storage that is a view": _stream(
        storage=_load(
            _payload(object_=_tuple(*STORAGE_ID, _number(6), _tuple(_text("1"), b"K\x00")) + b"Q")
        )
    ),
    "a module's source": _stream(
        storage=_load(
            _payload(object_=_tuple(_text("module"), *STORAGE_ID[1:], _number(6), b"N") + b"Q")
        )
    ),
    "an id that is text": _stream(storage=_load(_payload(object_=_text("storage") + b"Q"))),
    "a key that is a path": _stream(
        storage=_load(
            _payload(
                object_=_tuple(*STORAGE_ID[:2], _text("../7"), _text("cpu"), _number(6), b"N")
                + b"Q"
            )
        )
    ),
    "a count of 2**40": _stream(
        storage=_load(_payload(object_=_tuple(*STORAGE_ID, _number(2**40), b"N") + b"Q"))
    ),
    "a count below 0": _stream(
        storage=_load(_payload(object_=_tuple(*STORAGE_ID, _number(-6), b"N") + b"Q"))
    ),
    "a count that differs from the bytes": _stream(
        storage=_load(_payload(elements=struct.pack("<q", 5) + ELEMENTS))
    ),
    "two ids in one storage": _stream(
        storage=_load(_payload(object_=_tuple(*[_tuple(*STORAGE_ID, _number(6), b"N") + b"Q"] * 2)))
    ),
    "a storage in a tuple": _stream(
        storage=_load(_payload(object_=_tuple(*STORAGE_ID, _number(6), b"N") + b"Q\x85"))
    ),
    "bytes in the place of the storage": _stream(storage=_bytes(ELEMENTS)),
    "a storage that is a number": _stream(storage=_load(_payload(object_=_number(7)))),
    "two keys": _stream(storage=_load(_payload(keys=b"]" + (_text("7") + b"a") * 2))),
    "keys that are text": _stream(storage=_load(_payload(keys=_text("7")))),
    "a list of keys that holds itself": _stream(storage=_load(_payload(keys=b"]q\x00h\x00a"))),
    "bytes behind the elements": _stream(
        storage=_load(_payload(elements=struct.pack("<q", 6) + ELEMENTS + b"more"))
    ),
    "elements that are cut short": _stream(
        storage=_load(_payload(elements=struct.pack("<q", 6) + ELEMENTS[:-1]))
    ),
    "a legacy file that holds a storage": _payload(),
    "a legacy file with bytes behind it": LEGACY_FILE + b"more",
    # Limits of the machine.
    "nothing": b"",
    "bytes behind the tensor": _stream() + b"more",
    "two tensors": _stream() + _stream(),
    "no STOP": _stream()[:-1],
    "two values": _stream(after=b"N"),
    "a mark is left": _stream(after=b"("),
    "an empty stack": b"\x80\x04R.",
    "STOP at once": b".",
    "a tuple eats below its mark": b"N(\x85.",
    "a call eats below its mark": b"\x80\x04" + REBUILD + b")(R.",
    "a tuple without a mark": b"Nt.",
    "a value is recalled that was never remembered": _stream(offset=b"h\x07"),
    "memo of nothing": b"\x94.",
    "nesting of 100,000": b"N" + b"\x85" * 100_000 + b".",
    "marks of 100,000": b"(" * 100_000 + b".",
    "a tuple that doubles 150 times": b"Nq\x00" + b"h\x00\x86q\x00" * 150 + b".",
    "a dict with a list as key": b"}]Ns.",
    "a dict without a value": b"}(Nu.",
    "items of a list": b"](" + _text("a") + b"Nu.",
    "append to a dict": b"}Na.",
    "a number of a million digits in text": b"L" + b"9" * 1_000_000 + b"L\n.",
    "a number of a million digits as INT": b"I" + b"9" * 1_000_000 + b"\n.",
    "a number of 255 bytes": b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
    "a number of 2**31 bytes": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a number that is none": b"I0x7\n.",
    "bytes that reach behind the end": b"\x80\x03B\xff\xff\xff\x7f.",
    "a frame that reaches behind the end": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
    "protocol 6": b"\x80\x06N.",
    "a protocol in the middle": b"N\x80\x04.",
    "text that is not UTF-8": _stream(storage=b"X\x01\x00\x00\x00\xc3"),
    "an escape beyond Latin-1": b"V\\U0001f600\n.",
    "an escape that is cut short": b"V\\u00\n.",
    "a name that is not ASCII": b"c\xff\xff\nx\n.",
    "a name without an end": b"c" + b"x" * 1_000_000,
    "a plain number": pickle.dumps(7),
    "a dict of tensors": pickle.dumps({"a": torch.ones(1)}),
    "a list of tensors": pickle.dumps([torch.ones(1)]),
    "a numpy array": pickle.dumps(torch.ones(2).numpy()),
    "complex numbers": pickle.dumps(torch.ones(2, dtype=torch.complex64)),
    "a negative view": pickle.dumps(torch.ones(2, dtype=torch.complex64).conj().imag),
    "uint16": pickle.dumps(torch.ones(2, dtype=torch.uint16)),
    "quantized numbers": pickle.dumps(torch.ones(2).to(torch.float8_e4m3fn)),
    "a sparse tensor": pickle.dumps(torch.ones(2).to_sparse()),
    "a meta tensor": pickle.dumps(torch.ones(2, device="meta")),
    "an expanded tensor of a gigabyte": pickle.dumps(torch.ones(1).expand(2**28)),
}


@pytest.mark.parametrize("attack", STREAMS)
def test_a_stream_that_is_not_one_plain_tensor_is_refused(attack: str) -> None:
    _assert_refused(STREAMS[attack])


def test_a_stride_of_2_to_the_62_that_is_never_used_is_no_reason_to_refuse() -> None:
    strides = (2**62, 1, 3)
    data = _stream(size=_numbers(1, 3, 2), stride=_numbers(*strides))

    assert pickle.loads(data).stride() == strides
    assert bytes(decode_pickle(data).data) == pickle.loads(data).contiguous().numpy().tobytes()


# Inputs that a later check would refuse too, but only after spending memory or time.
REFUSED_FOR = {
    "two storages": "more than one tensor",
    "two ids in one storage": "more than one tensor",
    "rot13": "encodes text in another way",
    "zlib": "encodes text in another way",
    "an id that is text": "persistent id",
    "an unknown version": "file version",
    "a key that is a path": "a storage's key is not a number",
    "a count of 2**40": "larger than",
    "a parameter of a number": "a parameter's tensor",
    "a number of a million digits in text": "a line is too long",
    "nesting of 100,000": "more than 512 opcodes",
}


@pytest.mark.parametrize("attack", REFUSED_FOR)
def test_an_attack_is_refused_by_the_first_check_that_can_tell(attack: str) -> None:
    refusal = _assert_refused(STREAMS[attack])
    # The message may name a foreign format instead; its cause is what the reader refused.
    assert REFUSED_FOR[attack] in str(refusal.__cause__ or refusal)


def test_a_text_that_would_take_four_times_its_length_is_not_decoded() -> None:
    wide = _stream(storage=_text("x" * 100 + "\U0001f600"))

    assert "beyond Latin-1" in _assert_refused(wide).message


def test_a_huge_memo_index_costs_nothing() -> None:
    # The standard library's reader allocates a memo of that length.
    assert decode_pickle(_stream(after=b"r\xff\xff\xff\xff")) == decode_pickle(_stream())


def test_a_storage_is_made_into_bytes_once_however_often_it_is_recalled() -> None:
    text = _payload().decode("latin-1")
    encoded = _name("_codecs", "encode") + _tuple(_text(text), _text("latin1")) + b"R"
    load = _name("torch.storage", "_load_from_bytes")
    once = load + _tuple(encoded + b"q\x00") + b"R"

    assert decode_pickle(_stream(storage=once)) == decode_pickle(_stream())
    twice = _stream(storage=once, more=load + _tuple(b"h\x00") + b"R")
    assert "more than one tensor" in _assert_refused(twice).message


def test_an_object_above_the_limit_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pickles, "MAX_OBJECT_BYTES", len(_stream()) - 1)

    assert "larger than" in _assert_refused(_stream()).message


def _patched(data: bytes, old: bytes, new: bytes, *, last: bool = False) -> bytes:
    at = data.rfind(old) if last else data.find(old)
    assert at >= 0
    return data[:at] + new + data[at + len(old) :]


def _compressed() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + ZIP_TENSOR + b".")
        archive.writestr("a/data/7", bytes(10_000_000))
    return file.getvalue()


def _with_comment() -> bytes:
    file = io.BytesIO(zipped(ZIP_TENSOR))
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"more"
    return file.getvalue()


def _directory_entry(field_at: int, value: bytes) -> bytes:
    """Return a zip with one field of its first directory entry overwritten."""
    data = zipped(ZIP_TENSOR)
    at = data.find(b"PK\x01\x02") + field_at
    return data[:at] + value + data[at + len(value) :]


GOOD_MEMBERS = {"a/data/7": ELEMENTS}
ARCHIVES: dict[str, bytes] = {
    "compressed": _compressed(),
    "encrypted": _directory_entry(8, b"\x01\x00"),
    "another stored size": _directory_entry(20, b"\x01\x00\x00\x00"),
    "a record that reaches into the directory": _directory_entry(20, b"\xff\x0f\x00\x00" * 2),
    "a record behind the end": _directory_entry(42, b"\xff\xff\xff\x7f"),
    "a record inside of another": _directory_entry(42, b"\x20\x00\x00\x00"),
    "a name that reaches behind the end": _directory_entry(28, b"\xff\xff"),
    "a record on another disk": _directory_entry(34, b"\x01\x00"),
    "a name that is not UTF-8": _directory_entry(46, b"\xff"),
    "a record without its own header": _patched(
        zipped(ZIP_TENSOR), b"PK\x03\x04", b"PK\x03\x05", last=True
    ),
    "a wrong checksum": _patched(zipped(ZIP_TENSOR), ELEMENTS, ELEMENTS[::-1]),
    "big-endian": zipped(ZIP_TENSOR, members={**GOOD_MEMBERS, "a/byteorder": b"big"}),
    "an unknown byte order": zipped(ZIP_TENSOR, members={**GOOD_MEMBERS, "a/byteorder": b""}),
    "65 records": zipped(
        ZIP_TENSOR, members={**GOOD_MEMBERS, **{f"a/{i}": b"" for i in range(63)}}
    ),
    "no storage": zipped(ZIP_TENSOR, members={"a/data/8": ELEMENTS}),
    "a storage in another folder": zipped(ZIP_TENSOR, members={"b/data/7": ELEMENTS}),
    "a storage that is too short": zipped(ZIP_TENSOR, members={"a/data/7": ELEMENTS[:-2]}),
    "a storage that is too long": zipped(ZIP_TENSOR, members={"a/data/7": ELEMENTS + b"more"}),
    "two records of one name": _patched(
        zipped(ZIP_TENSOR, members={**GOOD_MEMBERS, "a/data/8": ELEMENTS}),
        b"a/data/8",
        b"a/data/7",
        last=True,
    ),
    "a comment": _with_comment(),
    "bytes behind it": zipped(ZIP_TENSOR) + b"more",
    "bytes behind the tensor": zipped(ZIP_TENSOR + b".more"),
    "cut short": zipped(ZIP_TENSOR)[:-1],
    "a start and no more": b"PK\x03\x04",
    "an end and no more": b"PK\x03\x04" + bytes(10) + b"PK\x05\x06" + bytes(18),
    "a directory that lies about its count": _patched(
        zipped(ZIP_TENSOR), b"\x02\x00\x02\x00", b"\x03\x00\x03\x00", last=True
    ),
    "a storage instead of a tensor": zipped(_tuple(*STORAGE_ID, _number(6)) + b"Q"),
    "an id with a view": zipped(_tuple(*STORAGE_ID, _number(6), b"N") + b"Q"),
    "a text id of protocol 0": zipped(b"P('storage', '7')\n"),
    "a raw pickle's function": zipped(_load(_payload())),
}


@pytest.mark.parametrize("attack", ARCHIVES)
def test_an_archive_that_torch_would_not_write_is_refused(attack: str) -> None:
    _assert_refused(ARCHIVES[attack])


def test_a_record_s_name_that_reaches_behind_the_end_is_not_read() -> None:
    error = _assert_refused(ARCHIVES["a name that reaches behind the end"])

    assert "too long a name" in error.message


def test_a_record_that_reaches_into_the_directory_is_not_read() -> None:
    error = _assert_refused(ARCHIVES["a record that reaches into the directory"])

    assert "reaches outside" in error.message


def test_a_zip64_locator_that_points_elsewhere_is_refused() -> None:
    file = io.BytesIO()
    torch.save(torch.ones(3), file)
    data = file.getvalue()
    locator = data.rfind(b"PK\x06\x07")
    assert locator > 0

    _assert_refused(data[: locator + 8] + struct.pack("<Q", 2**63) + data[locator + 16 :])


def test_a_message_names_what_was_refused_without_echoing_much_of_it() -> None:
    assert "posix.system" in _assert_refused(b"cposix\nsystem\n.").message
    long = _assert_refused(b"c" + b"\x07" * 128 + b"\n" + b"y" * 128 + b"\n.").message
    assert "\x07" not in long
    assert len(long) < 130
