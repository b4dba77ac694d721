"""``python -m arabesque``: the command line."""

from __future__ import annotations

from arabesque.cli.main import app

if __name__ == "__main__":
    app()
