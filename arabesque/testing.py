"""Contract tests for extractors and scoring models, to be called by the tests of other packages."""

from __future__ import annotations

from arabesque.extractor_contract import check_extractor
from arabesque.model_contract import check_model

__all__ = ["check_extractor", "check_model"]
