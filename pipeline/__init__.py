"""MOVE: probe, plan, decode, stage, batch, store, resume. Knows no network by name.

    extraction.py   the main job: a folder, a recipe and an output folder become a feature store
    runner.py       a run, stage by stage: read this first

        reading ▸ geometries ▸ assembling ▸ networks ▸ collecting ▸ store_writer

    store.py        reading what is there: `FeatureStore`
"""
