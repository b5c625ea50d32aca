"""What value does a pickle stream make with the opcodes of a tensor alone?

A stack machine for the opcodes that torch's streams use in protocols 0 to 5, and
no others: no opcode imports a name, makes an instance or sets state (no INST,
OBJ, NEWOBJ, BUILD, EXT). A global is a look-up in the caller's table, and REDUCE
calls only a `Function` out of that table. The stream's length and MAX_OPCODES
bound its cost: large values are views into the stream, not copies.

Why not the standard library's unpickler with a `find_class` of our own: it still
runs BUILD and NEWOBJ on the classes found, lets the stream choose the size of the
memo, and one careless table entry is remote code execution.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cachesvc.codec.foreign_names import NEARBY_BYTES, said_of
from cachesvc.codec.long_text import MAX_SHORT_BYTES, PIECE_BYTES, LongText, escaped, utf8
from cachesvc.codec.refusal import pickle_refused

# A Parameter in protocol 0 with 16 dimensions takes about 130 opcodes.
MAX_OPCODES = 512
HIGHEST_PROTOCOL = 5
MAX_NAME_CHARS = 128
# A signed 64-bit number with its sign; the legacy magic number has 24 digits and an L.
MAX_INT_DIGITS = 25

Value = object

_NEWLINE = re.compile(rb"\n")
_INT = re.compile(rb"-?[0-9]+")

_U16 = struct.Struct("<H")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Function:
    """REDUCE calls nothing else. A stream gets its functions from its dialect's table."""

    call: Callable[[tuple[Value, ...]], Value]


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which globals a stream may name, and what its persistent ids mean (None: refused)."""

    names: Mapping[tuple[str, str], Value]
    persistent: Callable[[Value], Value] | None = None


def run(data: memoryview, start: int, dialect: Dialect) -> tuple[Value, int]:
    """Return the value of the stream at `start`, and where it ends.

    Values are int, bool, None, str, LongText, memoryview (bytes), tuple, list, dict with str
    keys, and what the dialect's table and functions return.

    Raises:
        OriginDataCorrupt: reason PICKLE_REFUSED.
    """
    machine = _Machine(data, start, dialect)
    for _ in range(MAX_OPCODES):
        code = machine.take(1)[0]
        if code == _STOP:
            return machine.result(), machine.at
        handler = _HANDLERS.get(code)
        if handler is None:
            raise pickle_refused(f"no tensor needs its opcode 0x{code:02x}")
        handler(machine)
    raise pickle_refused(f"it has more than {MAX_OPCODES} opcodes")


def may_begin_with(code: int) -> bool:
    """Return whether a stream that `run` reads may begin with this opcode."""
    return code in _HANDLERS


class _Machine:
    """The stack, the marks and the memo of one stream. Never reads outside `data`."""

    __slots__ = ("_data", "_marks", "_memo", "_stack", "_start", "at", "dialect")

    def __init__(self, data: memoryview, start: int, dialect: Dialect) -> None:
        self._data = data
        self._start = start
        self.at = start
        self.dialect = dialect
        self._stack: list[Value] = []
        self._marks: list[int] = []
        self._memo: dict[int, Value] = {}

    def take(self, size_bytes: int) -> memoryview:
        end = self.at + size_bytes
        if end > len(self._data):
            raise pickle_refused("it is cut short: it ends within a value")
        taken = self._data[self.at : end]
        self.at = end
        return taken

    def number(self, layout: struct.Struct) -> int:
        value: int = layout.unpack(self.take(layout.size))[0]
        return value

    def line(self, max_bytes: int) -> memoryview:
        """Return the bytes before the next newline. Reads only what it consumes."""
        begin, end = self.at, min(self.at + max_bytes + 1, len(self._data))
        # Search in windows: a search holds the interpreter.
        for at in range(begin, end, PIECE_BYTES):
            found = _NEWLINE.search(self._data, at, min(at + PIECE_BYTES, end))
            if found is not None:
                self.at = found.end()
                return self._data[begin : found.start()]
        if end == len(self._data):
            raise pickle_refused("it is cut short: it ends within a line")
        raise pickle_refused("a line is too long")

    def long_line(self) -> memoryview:
        return self.line(len(self._data) - self.at)

    def decimal(self, suffix: bytes = b"") -> bytes:
        """Return a line's digits, limited in number: int() takes quadratic time."""
        digits = bytes(self.line(MAX_INT_DIGITS)).removesuffix(suffix)
        if _INT.fullmatch(digits) is None:
            raise pickle_refused("a number is not written in digits")
        return digits

    def push(self, value: Value) -> None:
        self._stack.append(value)

    def pop(self) -> Value:
        floor = self._marks[-1] if self._marks else 0
        if len(self._stack) <= floor:
            raise pickle_refused("its stack is empty where a value is needed")
        return self._stack.pop()

    def top(self) -> Value:
        value = self.pop()
        self._stack.append(value)
        return value

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def pop_to_mark(self) -> list[Value]:
        if not self._marks:
            raise pickle_refused("it has no mark where one is needed")
        height = self._marks.pop()
        values = self._stack[height:]
        del self._stack[height:]
        return values

    def remember(self, index: int) -> None:
        self._memo[index] = self.top()

    def remember_next(self) -> None:
        self.remember(len(self._memo))

    def recall(self, index: int) -> None:
        if index not in self._memo:
            raise pickle_refused("it recalls what it never remembered")
        self.push(self._memo[index])

    def check_protocol(self) -> None:
        first = self.at == self._start + 1
        if self.take(1)[0] > HIGHEST_PROTOCOL or not first:
            raise pickle_refused("its protocol is unknown or not at the start")

    def check_frame(self) -> None:
        if self.number(_U64) > len(self._data) - self.at:
            raise pickle_refused("it is cut short: it ends within a frame")

    def nearby(self) -> bytes:
        """Return what follows, and the end of all data, for a message."""
        follows = self._data[self.at : self.at + NEARBY_BYTES]
        return bytes(follows) + bytes(self._data[-NEARBY_BYTES:])

    def result(self) -> Value:
        if self._marks or len(self._stack) != 1:
            raise pickle_refused("it does not leave exactly one value")
        return self._stack[0]


def _read_int(machine: _Machine) -> None:
    digits = machine.decimal()
    # Protocols 0 and 1 write a bool as 00 or 01.
    machine.push(digits == b"01" if digits in (b"00", b"01") else int(digits))


def _read_long1(machine: _Machine) -> None:
    raw = machine.take(machine.take(1)[0])
    machine.push(int.from_bytes(raw, "little", signed=True))


def _text(raw: memoryview, *, is_escaped: bool) -> str | LongText:
    if len(raw) > MAX_SHORT_BYTES:
        return LongText(raw, is_escaped)
    return escaped(raw) if is_escaped else utf8(raw)


def _name(raw: memoryview) -> str:
    try:
        return str(raw, "ascii")
    except UnicodeDecodeError as exc:
        raise pickle_refused("a name is not ASCII") from exc


def _push_global(machine: _Machine, module: str, name: str) -> None:
    found = machine.dialect.names.get((module, name))
    if found is None:
        raise pickle_refused(said_of(module, name, machine.nearby()))
    machine.push(found)


def _read_global(machine: _Machine) -> None:
    module = _name(machine.line(MAX_NAME_CHARS))
    _push_global(machine, module, _name(machine.line(MAX_NAME_CHARS)))


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise pickle_refused("a global's name is not text")
    _push_global(machine, module, name)


def _reduce(machine: _Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    if not (isinstance(function, Function) and isinstance(arguments, tuple)):
        raise pickle_refused("it calls what is not a function of a tensor")
    machine.push(function.call(arguments))


def _persistent_id(machine: _Machine) -> None:
    if machine.dialect.persistent is None:
        raise pickle_refused("it has a persistent id where none belongs")
    machine.push(machine.dialect.persistent(machine.pop()))


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def push_tuple(machine: _Machine) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(values)))

    return push_tuple


def _append(machine: _Machine, values: list[Value]) -> None:
    target = machine.top()
    if not isinstance(target, list):
        raise pickle_refused("it appends to what is not a list")
    target.extend(values)


def _set_items(machine: _Machine, values: list[Value]) -> None:
    target = machine.top()
    if not isinstance(target, dict) or len(values) % 2:
        raise pickle_refused(
            "it sets items of what is no dict, as a state_dict does: save one tensor"
        )
    for key, value in zip(values[::2], values[1::2], strict=True):
        # Keys are text only: hashing a deep tuple would recurse.
        if not isinstance(key, str):
            raise pickle_refused("a dict's key is not text")
        target[key] = value


def _new_dict(machine: _Machine) -> None:
    values = machine.pop_to_mark()
    machine.push({})
    _set_items(machine, values)


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


_STOP = ord(".")

_HANDLERS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.check_protocol,  # PROTO
    0x95: _Machine.check_frame,  # FRAME
    ord("("): _Machine.mark,  # MARK
    # Constants and numbers.
    ord("N"): lambda m: m.push(None),  # NONE
    0x88: lambda m: m.push(True),  # NEWTRUE
    0x89: lambda m: m.push(False),  # NEWFALSE
    ord("I"): _read_int,  # INT
    ord("L"): lambda m: m.push(int(m.decimal(suffix=b"L"))),  # LONG
    0x8A: _read_long1,  # LONG1
    ord("J"): lambda m: m.push(m.number(_I32)),  # BININT
    ord("K"): lambda m: m.push(m.take(1)[0]),  # BININT1
    ord("M"): lambda m: m.push(m.number(_U16)),  # BININT2
    # Text and bytes.
    ord("V"): lambda m: m.push(_text(m.long_line(), is_escaped=True)),  # UNICODE
    ord("X"): lambda m: m.push(_text(m.take(m.number(_U32)), is_escaped=False)),  # BINUNICODE
    0x8C: lambda m: m.push(utf8(m.take(m.take(1)[0]))),  # SHORT_BINUNICODE
    ord("B"): lambda m: m.push(m.take(m.number(_U32))),  # BINBYTES
    ord("C"): lambda m: m.push(m.take(m.take(1)[0])),  # SHORT_BINBYTES
    # Containers.
    ord(")"): lambda m: m.push(()),  # EMPTY_TUPLE
    ord("t"): lambda m: m.push(tuple(m.pop_to_mark())),  # TUPLE
    0x85: _tuple_of(1),  # TUPLE1
    0x86: _tuple_of(2),  # TUPLE2
    0x87: _tuple_of(3),  # TUPLE3
    ord("]"): lambda m: m.push([]),  # EMPTY_LIST
    ord("l"): lambda m: m.push(m.pop_to_mark()),  # LIST
    ord("a"): lambda m: _append(m, [m.pop()]),  # APPEND
    ord("}"): lambda m: m.push({}),  # EMPTY_DICT
    ord("d"): _new_dict,  # DICT
    ord("s"): _set_item,  # SETITEM
    ord("u"): lambda m: _set_items(m, m.pop_to_mark()),  # SETITEMS
    # The memo.
    ord("p"): lambda m: m.remember(int(m.decimal())),  # PUT
    ord("q"): lambda m: m.remember(m.take(1)[0]),  # BINPUT
    ord("r"): lambda m: m.remember(m.number(_U32)),  # LONG_BINPUT
    0x94: _Machine.remember_next,  # MEMOIZE
    ord("g"): lambda m: m.recall(int(m.decimal())),  # GET
    ord("h"): lambda m: m.recall(m.take(1)[0]),  # BINGET
    ord("j"): lambda m: m.recall(m.number(_U32)),  # LONG_BINGET
    # Names and calls, all through the dialect.
    ord("c"): _read_global,  # GLOBAL
    0x93: _stack_global,  # STACK_GLOBAL
    ord("R"): _reduce,  # REDUCE
    ord("Q"): _persistent_id,  # BINPERSID
}
