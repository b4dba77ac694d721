"""From a file nobody trusts to frames and sound that everybody may: in processes of their own, strictly in order.

decoders.py       what every decoder promises, and the table of them; pyav_backend.py, decord_backend.py
probing.py        a file's identity and its index of frames, without decoding; pyav_probe.py, containers.py
slots.py          decoding processes and the memory they share; slot_process.py (parent), slot_child.py (child)
planes.py         pictures as luma and chroma
windows.py        how a video is cut into windows of frames and sound
"""
