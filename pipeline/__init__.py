"""MOVE: probe, plan, decode, stage, batch, store, resume. Knows no network by name.

extraction.py   the main job: a folder, a recipe and an output folder become a feature store
runner.py       a run, stage by stage: read this first

    reading ▸ geometries ▸ assembling ▸ networks ▸ collecting ▸ store

decoding/    files to frames and sound, in processes of their own
store/       the feature store: reading, writing, keeping it in order
weights/     checkpoints: fetch, verify, add
executors/   several workers on one run: processes of one machine, a Ray cluster
exchange/    import, export and compare features in the field's other formats
synthetic/   routines for the demo and the tests
"""
