"""Pipeline: from video files to a feature store.

extraction.py   `Extraction`: plan a run, execute it, yield its events
runner.py       the stages of a run, in order; read this first

    fetch > decode > transfer > preprocess > assemble > prepare > batch > network > collect > write

stages/         one file per stage
planning/       inputs, sampling, plan, remaining work, claims
decoding/       video files to frames and audio, in isolated processes
store/          the feature store: reader, writer, maintenance
workers/        several workers on one run: processes of one machine, or Ray
weights/        checkpoints: cache, download, verification
interop/        import, export and compare features in other formats
benchmarking/   benchmark of the stages and estimate of a run
system/         interfaces to the operating system
"""
