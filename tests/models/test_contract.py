"""Contract tests over all scoring models of the table: `arabesque.testing.check_model`.

The fast tests check networks of an eighth of the published width, with the same layers; slow tests the full width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from narrow_networks import CHANNELS, narrow_networks

from arabesque.manifests.errors import ConfigError, InputError
from arabesque.model_contract import MODEL_CHECKS, ModelContract, check_model
from arabesque.models.table import MODELS, build_model, resolve_settings

ONE = {"vst": 12}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "context-attention": [
        *({}, {"adjacency": "feature"}),
        *({"attention": how} for how in ("sau", "lstm-sau", "bi-lstm-sau", "rta", "average")),
    ],
    "late-fusion": [{"combination": how} for how in ("average", "concatenation", "weighted", "attention")],
    "pamfn": [
        *({"ordering": how} for how in ("ranked", "unranked", "free")),
        {"cmfd": "none", "msfd": "weighted", "num_nets": 2},
        {"msfd": "none", "cmfd": "weighted", "fusion_stages": 2, "num_nets": 2},
    ],
    "pamfn-highlights": [{}, {"ordering": "free"}],
    "pooled-svr": [{}, {"pooling": "max"}],
    "ms-lstm": [{}, {"bounded": True, "hidden_dim": 16}],
    "msaf": [{}, {"lowest_attention": 0.1}],
}
CASES = [(name, settings) for name in sorted(MODELS) for settings in VARIANTS.get(name, [{}])]


def case_id(case: tuple[str, dict[str, Any]]) -> str:
    return "-".join([case[0], *map(str, case[1].values())])


@pytest.fixture(params=CASES, ids=case_id, scope="module")
def contract(request: pytest.FixtureRequest) -> Iterator[ModelContract]:
    """The contract of a network of an eighth of its published width."""
    name, settings = request.param
    with narrow_networks():
        if "hidden_dim" in resolve_settings(name, settings):
            settings = {"hidden_dim": CHANNELS, **settings}
        yield ModelContract(name, settings=settings)


@pytest.mark.parametrize("check", MODEL_CHECKS)
def test_model_keeps_the_contract(contract: ModelContract, check: str) -> None:
    getattr(contract, check)()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_model_keeps_the_contract_at_its_published_width(case: tuple[str, dict[str, Any]]) -> None:
    name, settings = case
    check_model(name, settings=settings)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"scoring model gdlt: settings\.dropuot"):
        resolve_settings("gdlt", {"dropuot": 0.5})


def test_an_unknown_model_name_is_rejected() -> None:
    with pytest.raises(InputError, match=r"'gdtl' is not known.*did you mean gdlt"):
        build_model("gdtl", ONE, {}, seed=0)
