"""Short `help` of public classes, without methods that they inherit from classes of other packages."""

from __future__ import annotations

from inspect import isfunction


def own_names(kind: type) -> list[str]:
    """Return the attributes of a class that this package defines, for the ``__dir__`` of its metaclass.

    `help` and `dir` of the class then list only these. Instances and attribute access are not affected.
    """
    ours = [base for base in kind.__mro__ if base.__module__.partition(".")[0] == "arabesque"]
    found = {name: value for base in ours for name, value in vars(base).items()}
    return sorted(name for name, value in found.items() if isfunction(value) or not name.startswith(("_", "model_")))
