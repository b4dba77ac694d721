"""Synthetic skating videos with generated music and known scores, for the demo and the tests."""
