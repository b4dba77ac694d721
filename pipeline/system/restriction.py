"""Denial of network, file writes and other processes to a decoder process, if the kernel supports it.

Landlock (Linux 5.13 or newer) denies file writes. A seccomp filter (x86-64, AArch64) denies the network, and the calls
that Landlock does not cover. Both are called directly: py-landlock 0.1.1 has no seccomp and restricts TCP only, and
pyseccomp needs libseccomp, which many machines do not have. Reading files, memory and threads are allowed, because
FFmpeg opens files by name.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Sequence

_PRCTL_NO_NEW_PRIVILEGES = 38
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446
_BELOW_PATH = 1  # kind of a rule: for a file, or for a folder and its contents
_LANDLOCK_VERSION = 1  # flag to return the version instead of a rule set
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Landlock version → all its rights on files. Versions after 5 add no rights."""
_RIGHTS_ON_DEVICES = 1 << 1 | 1 << 15
"""Rights to write a file, and for ioctl."""
_RIGHTS_LEFT = 1 << 0 | 1 << 2 | 1 << 3
"""Rights to execute (libraries are mapped executable), to read a file, and to list a folder."""

_SECCOMP_SET_FILTER, _SECCOMP_ALL_THREADS = 1, 1
_ARCHITECTURES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}
"""Machine → its number in filters, and the number of the system call ``seccomp``."""
_REFUSED = {
    # the network, also by way of io_uring
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    # other processes and other programs
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_writev": (311, 271),
    # operations that Landlock does not deny: modes, owners, times, attributes
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
}
"""System call → its numbers on x86-64 and AArch64. Each of these calls fails with EPERM."""
_PRLIMIT = (302, 261)
"""Numbers of ``prlimit``, which is allowed only for the process itself (0)."""
_FIRST_X32_CALL = 0x40000000
"""First number of a second set of the same calls on x86-64."""
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000 | errno.EPERM
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT = 0, 4, 16  # offsets in the input of a filter


def restrict_process(device_files: Sequence[str] = ()) -> str:
    """Restrict the calling thread, and all threads and processes that it starts later, permanently.

    Call it before other threads are started.

    Args:
        device_files: Paths of device files that can be opened for writing, such as those of a graphics card.

    Returns:
        The operations that are denied, e.g. ``file writes (Landlock 7), network (seccomp)``; empty if there are none.
    """
    if sys.platform != "linux" or ctypes.CDLL(None).prctl(_PRCTL_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return ""
    version = _restrict_files(device_files)
    refused = [f"file writes (Landlock {version})"] if version else []
    if _restrict_calls():
        refused.append("network (seccomp)")
    return ", ".join(refused)


def still_allowed(refused: str) -> str:
    """Return the operations that `restrict_process` could not deny; empty if it denied all."""
    return " and ".join(what for what in ("file writes", "network") if what not in refused)


def _restrict_files(device_files: Sequence[str]) -> int:
    """Return Landlock's version; 0 if the kernel does not have it, or if it is switched off."""
    version = _system_call(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return 0
    rights = _RIGHTS[min(version, max(_RIGHTS))] & ~_RIGHTS_LEFT
    ruleset = _system_call(_LANDLOCK_CREATE, struct.pack("=Q", rights), 8, 0)
    if ruleset < 0:
        return 0
    try:
        for path in device_files:
            _allow_device(ruleset, path, rights & _RIGHTS_ON_DEVICES)
        return version if _system_call(_LANDLOCK_RESTRICT, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _allow_device(ruleset: int, path: str, rights: int) -> None:
    """Allow a device file. Raises OSError if the path cannot be opened or is not a device file."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), path)
        if _system_call(_LANDLOCK_ADD_RULE, ruleset, _BELOW_PATH, struct.pack("=Qi", rights, descriptor), 0) != 0:
            raise OSError(errno.EINVAL, "Landlock does not accept the device file", path)
    finally:
        os.close(descriptor)


def _restrict_calls() -> bool:
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return False
    architecture, seccomp = _ARCHITECTURES[machine]
    column = list(_ARCHITECTURES).index(machine)
    program = _filter(architecture, [call[column] for call in _REFUSED.values()], _PRLIMIT[column])
    code = ctypes.create_string_buffer(program)
    description = struct.pack("HL", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    return _system_call(seccomp, _SECCOMP_SET_FILTER, _SECCOMP_ALL_THREADS, description) == 0


def _filter(architecture: int, refused: list[int | None], prlimit: int) -> bytes:
    """Return a program for the kernel's classic packet filter. Jumps count the instructions that they skip."""
    calls = [number for number in refused if number is not None]
    program = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _FAIL),
        (_LOAD, 0, 0, _AT_NUMBER),
        (_JUMP_IF_AT_LEAST, len(calls) + 4, 0, _FIRST_X32_CALL),
        *((_JUMP_IF_EQUAL, len(calls) + 3 - place, 0, number) for place, number in enumerate(calls)),
        (_JUMP_IF_EQUAL, 0, 2, prlimit),
        (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        (_JUMP_IF_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _system_call(number: int, *arguments: int | bytes | None) -> int:
    """Call the kernel; return -1 if the call fails."""
    call = ctypes.CDLL(None).syscall
    call.restype = ctypes.c_long
    return call(ctypes.c_long(number), *(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments))
