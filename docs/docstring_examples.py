"""An extension of Griffe, which reads docstrings for the API reference."""

from __future__ import annotations

from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Read the section ``Example:`` as what Griffe calls ``Examples:``, so that it is shown as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            lines = obj.docstring.value.split("\n")
            obj.docstring.value = "\n".join("Examples:" if line == "Example:" else line for line in lines)
