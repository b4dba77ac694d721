"""Dense optical flow: displacement of each pixel, to the right and down, from each frame to the next.

methods.py       the table of methods and the union of their settings
opencv.py        dense inverse search and Farnebäck, on CPU threads
tvl1.py          TV-L1 as in OpenCV; tvl1_torch.py is the reference implementation, tvl1_numba.py is for CPUs,
                 tvl1_triton.py for CUDA
raft.py          RAFT, every frame encoded once; raft_iterations.py is its recurrent part
conventions.py   clipping, rounding and storage of flow in published extractors
"""

from .conventions import Quantization, as_network_input, as_stored
from .methods import METHODS, Flow, FlowSettings, make_flow

__all__ = ["METHODS", "Flow", "FlowSettings", "Quantization", "as_network_input", "as_stored", "make_flow"]
