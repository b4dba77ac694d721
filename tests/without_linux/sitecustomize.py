"""Remove the functions that Linux has and macOS lacks, in every Python process that finds this file.

Put the folder of this file on ``PYTHONPATH``; decoder and worker processes inherit it.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import io
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

LINUX_ONLY = {
    os: (
        "sched_getaffinity sched_setaffinity process_cpu_count memfd_create eventfd eventfd_read eventfd_write splice "
        "copy_file_range posix_fadvise posix_fallocate fdatasync pidfd_open getxattr setxattr listxattr removexattr "
        "getrandom unshare setns O_DIRECT O_PATH O_TMPFILE O_NOATIME O_LARGEFILE MFD_CLOEXEC MFD_ALLOW_SEALING"
    ),
    fcntl: (
        "F_ADD_SEALS F_GET_SEALS F_SEAL_SEAL F_SEAL_SHRINK F_SEAL_GROW F_SEAL_WRITE F_OFD_GETLK F_OFD_SETLK "
        "F_OFD_SETLKW F_SETPIPE_SZ F_GETPIPE_SZ F_NOTIFY F_SETSIG"
    ),
    resource: "prlimit RUSAGE_THREAD RLIMIT_OFILE RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_SIGPENDING",
    signal: "SIGPWR SIGPOLL SIGSTKFLT SIGCLD SIGRTMIN SIGRTMAX sigtimedwait sigwaitinfo pidfd_send_signal",
    socket: "SO_PEERCRED SO_PASSCRED MSG_CMSG_CLOEXEC SOCK_CLOEXEC SOCK_NONBLOCK AF_VSOCK",
    time: "CLOCK_BOOTTIME CLOCK_TAI",
}
HIDDEN = ("/proc", "/sys", "/dev/shm")


def take_away() -> None:
    for module, names in LINUX_ONLY.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    builtins.open = io.open = _hiding(builtins.open)
    os.open, os.stat, os.scandir = _hiding(os.open), _hiding(os.stat), _hiding(os.scandir)
    ctypes.CDLL.__init__ = _without_glibc(ctypes.CDLL.__init__)  # type: ignore[method-assign]
    resource.setrlimit = _without_address_space(resource.setrlimit)


def _hiding(function: Any) -> Any:
    def call(path: Any = ".", *arguments: Any, **keywords: Any) -> Any:
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        caller = str(sys._getframe(1).f_globals.get("__name__"))
        if caller.partition(".")[0] == "psutil":  # its version for macOS needs no /proc
            return function(path, *arguments, **keywords)
        if isinstance(text, str) and any(text == folder or text.startswith(f"{folder}/") for folder in HIDDEN):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
        return function(path, *arguments, **keywords)

    return call


def _without_glibc(load: Any) -> Any:
    def call(self: Any, name: Any = None, *arguments: Any, **keywords: Any) -> None:
        if name == "libc.so.6":
            raise OSError("libc.so.6: cannot open shared object file")
        load(self, name, *arguments, **keywords)

    return call


def _without_address_space(set_limit: Any) -> Any:
    """Refuse to set the limit, like macOS, which defines its name."""

    def call(which: int, limits: tuple[int, int]) -> None:
        if which == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        set_limit(which, limits)

    return call


take_away()
