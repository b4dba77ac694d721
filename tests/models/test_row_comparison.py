from __future__ import annotations

import numpy as np
import pytest

from arabesque.models.metrics import spearman
from arabesque.models.row_comparison import RowPredictions, average_rows, compare_rows
from arabesque.models.selection_gain import Pair

RNG = np.random.default_rng(0)
TRUE = RNG.random(60)


def noisy(scale: float, true: np.ndarray = TRUE) -> Pair:
    return 40 * true + scale * RNG.standard_normal(len(true)), true


def test_an_average_over_seeds_is_that_of_standardized_predictions() -> None:
    first, second = noisy(12), noisy(12)
    wide = (1000 * second[0] + 7, TRUE)  # another scale and offset of a seed changes nothing
    plain, scaled = (average_rows([RowPredictions("GDLT", [first, each])]) for each in (second, wide))
    assert plain is not None
    assert scaled is not None
    both = sum((each - each.mean()) / each.std() for each in (first[0], second[0]))
    assert plain.test.value == pytest.approx(spearman(both, TRUE))
    assert scaled.test == plain.test
    assert plain.test.value > max(spearman(*first), spearman(*second))
    assert plain.test.low < plain.test.value < plain.test.high
    assert (plain.title, plain.rows, plain.num_seeds) == ("GDLT, 2 seeds", ("GDLT",), 2)
    assert str(plain) == f"GDLT, 2 seeds: {plain.test}"


def test_every_row_has_the_same_weight_in_an_average_over_rows() -> None:
    """A row with five equal seeds does not count five times."""
    first, second = noisy(15), noisy(15)
    one = average_rows([RowPredictions("a", [first] * 5), RowPredictions("b", [second])])
    other = average_rows([RowPredictions("a", [first]), RowPredictions("b", [second])])
    assert one is not None
    assert other is not None
    assert one.test == other.test
    assert (one.title, other.title) == ("the 2 rows, 5 seeds", "the 2 rows")


def test_only_predictions_of_the_same_random_split_are_averaged() -> None:
    splits = [RNG.random(40), RNG.random(40)]
    rows = [RowPredictions(name, [noisy(20, true) for true in splits]) for name in ("a", "b")]
    found = average_rows(rows)
    assert found is not None
    by_hand = [
        spearman(
            sum((row.pairs[split][0] - row.pairs[split][0].mean()) / row.pairs[split][0].std() for row in rows), true
        )
        for split, true in enumerate(splits)
    ]
    assert found.test.value == pytest.approx(np.mean(by_hand))
    assert average_rows(rows[:1]) is None, "one seed for each split is not an average"
    assert average_rows([rows[0], RowPredictions("c", [noisy(20)])]) is None, "the videos are different"


def test_held_out_predictions_are_averaged_over_the_rows() -> None:
    """The folds of the rows are different, and each has an offset of its own, which is removed."""
    names = [f"v{number}" for number in range(60)]
    true = dict(zip(names, TRUE.tolist(), strict=True))
    exact = [
        {name: true[name] + 100 * (number % 3) for number, name in enumerate(names) if number % 3 == fold}
        for fold in range(3)
    ]
    rows = [RowPredictions("a", [noisy(1)], exact, true), RowPredictions("b", [noisy(1)], [dict(true)], true)]
    found = average_rows(rows)
    assert found is not None
    assert found.cross_validated is not None
    assert found.cross_validated == pytest.approx(1, abs=0.05)
    assert found.cross_validated < 1, "standardized folds are not on exactly the same scale"
    assert str(found).endswith(f"; cross-validated {found.cross_validated:.3f}")
    for incomplete in ((), exact[:2]):
        without = average_rows([rows[1], RowPredictions("c", [noisy(1)], incomplete, true)])
        assert without is not None
        assert without.cross_validated is None


def test_constant_predictions_are_compared_without_a_verdict() -> None:
    constant = (np.full(60, 0.1 + 0.2), TRUE)
    compared = compare_rows([RowPredictions("a", [noisy(5)]), RowPredictions("b", [constant])])
    (difference,), (average,) = compared.differences, compared.averages
    assert difference.verdict == "undefined"
    assert average.test.value == pytest.approx(spearman(*noisy(0)), abs=0.3)


def test_every_pair_of_rows_is_compared() -> None:
    rows = [RowPredictions(name, [noisy(scale)]) for name, scale in (("a", 1), ("b", 40), ("c", 1))]
    compared = compare_rows(rows)
    assert [(each.first, each.second) for each in compared.differences] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [each.verdict for each in compared.differences][::2] == ["better", "worse"]
    assert [each.title for each in compared.averages] == ["the 3 rows"]
    assert compare_rows(rows[:1]) == type(compared)((), ())
