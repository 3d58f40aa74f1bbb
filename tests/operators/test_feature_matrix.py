"""The feature matrix beyond its suite: construction, panels, precision, and what the house promises about it."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_operator.operators import MatmulLinearOperator

from tangrams.operators import (
    ColumnRows,
    DenseRows,
    FeatureMatrix,
    NormalMatrix,
    Rows,
    as_feature_matrix,
    normal_matrix,
    row_panels,
    trace,
)
from tangrams.operators.dense_rows import accumulate_dtype
from tangrams.testing.counting_rows import CountingRows


def normal(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def test_a_tensor_stands_for_dense_rows_and_is_not_copied():
    tensor = normal(4, 3)
    phi = FeatureMatrix(rows=tensor)
    assert isinstance(phi.rows, DenseRows)
    assert isinstance(phi.rows, Rows)
    assert phi.to_dense().data_ptr() == tensor.data_ptr()
    assert as_feature_matrix(phi) is phi
    assert isinstance(as_feature_matrix(tensor), FeatureMatrix)


@pytest.mark.parametrize(
    "rows", [torch.ones(3), torch.ones(2, 2, 2), torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2) * 1j]
)
def test_rows_that_are_no_real_matrix_are_refused(rows):
    with pytest.raises(ValueError, match=r"floating-point matrix \(N, d\)"):
        FeatureMatrix(rows=rows)


def test_what_is_no_source_of_rows_is_refused():
    with pytest.raises(TypeError, match="Rows"):
        FeatureMatrix(rows=np.ones((2, 2)))


def test_rows_with_a_graph_are_detached():
    tensor = normal(4, 3).requires_grad_(True)
    phi = FeatureMatrix(rows=tensor * 2)
    assert not phi.to_dense().requires_grad
    assert not (phi @ torch.ones(3, dtype=torch.float64)).requires_grad


def test_panels_cover_the_rows_once_in_order():
    tensor = normal(10, 4)
    source = CountingRows(DenseRows(tensor))
    panels = list(row_panels(source, panel_bytes=3 * 4 * 8))
    assert [(start, stop) for start, stop, _ in panels] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert torch.equal(torch.cat([panel for _, _, panel in panels]), tensor)
    assert source.passes == 1
    assert [stop for _, stop, _ in row_panels(source, panel_bytes=1)] == list(range(1, 11))


def test_grams_of_half_precision_are_summed_in_float32():
    rows = torch.full((2, 4096), 0.125, dtype=torch.float16)
    rows[:, 0] = 16.0
    exact = rows.double() @ rows.double().mT
    phi = FeatureMatrix(rows=rows)
    assert torch.equal((phi @ phi.mT).to_dense(), exact.half())
    assert torch.equal(phi.rows.diag(), exact.diagonal().half())
    assert torch.equal((phi.mT @ phi).diagonal(), (rows.double().square().sum(0)).half())
    assert accumulate_dtype(torch.bfloat16) == torch.float32
    assert accumulate_dtype(torch.float64) == torch.float64


def test_the_gram_with_a_foreign_source_goes_panel_by_panel():
    left, right = DenseRows(normal(5, 3)), CountingRows(DenseRows(normal(7, 3)))
    torch.testing.assert_close(left.gram(right), left.tensor @ right.rows.tensor.mT)
    assert right.passes == 1


def test_the_normal_matrix_is_formed_in_one_pass():
    source = CountingRows(DenseRows(normal(9, 4)))
    torch.testing.assert_close(normal_matrix(source), normal(9, 4).mT @ normal(9, 4))
    assert source.passes == 1
    assert normal_matrix(DenseRows(normal(9, 4, dtype=torch.float32)), torch.float64).dtype == torch.float64


def test_products_of_different_matrices_with_the_transpose_first_are_plain_products():
    phi, psi = FeatureMatrix(rows=normal(6, 3)), FeatureMatrix(rows=normal(6, 2))
    product = phi.mT @ psi
    assert isinstance(product, MatmulLinearOperator)
    torch.testing.assert_close(product.to_dense(), normal(6, 3).mT @ normal(6, 2))
    assert isinstance(phi.mT @ phi, NormalMatrix)


def test_columns_of_columns_and_rows_of_columns():
    dense = normal(6, 8)
    phi = FeatureMatrix(rows=dense)[:, [5, 1, 1]]
    assert isinstance(phi.rows, ColumnRows)
    torch.testing.assert_close(phi[2:, [2, 0]].to_dense(), dense[2:][:, [1, 5]])
    torch.testing.assert_close(phi @ torch.ones(3, dtype=torch.float64), dense[:, [5, 1, 1]].sum(1))


def test_copies_of_two_sides_of_one_gram_share_their_rows():
    phi = FeatureMatrix(rows=normal(5, 3))
    twin = copy.deepcopy(phi @ phi.mT)
    assert twin.left is twin.right
    twin = twin.float()
    assert twin.left is twin.right


def test_an_empty_feature_matrix_has_empty_answers():
    phi = FeatureMatrix(rows=normal(4, 3))[[]]
    assert phi.shape == (0, 3)
    assert (phi @ torch.ones(3, 2, dtype=torch.float64)).shape == (0, 2)
    assert torch.equal(phi.mT @ torch.ones(0, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64))
    assert (phi @ phi.mT).to_dense().shape == (0, 0)
    assert np.asarray(phi).shape == (0, 3)
    with pytest.raises(IndexError, match="out of range for 0"):
        phi[0]


def test_trace_takes_tensors_operators_and_refuses_oblong_ones():
    square = normal(4, 4)
    torch.testing.assert_close(trace(square), square.diagonal().sum())
    phi = FeatureMatrix(rows=normal(4, 3))
    torch.testing.assert_close(trace(phi @ phi.mT), normal(4, 3).square().sum())
    torch.testing.assert_close(trace((phi @ phi.mT).add_jitter(2.0)), normal(4, 3).square().sum() + 8)
    with pytest.raises(ValueError, match="square"):
        trace(phi)


def test_the_trace_of_a_gram_reads_the_rows_once():
    source = CountingRows(DenseRows(normal(9, 4)))
    phi = FeatureMatrix(rows=source)
    trace(phi @ phi.mT)
    assert source.passes == 1


def test_bfloat16_reaches_numpy_as_float32():
    phi = FeatureMatrix(rows=normal(3, 2, dtype=torch.bfloat16))
    assert np.asarray(phi).dtype == np.float32


def test_index_errors_say_who_where_and_how_many():
    phi = FeatureMatrix(rows=normal(4, 3))
    with pytest.raises(IndexError, match="FeatureMatrix rows: index 4 is out of range for 4"):
        phi[4]
    with pytest.raises(IndexError, match=r"mask of shape \(3,\) does not fit 4"):
        phi[torch.ones(3, dtype=torch.bool)]
    with pytest.raises(IndexError, match="columns: index -4 is out of range for 3"):
        phi[:, [-4]]
    with pytest.raises(IndexError, match="vector of integers"):
        phi[torch.zeros(2, 2, dtype=torch.int64)]


def axis_index(size):
    """Any index of one axis, as numpy reads it."""
    whole = st.integers(-size, size - 1)
    return st.one_of(
        whole,
        st.slices(size),
        st.lists(whole, max_size=6).map(lambda i: np.array(i, dtype=np.int64)),
        st.lists(st.booleans(), min_size=size, max_size=size).map(np.array),
    )


@given(row=axis_index(5), column=st.one_of(st.just(slice(None)), st.integers(-4, 3), st.slices(4)))
def test_any_index_of_rows_and_columns_is_read_as_numpy_reads_it(row, column):
    dense = normal(5, 4)
    expected = dense.numpy()[row][..., column] if not isinstance(row, int) else dense.numpy()[row, column]
    for matrix, index in ((FeatureMatrix(rows=dense), (row, column)), (FeatureMatrix(rows=dense.mT).mT, (row, column))):
        found = matrix[index]
        found = found if isinstance(found, torch.Tensor) else found.to_dense()
        np.testing.assert_array_equal(found.numpy(), expected)
