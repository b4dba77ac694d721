"""Trainings on a simulated accelerator: all tensors are on it, and the results are those of the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from arabesque.manifests.errors import InputError
from arabesque.models.parallel_training import PoolSize, plan_pool_size

TESTS = Path(__file__).parents[1]
OTHERS = ("bfloat16", "pamfn in two stages", "sgd", "gdlt", "pooled-svr", "joint-va", "msaf", "umt", "late-fusion")


def differences(tmp_path: Path, *names: str) -> dict[str, float]:
    """Run the script in a separate process, because the simulated device stays registered with PyTorch."""
    command = [sys.executable, str(TESTS / "simulated_trainings.py"), str(tmp_path), *names]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_trainings_and_commands_on_an_accelerator(tmp_path: Path) -> None:
    found = differences(tmp_path, "standardized", "commands")
    assert len(found) == 2
    assert max(found.values()) < 1e-5, found


@pytest.mark.slow
def test_other_models_on_an_accelerator(tmp_path: Path) -> None:
    found = differences(tmp_path, *OTHERS)
    assert len(found) == len(OTHERS)
    assert max(found.values()) < 1e-5, found


def test_trainings_on_an_accelerator_run_one_after_the_other() -> None:
    assert plan_pool_size(10, None, None, 4, "cuda:0") == PoolSize(1, 4)
    assert plan_pool_size(10, 1, 2, 4, "cuda:0") == PoolSize(1, 2)
    with pytest.raises(InputError, match="--workers 2: trainings on cuda:0 run one after the other"):
        plan_pool_size(10, 2, None, 4, "cuda:0")
