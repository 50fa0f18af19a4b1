"""Numbers out of their range, and those at its edge."""

import math
from collections.abc import Callable

import pytest

from cosmogan.checks import LARGEST_SEED, require_least, require_positive, require_seed
from cosmogan.errors import UserError


def test_numbers_within_the_range_pass():
    require_least(1, a=1, b=2.5)
    require_positive(a=1e-30, b=7)
    require_positive(null=True, a=None)
    require_seed(0)
    require_seed(LARGEST_SEED)


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (lambda: require_least(1, a=1, n=0), "n: expected at least 1, found 0"),
        (lambda: require_least(32, "mocks", refit=31), "refit: expected at least 32 mocks, found 31"),
        (lambda: require_least(0, where="model", final_lr=math.nan), "model.final_lr: expected at least 0, found nan"),
        (lambda: require_least(0, share=math.inf), "share: expected at least 0, found inf"),
        (lambda: require_positive("a rate", where="model", lr=0.0), "model.lr: expected a rate above 0, found 0.0"),
        (lambda: require_positive("an energy", margin=math.inf), "margin: expected an energy above 0, found inf"),
        (lambda: require_positive(null=True, count=-1), "count: expected a number above 0 or null, found -1"),
        (lambda: require_positive(count=None), "count: expected a number above 0, found None"),
        (lambda: require_positive(count=math.nan), "count: expected a number above 0, found nan"),
        (lambda: require_seed(-1), f"seed: expected 0 to {LARGEST_SEED}, found -1"),
        (lambda: require_seed(LARGEST_SEED + 1), f"seed: expected 0 to {LARGEST_SEED}, found {LARGEST_SEED + 1}"),
    ],
)
def test_others_are_named_in_one_sentence(check: Callable[[], None], sentence: str):
    with pytest.raises(UserError) as error:
        check()
    assert str(error.value) == sentence
