"""Runs a command under a kernel that refuses leases, as sandboxes do: a seccomp filter.

python -m tests.support.no_leases ERRNO COMMAND...
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

_NR_FCNTL = {"x86_64": 72, "aarch64": 25}
_F_SETLEASE = 1024
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# Offsets in struct seccomp_data: the call's number, the lower half of its second argument.
_NUMBER, _SECOND_ARGUMENT = 0, 24


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse_leases(number: int) -> None:
    """Let fcntl(F_SETLEASE) fail with `number`, in this process and in all that it executes."""
    instructions = (
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_EQUAL, 0, 3, _NR_FCNTL[platform.machine()]),
        (_LOAD, 0, 0, _SECOND_ARGUMENT),
        (_JUMP_EQUAL, 0, 1, _F_SETLEASE),
        (_RETURN, 0, 0, _ERRNO | number),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(instructions), code)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    refuse_leases(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
