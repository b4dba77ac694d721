from __future__ import annotations

import io
import os
import pickle
import pickletools
import sys
import types
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from arabesque.manifests.errors import WeightsError
from arabesque.models.masked_layers import ConvOverTime, MaskedBatchNorm1d, MaskedSequential
from arabesque.models.pamfn_branch import ModalityBranch, PamfnBranch
from arabesque.models.published_checkpoints import load_pamfn_branch, read_published


@pytest.fixture
def theirs() -> Iterator[type[nn.Module]]:
    """A class that pickles as ``models.pamfn.BaseModel``, which cannot be imported when the file is read."""

    class BaseModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            branch = ModalityBranch(12, 0.5)
            self.modality = "V"
            for name, child in branch.named_children():
                setattr(self, name, plain(child))
            self.mse = nn.MSELoss()

    BaseModel.__module__, BaseModel.__qualname__ = "models.pamfn", "BaseModel"
    module = types.ModuleType("models.pamfn")
    vars(module)["BaseModel"] = BaseModel
    sys.modules["models"], sys.modules["models.pamfn"] = types.ModuleType("models"), module
    yield BaseModel
    for name in ("models", "models.pamfn"):
        sys.modules.pop(name, None)


def plain(module: nn.Module) -> nn.Module:
    """The same layers made of torch classes, as in the authors' code."""
    copy: nn.Module | None = None
    if isinstance(module, MaskedBatchNorm1d):
        copy = nn.BatchNorm1d(module.num_features)
    if isinstance(module, ConvOverTime):
        copy = nn.Conv1d(module.in_channels, module.out_channels, module.kernel_size[0])
    if copy is not None:
        copy.load_state_dict(module.state_dict())
        return copy
    if isinstance(module, MaskedSequential | nn.Sequential):
        return nn.Sequential(*map(plain, module))
    if list(module.children()):
        holder = nn.Sequential()
        for name, child in module.named_children():
            holder.add_module(name, plain(child))
        return holder
    return module


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # from torch.save, for a class defined in a test
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_becomes_a_branch(theirs: type[nn.Module], tmp_path: Path, zipped: bool) -> None:
    original = theirs()
    path = tmp_path / "Ball_rgb_VST.pth"
    torch.save(original, path, _use_new_zipfile_serialization=zipped)
    del sys.modules["models.pamfn"], sys.modules["models"]
    network = load_pamfn_branch(path, "vst")
    assert isinstance(network, PamfnBranch)
    for name, value in original.state_dict().items():
        assert torch.equal(network.state_dict()[f"branch.{name}"], value), name


class Malice:
    def __init__(self, call: tuple[object, tuple[object, ...]]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [os.mkdir, eval, torch.load, getattr], ids=lambda function: function.__name__)
def test_functions_in_a_pickle_are_not_run(tmp_path: Path, function: object, zipped: bool) -> None:
    trap = tmp_path / "trap"
    arguments = (str(trap), "real") if function is getattr else (f"__import__('os').mkdir({str(trap)!r})",)
    if function is os.mkdir:
        arguments = (str(trap),)
    path = tmp_path / "evil.pth"
    torch.save(Malice((function, arguments)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="which a network does not need"):
        read_published(path)
    assert not trap.exists()


@pytest.mark.parametrize("place", range(5))
def test_functions_in_a_header_are_not_run(theirs: type[nn.Module], tmp_path: Path, place: int) -> None:
    """An old file is a sequence of five pickles. PyTorch reads four of them with the module's ``load``."""
    path, trap = tmp_path / "evil.pth", tmp_path / "trap"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(theirs(), path, _use_new_zipfile_serialization=False)
    pickles, content = [], io.BytesIO(path.read_bytes())
    for _ in range(5):
        first = content.tell()
        for _ in pickletools.genops(content):
            pass
        pickles.append(content.getvalue()[first : content.tell()])
    pickles[place] = pickle.dumps(Malice((os.mkdir, (str(trap),))), 2)
    path.write_bytes(b"".join(pickles) + content.read())
    with pytest.raises(WeightsError):
        read_published(path)
    assert not trap.exists()


NETWORK = b"cmodels.pamfn\nBaseModel\n"
MALFORMED = {
    "state of a class": NETWORK + b"N}X\x08\x00\x00\x00_modulesNs\x86b.",
    "two sizes": b"ctorch\nSize\n(K\x01K\x02tR.",
    "text for a storage": b"PX\n.",
    "tensor of nothing": b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00(K\x02t(K\x01t\x89)tR.",
    "modules that are a number": NETWORK + b")\x81}X\x08\x00\x00\x00_modulesK\x01sb.",
    "a module in itself": NETWORK + b")\x81q\x00}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x00ssb.",
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_pickle_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "forged.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + content)
        archive.writestr("archive/version", "3\n")
    with pytest.raises(WeightsError, match=r"forged\.pth"):
        read_published(path)


def test_a_file_without_a_pickle_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "page.pth"
    path.write_text("<html>quota exceeded</html>")
    with pytest.raises(WeightsError, match=r"page\.pth"):
        read_published(path)
    with pytest.raises(WeightsError, match=r"page\.pth"):
        load_pamfn_branch(path, "vst")


def test_a_torchscript_program_is_rejected(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "program.pth")
    with pytest.raises(WeightsError, match="TorchScript"):
        read_published(tmp_path / "program.pth")
