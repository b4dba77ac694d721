"""Checkpoints: download with resume, cache on this machine, verification by digest."""
