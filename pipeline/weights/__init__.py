"""Checkpoints on this machine: fetched with resume, verified once, remembered with a receipt."""
