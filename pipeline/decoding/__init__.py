"""Decode untrusted video files into frames and audio, sequentially, in isolated subprocesses.

decoders.py        the `Decoder` protocol and the table of backends, each in a file: pyav, decord, nvdec
pyav_metadata.py   metadata of a file: timeline, tracks, damage; timelines.py, clocks.py, coverage.py, containers.py
decoder_pool.py    decoder processes; decoder_process.py checks their answers, decoder_main.py is what they run
messages.py        messages between parent and child
planes.py          pictures as luma and chroma planes
chunks.py          division of a video into chunks of frames and audio
"""
