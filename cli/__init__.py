"""DOOR: one file per command. Parses, calls one function, shows progress and outcome."""
