"""Read a store with pandas, duckdb and Hugging Face datasets, without arabesque: ``python other_tools.py features/``.

duckdb and datasets are optional: ``pip install duckdb datasets``.
"""

import sys
from importlib.util import find_spec

import numpy as np
import pandas

store = sys.argv[1]

rows = pandas.read_parquet(f"{store}/stream=motion")
features = np.stack(rows.loc[0, "features"])  # [segments, dim]
print("pandas:", len(rows), "rows; the first has", features.shape)

if find_spec("duckdb"):
    import duckdb

    query = f"SELECT kind, count(*) FROM '{store}/outcomes/*.parquet' GROUP BY kind ORDER BY kind"
    print("duckdb:", duckdb.sql(query).fetchall())
else:
    print("duckdb: not installed")

if find_spec("datasets"):
    import datasets

    loaded = datasets.load_dataset(
        "parquet", data_files=f"{store}/stream=motion/*.parquet", split="train", streaming=True
    )
    first = next(iter(loaded.with_format("numpy")))
    print("datasets:", first["video_id"], np.asarray(first["features"]).shape)
else:
    print("datasets: not installed")
