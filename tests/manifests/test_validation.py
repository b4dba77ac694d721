from __future__ import annotations

import pytest
from pydantic import ValidationError

from arabesque.manifests.streams import Record
from arabesque.manifests.validation import suggestion, validation_message


class Inner(Record):
    speed: int = 1


class Outer(Record):
    name: str
    inner: Inner = Inner()


def complaint(values: dict[str, object], under: str = "") -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return validation_message(caught.value, under, Outer.model_fields)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "name: is missing"),
        ({"name": "a", "iner": {}}, "iner: this key is not known (did you mean inner?)"),
        ({"name": "a", "zzz": 1}, "zzz: this key is not known; remove it or correct its spelling"),
        (
            {"name": "a", "zzz": 1, "yyy": 2},
            "zzz: this key is not known; remove it or correct its spelling (and 1 more)",
        ),
    ],
)
def test_the_first_mistake_is_reported_with_its_place(values: dict[str, object], told: str) -> None:
    assert complaint(values) == told


def test_short_values_are_part_of_the_message() -> None:
    assert complaint({"name": "a", "inner": {"speed": "fast"}}, "settings").startswith("settings.inner.speed: Input")
    assert complaint({"name": "a", "inner": {"speed": "fast"}}).endswith("(got 'fast')")
    assert len(complaint({"name": ["a"] * 1000})) < 150


def test_similar_names_are_suggested() -> None:
    assert suggestion("gdlr", ["gdlt", "umt"]) == " (did you mean gdlt?)"
    assert suggestion("net-1", ["net-2", "net-3"], most=2) == " (did you mean net-3 or net-2?)"
    assert suggestion("nothing of the kind", ["gdlt"]) == ""
