"""`import arabesque`: the public names, the modules that it imports, and the examples in docstrings."""

from __future__ import annotations

import doctest
import inspect
import pydoc
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, write_clip

import arabesque
from arabesque.pipeline.items import SegmentFeature, VideoSettled
from arabesque.pipeline.records import Outcome
from arabesque.pipeline.store.html import MAX_ROWS, html_table

PUBLIC = [
    "AlignedDataset",
    "ArabesqueError",
    "ConfigError",
    "DecodeError",
    "ExtractionError",
    "FeatureStore",
    "InputError",
    "MissingPackageError",
    "Recipe",
    "StoreError",
    "StreamFeatures",
    "StreamingDataset",
    "WeightsError",
    "__version__",
    "collate_padded",
    "compare",
    "extract",
    "load_recipe",
    "open_store",
    "score",
]
EXPORTED = [name for name in PUBLIC if name != "__version__"]
SECTIONS = {"extract": ("Args", "Returns", "Raises"), "score": ("Args", "Returns", "Raises")}


def test_the_public_names_are_these():
    assert arabesque.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(arabesque))
    for name in PUBLIC:
        assert getattr(arabesque, name) is not None
    assert arabesque.__version__ == version("arabesque")
    with pytest.raises(AttributeError, match="no attribute 'extrakt'"):
        arabesque.extrakt  # noqa: B018


def test_import_loads_no_other_package():
    program = "import sys; before = set(sys.modules); import arabesque; print(*sorted(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert not loaded & {"torch", "numpy", "pyarrow", "pydantic", "typer", "av", "cv2"}
    assert [name for name in result.stdout.split() if name.startswith("arabesque")] == ["arabesque"]


def test_help_names_every_function():
    text = pydoc.plain(pydoc.render_doc(arabesque))
    for name in ("extract(", "score(", "compare(", "open_store(", "class FeatureStore", "class StreamFeatures"):
        assert name in text


def test_help_leaves_out_what_classes_inherit_from_other_packages():
    text = pydoc.plain(pydoc.render_doc(arabesque))
    assert len(text.splitlines()) < 950
    for name in ("model_dump", "model_config", "with_traceback", "__reduce__"):
        assert name not in text
    recipe = arabesque.load_recipe("starter")
    assert "model_dump" in dir(recipe)
    assert type(recipe).model_validate(recipe.model_dump()) == recipe


@pytest.mark.parametrize("name", EXPORTED)
def test_every_public_name_has_an_example(name):
    doc = inspect.getdoc(getattr(arabesque, name)) or ""
    assert "Example:" in doc
    assert ">>> " in doc
    for section in SECTIONS.get(name, ()):
        assert f"{section}:" in doc


@pytest.mark.parametrize("name", ["arabesque", *EXPORTED])
def test_the_examples_give_the_shown_output(name, examples, monkeypatch):
    monkeypatch.chdir(examples)
    value = arabesque if name == "arabesque" else getattr(arabesque, name)
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(value) or "", {}, name, None, 0)
    assert test.examples
    report: list[str] = []
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.DocTestRunner(optionflags=options).run(test, out=report.append)
    assert not failed, "".join(report)


def test_the_features_of_one_video_are_those_of_a_store(examples):
    events: list[object] = []
    found = arabesque.extract(examples / "routine.mp4", recipe="starter", progress=events.append)
    stored = arabesque.open_store(examples / "features")["routine"]
    for stream, features in found.items():
        assert np.array_equal(features.values, stored[stream].values)
        assert features.key == stored[stream].key
    assert {type(event) for event in events} >= {SegmentFeature, Outcome, VideoSettled}
    assert not list(Path(examples).glob("arabesque-extract-*"))


def test_a_partial_video_has_holes_and_a_failed_one_raises(examples, tmp_path):
    write_clip(tmp_path / "cut.mkv", Clip(num_frames=200))
    content = (tmp_path / "cut.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) * 6 // 10])
    features = arabesque.extract(tmp_path / "cut.mkv", recipe="starter", streams=["motion"])["motion"]
    assert features.outcome == "partial"
    ((start_s, end_s),) = features.holes
    assert 3 < start_s < 6
    assert end_s == pytest.approx(8, abs=0.1)
    assert features.end_s[-1] <= start_s
    with pytest.raises(arabesque.ExtractionError, match="damaged, stream motion: "):
        arabesque.extract(examples / "damaged.mp4", recipe="starter")


def test_wrong_arguments_are_named(examples):
    for arguments, reason in [
        ({"videos": examples / "videos"}, "give a feature store with out="),
        ({"recipe": "startr"}, "did you mean"),
        ({"streams": ["motoin"]}, "did you mean"),
        ({"device": "gpu"}, "device 'gpu' is not known"),
        ({"decoder": "opencv"}, "decoder 'opencv' is not known"),
        ({"weights": "random:x"}, "random:SEED"),
        ({"memory": "much", "out": examples / "other"}, "much"),
        ({"max_failures": "few", "out": examples / "other"}, "few"),
        ({"partition": "4/3", "out": examples / "other"}, "4/3"),
    ]:
        with pytest.raises((arabesque.ArabesqueError, ValueError), match=reason):
            arabesque.extract(**({"videos": examples / "routine.mp4", "recipe": "starter"} | arguments))


def test_tables_of_notebooks_escape_their_texts_and_are_short():
    table = html_table("<b>", ["video"], [[f"<script>{number}</script>"] for number in range(1000)])
    assert "<b>" not in table
    assert "<script>" not in table
    assert "&lt;script&gt;0&lt;/script&gt;" in table
    assert table.count("<tr>") == 1 + MAX_ROWS + 1
    assert "… and 980 more" in table


def test_stores_features_and_results_have_short_representations(examples):
    store = arabesque.open_store(examples / "features")
    features = store["routine"]["motion"]
    report = arabesque.score(examples / "videos", examples / "model", store=examples / "features")
    result = arabesque.compare(examples / "features", examples / "features")
    for value in (store, features, report, result):
        assert len(repr(value)) < 200
        assert value._repr_html_().startswith("<table>")
        assert "routine" not in repr(type(value))
    assert list(store.to_pandas("motion")["video_id"].unique()) == ["another", "routine"]
    assert list(report.to_pandas()["video_id"]) == ["another", "routine"]
    assert list(result.to_pandas()["same"]) == [True] * 4
