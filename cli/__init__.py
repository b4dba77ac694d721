"""Command line: one file per command. Each parses its arguments, calls one function and prints the result."""
