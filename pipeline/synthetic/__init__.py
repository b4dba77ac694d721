"""Drawn routines with generated music and known scores, for the demo and the tests."""
