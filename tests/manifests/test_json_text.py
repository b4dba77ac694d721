import json
import math
from pathlib import Path

import numpy as np
import pytest

from arabesque.manifests.json_text import to_json


def test_undefined_numbers_are_null():
    text = to_json({"a": math.nan, "b": (1.5, [math.inf]), "c": {2: np.array([1.0, np.nan])}})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [1.5, [None]], "c": {"2": [1.0, None]}}


def test_paths_and_numbers_of_numpy():
    assert json.loads(to_json([Path("a/b"), np.float32(0.5), np.int64(3), np.bool_(True)])) == ["a/b", 0.5, 3, True]


def test_other_characters():
    assert to_json("é") == '"é"\n'
    assert to_json("é", ascii_only=True) == '"\\u00e9"\n'


def test_other_objects_are_errors():
    with pytest.raises(TypeError):
        to_json({"a": object()})
