"""Check whether a Ray cluster can be reached, without importing Ray, which takes seconds."""

from __future__ import annotations

import os
import socket

from ...manifests.errors import InputError

CONNECT_TIMEOUT_S = 10.0


def refuse_unreachable(address: str | None) -> None:
    """Raise an error at once if a cluster cannot be reached. Ray itself would retry for minutes.

    Args:
        address: ``HOST:PORT``, with or without ``ray://``. None: the value of ``RAY_ADDRESS``, if it is set.

    Raises:
        InputError: Nothing accepts connections at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"no Ray cluster at {address}: {reason}; check --ray-address") from error
