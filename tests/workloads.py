"""Child process that executes orders: one JSON object per line on standard input, and one per line as the answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def workload_process(script: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Start a script of this folder; yield a function that sends an order and returns the answer."""
    path = Path(__file__).parent / script
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with subprocess.Popen([sys.executable, str(path)], env=environment, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        orders, answers = process.stdin, process.stdout

        def give(**order: Any) -> dict[str, Any]:
            print(json.dumps(order, default=str), file=orders, flush=True)
            return json.loads(answers.readline())

        yield give
