"""Which cells come first: laws of the estimated error, and the order against a plain sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlc_jax.assess.looks import estimated_error, most_useful_first

shares = st.floats(0, 1)


@given(shares)
def test_the_errors_of_the_two_values_add_up_to_one_and_a_blank_has_the_lesser(p: float) -> None:
    zero, one, blank = estimated_error(np.array([0, 1, -1], np.int8), np.array([p, p, p]))
    assert zero + one == 1
    assert blank == min(zero, one)
    swapped = estimated_error(np.array([1, 0, -1], np.int8), 1 - np.array([p, p, p]))
    np.testing.assert_allclose(swapped, [zero, one, blank], atol=1e-15)


def test_a_cell_that_no_model_speaks_of_has_no_error() -> None:
    assert np.isnan(estimated_error(np.array([-1, 1], np.int8), np.array([np.nan, np.nan]))).all()


cells = st.lists(st.tuples(shares | st.just(float("nan")), st.booleans()), max_size=30)


@given(cells)
def test_the_order_is_a_plain_sort_by_label_then_error(listed: list[tuple[float, bool]]) -> None:
    errors = np.array([error for error, _ in listed])
    learnable = np.array([good for _, good in listed], np.bool_)
    expected = sorted(
        range(len(listed)),
        key=lambda n: (not learnable[n], bool(np.isnan(errors[n])), -np.nan_to_num(errors[n])),
    )
    assert most_useful_first(errors, learnable).tolist() == expected
