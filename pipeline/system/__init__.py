"""Interfaces to the operating system: child processes and their isolation, memory, threads, logs, the user's cache."""
