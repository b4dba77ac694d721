"""Read untrusted pickles without executing their code.

A pickle is a program for a stack machine that may call any function of any module. `Machine` is our interpreter of its
opcodes: it builds plain containers, numbers and strings, keeps arrays and tensors as records, and looks up every name
in the table `ADMITTED`. `plain` then builds the arrays from shape, type and bytes. The numbers of opcodes, nesting
levels and expanded elements are limited, because a few shared lists can represent billions of elements.
"""

from __future__ import annotations

import codecs
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_OPCODES = 5_000_000
MAX_NODES = 4_000_000
"""Maximum number of elements in one value. Shared elements count each time they occur."""
MAX_DEPTH = 100
MAX_KEY_PARTS = 64
EXPANDED_BYTES = 64 << 20
"""Maximum by which a tensor whose strides repeat elements may exceed the size of its storage."""

Unknown = Literal["refuse", "network", "any"]
"""Handling of names outside the table: refuse them, accept classes of networks, or accept all. An accepted name becomes
a `Shell`."""
NETWORK_CLASSES = ("torch.nn.modules.", "models.")

_DTYPE = re.compile(r"[biufSU]\d+|O\d*")
_SCALAR_BYTES = 1 << 16


class ForeignPickle(pickle.UnpicklingError):
    """The pickle names a class or function that is not in the table."""


class Shell:
    """Placeholder for an instance of a class outside the table. It contains the pickled state and has no methods."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: dict[str, Any] = {}


class AttributedDict(dict[Any, Any]):
    """An ``OrderedDict``. Pickled attributes are dropped."""


@dataclass(frozen=True)
class _Name:
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class _Dtype:
    """``numpy.dtype``. Only the byte order of its pickled state is used, because some flags would make NumPy follow
    pointers."""

    name: object
    order: object = "="

    def build(self) -> np.dtype[Any]:
        import numpy as np

        if not isinstance(self.name, str) or not _DTYPE.fullmatch(self.name) or self.order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"numbers of type {self.name!r}")
        return np.dtype(self.name).newbyteorder(self.order)  # type: ignore[arg-type]


@dataclass(eq=False)
class ArrayRecord:
    """A ``numpy.ndarray``, described by its pickled state."""

    shape: Any = ()
    dtype: Any = None
    is_fortran: Any = False
    content: Any = b""


@dataclass(eq=False)
class Storage:
    """A torch storage. ``read`` returns its bytes when a tensor is built."""

    dtype: str
    """``<f4``, …, or ``bfloat16``."""
    numel: int
    read: Callable[[], bytes] | None = None

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bfloat16" else int(self.dtype[2:])


@dataclass(eq=False)
class _Tensor:
    storage: Any
    offset: Any
    size: Any
    stride: Any


def _reconstruct(machine: Machine, *_: object) -> ArrayRecord:
    return ArrayRecord()


def _dtype(machine: Machine, name: object = None, *_: object) -> _Dtype:
    return _Dtype(name)


def _scalar(machine: Machine, dtype: _Dtype, content: bytes | str) -> Any:
    kind = dtype.build()
    if kind.itemsize > _SCALAR_BYTES:
        raise pickle.UnpicklingError(f"one number of {kind.itemsize} bytes")
    return _array_of(ArrayRecord((), dtype, False, content)).item()


def _from_buffer(machine: Machine, content: Any, dtype: _Dtype, shape: Any, order: str, *_: object) -> ArrayRecord:
    return ArrayRecord(shape, dtype, order == "F", content)


def _latin1(machine: Machine, text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    machine.count_copied(len(text))
    return text.encode("latin-1")


def _bytes(machine: Machine) -> bytes:
    """Return empty bytes, which protocol 2 writes as a call without arguments; a size would allocate memory."""
    return b""


def _bytearray(machine: Machine, content: object = b"", *_: object) -> bytes:
    if not isinstance(content, bytes):
        raise pickle.UnpicklingError("a bytearray of something other than bytes")
    return content


def _dict(machine: Machine, *items: Any) -> AttributedDict:
    found = AttributedDict()
    for key, value in items[0] if items else ():
        found[hashable(key)] = value
    return found


def _set(machine: Machine, items: Any = ()) -> set[Any]:
    return {hashable(item) for item in items}


def _size(machine: Machine, size: Any = ()) -> tuple[Any, ...]:
    return tuple(size)


def _nothing(machine: Machine, *_: object) -> None:
    """Return None for a device, or for an instance of a class that only names a number type."""


def _tensor(machine: Machine, storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> _Tensor:
    return _Tensor(storage, offset, size, stride)


def _parameter(machine: Machine, tensor: Any = None, *_: object) -> Any:
    return tensor


STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<b1",
}

Admitted = Mapping[tuple[str, str], Callable[..., Any]]
"""(Module, name) → the function that is called instead, with the machine and the pickled arguments."""
ADMITTED: Admitted = {
    ("numpy", "ndarray"): _reconstruct,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): _dict,
    ("torch", "Size"): _size,
    ("torch", "device"): _nothing,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    **{(module, "bytes"): _bytes for module in ("builtins", "__builtin__")},
    **{(module, "bytearray"): _bytearray for module in ("builtins", "__builtin__")},
    **{(module, kind): _set for module in ("builtins", "__builtin__") for kind in ("set", "frozenset")},
    **{("torch", name): _nothing for name in STORAGES},
}
"""All names that a pickle may use → the function that implements the call: ``function(machine, *arguments)``."""


def hashable(key: Any) -> Any:
    """Return a key that is a plain value or a short tuple of these. Hashing nested tuples could take unlimited time."""
    parts = [key]
    for number, part in enumerate(parts):
        if number >= MAX_KEY_PARTS:
            raise pickle.UnpicklingError(f"a key of more than {MAX_KEY_PARTS} parts")
        if isinstance(part, tuple):
            parts += cast("tuple[Any, ...]", part)[:MAX_KEY_PARTS]
            if len(cast("tuple[Any, ...]", part)) > MAX_KEY_PARTS:
                raise pickle.UnpicklingError(f"a key of more than {MAX_KEY_PARTS} parts")
        elif not isinstance(part, str | int | float | bytes | None):
            raise pickle.UnpicklingError(f"a {type(part).__name__} as a key")
    return key


_MARK = object()
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_PUSHED = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    ]
)
"""Opcodes that push their argument."""
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}


class Machine:
    """Interprets one pickle.

    Args:
        handle: File at the first byte of the pickle. `run` leaves it after the last byte.
        size_bytes: Size of the file, which limits the copied bytes.
        unknown: Handling of names outside the table.
        persistent: Returns the object of a persistent id (torch's storages).
        level: Nesting depth of this pickle in other pickles.
        admitted: The table of names.
    """

    def __init__(
        self,
        handle: BinaryIO,
        size_bytes: int,
        unknown: Unknown = "refuse",
        persistent: Callable[[Any], Any] | None = None,
        level: int = 0,
        *,
        admitted: Admitted = ADMITTED,
    ) -> None:
        self._handle = handle
        self._copies_left = 4 * size_bytes + (1 << 20)
        self._unknown: Unknown = unknown
        self._persistent = persistent
        self.level = level
        self._admitted = admitted
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def count_copied(self, num_bytes: int) -> None:
        """Count the copied bytes of a string, because a pickle may refer to it any number of times."""
        self._copies_left -= num_bytes
        if self._copies_left < 0:
            raise pickle.UnpicklingError("it copies more than four times its own size")

    def run(self) -> Any:
        read, stack = self._handle.read, self._stack
        for _ in range(MAX_OPCODES):
            code = read(1)
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise pickle.UnpicklingError(f"{code!r} is not an opcode" if code else "it ends before its last opcode")
            name = opcode.name
            if name == "STRING":  # Python 2 wrote bytes, and pickletools accepts only ASCII
                argument: Any = codecs.escape_decode(self._handle.readline().strip()[1:-1])[0].decode("latin-1")
            else:
                argument = opcode.arg.reader(self._handle) if opcode.arg is not None else None
            if name in _PUSHED:
                stack.append(bytes(argument) if name == "BYTEARRAY8" else argument)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            elif name == "STOP":
                return stack.pop()
            elif name not in ("PROTO", "FRAME"):
                self._step(name, argument)
        raise pickle.UnpicklingError(f"it has more than {MAX_OPCODES:,} opcodes")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            if len(stack) < count:
                raise pickle.UnpicklingError(f"opcode {name} on a stack of {len(stack)}")
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            items = self._marked()
            if name == "DICT":
                stack.append({})
                self._set_items(items)
            else:
                stack.append(tuple(items) if name == "TUPLE" else items if name == "LIST" else _set(self, items))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            self._add([stack.pop()] if name == "APPEND" else self._marked())
        elif name in ("SETITEM", "SETITEMS"):
            self._set_items([stack.pop(-2), stack.pop()] if name == "SETITEM" else self._marked())
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, name = argument.split(" ", 1) if name == "GLOBAL" else (stack.pop(-2), stack.pop())
            stack.append(self._named(module, name))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            stack.append(self._call(stack.pop(), arguments))
        elif name == "NEWOBJ_EX":
            _, arguments = stack.pop(), stack.pop()
            stack.append(self._call(stack.pop(), arguments))
        elif name == "OBJ":
            named, *arguments = self._marked()
            stack.append(self._call(named, tuple(arguments)))
        elif name == "INST":
            arguments = tuple(self._marked())
            stack.append(self._call(self._named(*argument.split(" ", 1)), arguments))
        elif name == "BUILD":
            state = stack.pop()
            self._build(stack[-1], state)
        elif name in ("PERSID", "BINPERSID"):
            if self._persistent is None:
                raise pickle.UnpicklingError("it refers to an object outside of it")
            stack.append(self._persistent(stack.pop() if name == "BINPERSID" else argument))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._marked()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            raise pickle.UnpicklingError(f"opcode {name} is not allowed in plain data")

    def _marked(self) -> list[Any]:
        """Pop and return the items above the topmost mark, and the mark."""
        stack = self._stack
        for index in range(len(stack) - 1, -1, -1):
            if stack[index] is _MARK:
                items = stack[index + 1 :]
                del stack[index:]
                return items
        raise pickle.UnpicklingError("a mark is missing")

    def _add(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            cast("list[Any]", target).extend(items)
        elif isinstance(target, set):
            cast("set[Any]", target).update(map(hashable, items))
        elif not isinstance(target, Shell):
            raise pickle.UnpicklingError(f"elements for a {type(target).__name__}")

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if len(items) % 2 or not isinstance(target, dict | Shell):
            raise pickle.UnpicklingError(f"keys and values for a {type(target).__name__}")
        if isinstance(target, dict):
            cast("dict[Any, Any]", target).update(zip(map(hashable, items[::2]), items[1::2], strict=True))

    def _named(self, module: object, name: object) -> _Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("a name that is not a text")
        found = _Name(module, name)
        if (module, name) not in self._admitted and not self._becomes_shell(found):
            raise ForeignPickle(f"its pickle names {found}")
        return found

    def _becomes_shell(self, named: _Name) -> bool:
        is_network = named.module.startswith(NETWORK_CLASSES)
        return self._unknown == "any" or (self._unknown == "network" and is_network)

    def _call(self, named: object, arguments: object) -> Any:
        if not isinstance(named, _Name) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError(f"a call of a {type(named).__name__}")
        make = self._admitted.get((named.module, named.name))
        return Shell(str(named)) if make is None else make(self, *cast("tuple[Any, ...]", arguments))

    def _build(self, target: object, state: Any) -> None:
        if isinstance(target, Shell):
            if isinstance(state, dict):
                target.state.update(cast("dict[str, Any]", state))
        elif isinstance(target, _Dtype):
            target.order = state[1]
        elif isinstance(target, ArrayRecord):
            target.shape, target.dtype, target.is_fortran, target.content = state[-4:]
        elif not isinstance(target, AttributedDict):
            raise pickle.UnpicklingError(f"a state for a {type(target).__name__}")


def plain(value: Any) -> Any:
    """Return the value with every array and tensor in it built as a NumPy array; ``bfloat16`` becomes ``float32``.

    Raises:
        pickle.UnpicklingError: The value is nested too deeply, contains itself, or expands beyond `MAX_NODES`.
    """
    return _built(value, {}, 0)[0]


def _built(value: Any, known: dict[int, tuple[Any, int] | None], depth: int) -> tuple[Any, int]:
    """Return the built value and its number of elements. ``known`` caches results; None marks one in progress."""
    if isinstance(value, _Tensor):
        return tensor_of(value), 1
    if isinstance(value, ArrayRecord) and not _dtype_of(value).hasobject:
        return _array_of(value), 1
    items = _items_of(value)
    if items is None:
        return value, 1
    if id(value) in known:
        found = known[id(value)]
        if found is None:
            raise pickle.UnpicklingError("a container that contains itself")
        return found
    if depth >= MAX_DEPTH:
        raise pickle.UnpicklingError(f"containers nested deeper than {MAX_DEPTH}")
    known[id(value)] = None
    made: list[Any] = []
    num_nodes = 1
    for item in items:
        built, count = _built(item, known, depth + 1)
        made.append(built)
        num_nodes += count
        if num_nodes > MAX_NODES:
            raise pickle.UnpicklingError(f"it expands to more than {MAX_NODES:,} elements")
    known[id(value)] = result = _rebuilt(value, made), num_nodes
    return result


def _items_of(value: Any) -> list[Any] | None:
    """Return the items of a container, or None for any other value."""
    if isinstance(value, ArrayRecord):
        return list(value.content)
    if isinstance(value, dict):
        return list(cast("dict[Any, Any]", value).values())
    return list(cast("list[Any]", value)) if isinstance(value, list | tuple) else None


def _rebuilt(value: Any, items: list[Any]) -> Any:
    """Return a container of the same type as ``value`` with other items."""
    if isinstance(value, ArrayRecord):
        return _objects(value.shape, items)
    if isinstance(value, dict):
        return dict(zip(cast("dict[Any, Any]", value), items, strict=True))
    return tuple(items) if isinstance(value, tuple) else items


def _dtype_of(array: ArrayRecord) -> np.dtype[Any]:
    if not isinstance(array.dtype, _Dtype):
        raise pickle.UnpicklingError("an array without a type")
    return array.dtype.build()


def _array_of(array: ArrayRecord) -> NDArray[Any]:
    import numpy as np

    content = array.content
    raw = content.encode("latin-1") if isinstance(content, str) else content  # Python 2 wrote bytes as strings
    return np.frombuffer(raw, _dtype_of(array)).reshape(array.shape, order="F" if array.is_fortran else "C")


def _objects(shape: Any, items: list[Any]) -> NDArray[Any]:
    import numpy as np

    array: NDArray[Any] = np.empty(len(items), object)
    for place, item in enumerate(items):  # element by element, because NumPy would convert nested lists into dimensions
        array[place] = item
    return array.reshape(shape)


def tensor_of(tensor: _Tensor) -> NDArray[Any]:
    """Return the tensor as an array that shares the bytes of its storage."""
    import numpy as np

    storage, size, stride = tensor.storage, tuple(tensor.size), tuple(tensor.stride)
    if not isinstance(storage, Storage) or storage.read is None:
        raise pickle.UnpicklingError("a tensor without its numbers")
    whole = [tensor.offset, *size, *stride]
    if len(size) != len(stride) or not all(type(number) is int and number >= 0 for number in whole):
        raise pickle.UnpicklingError(f"a tensor of size {size} with strides {stride}")
    bytes_of_storage = storage.numel * storage.itemsize
    if math.prod(size) * storage.itemsize > max(bytes_of_storage, EXPANDED_BYTES):
        raise pickle.UnpicklingError(f"a tensor of size {size} on a storage of {storage.numel} numbers")
    kind = "<u2" if storage.dtype == "bfloat16" else storage.dtype
    if math.prod(size) == 0:
        flat = np.zeros(0, kind)
        found = flat.reshape(size)
    else:
        last = tensor.offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        flat = np.frombuffer(storage.read(), kind)
        if last >= len(flat):
            raise pickle.UnpicklingError(f"a tensor of size {size} beyond its storage of {len(flat)} numbers")
        steps = tuple(step * storage.itemsize for step in stride)
        found = np.lib.stride_tricks.as_strided(flat[tensor.offset :], size, steps, writeable=False)
    return (found.astype(np.uint32) << 16).view(np.float32) if storage.dtype == "bfloat16" else found


def unboxed(value: Any) -> Any:
    """Return the object in a zero-dimensional array (``np.save`` of a dict), and any other value unchanged."""
    if isinstance(value, ArrayRecord):
        return cast("list[Any]", value.content)[0] if value.shape == () else value
    if getattr(value, "shape", None) == () and value.dtype.hasobject:  # an array of a trusted pickle
        return value.item()
    return value


def named_tensors(root: Shell) -> dict[str, Any]:
    """Return parameters and buffers of a pickled network with the names of ``nn.Module.state_dict``."""
    found: dict[str, Any] = {}
    _collect(root, "", (), found)
    return found


def _collect(shell: Shell, prefix: str, above: tuple[Shell, ...], found: dict[str, Any]) -> None:
    if any(shell is other for other in above) or len(above) > MAX_DEPTH or len(found) > MAX_NODES:
        raise ValueError(f"{prefix} does not end")
    for group in ("_parameters", "_buffers"):
        for name, value in _table(shell, group).items():
            if isinstance(value, _Tensor):
                found[prefix + name] = value
    for name, child in _table(shell, "_modules").items():
        if isinstance(child, Shell):
            _collect(child, f"{prefix}{name}.", (*above, shell), found)


def _table(shell: Shell, name: str) -> Mapping[str, Any]:
    table = shell.state.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"{name} is a {type(table).__name__}")
    return cast("dict[str, Any]", table)
