"""Every operator of ours, and some of linear_operator's to try the suite on, against its dense form."""

import torch
from linear_operator.operators import (
    DenseLinearOperator,
    DiagLinearOperator,
    KroneckerProductLinearOperator,
    ToeplitzLinearOperator,
)

from tangrams.operators import ColumnRows, CountSketch, DenseRows, FeatureMatrix
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.counting_rows import CountingRows
from tangrams.testing.suites.feature_matrix import FeatureMatrixSuite
from tangrams.testing.suites.operator import OperatorSuite


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


PICKED = torch.tensor([4, 0, 7, 7, 2])

TestFeatureMatrices = conformance(
    FeatureMatrixSuite,
    Case(lambda: FeatureMatrix(rows=normal(7, 5)), reference=lambda: normal(7, 5), name="dense-tall"),
    Case(lambda: FeatureMatrix(rows=DenseRows(normal(5, 30))), reference=lambda: normal(5, 30), name="dense-wide"),
    Case(
        lambda: FeatureMatrix(rows=normal(6, 9, dtype=torch.float32)),
        reference=lambda: normal(6, 9, dtype=torch.float32),
        name="dense-float32",
    ),
    Case(
        lambda: FeatureMatrix(rows=ColumnRows(DenseRows(normal(6, 8)), PICKED)),
        reference=lambda: normal(6, 8)[:, PICKED],
        name="columns",
    ),
    Case(
        lambda: FeatureMatrix(rows=CountingRows(DenseRows(normal(8, 4)))),
        reference=lambda: normal(8, 4),
        name="foreign-rows",
    ),
)

TALL, WIDE = normal(6, 4, seed=1), normal(5, 4, seed=2)


def sketch_matrix():
    return CountSketch(5, seed=0).bind(9).matrix(dtype=torch.float64)


def sketch_reference(operator):
    """Column by column, each from its own unit vector."""
    columns = [operator.sketch.project(torch.eye(9, dtype=torch.float64)[i : i + 1])[0] for i in range(9)]
    dense = torch.stack(columns, 1)
    return dense if operator.shape[0] == 5 else dense.mT


def toeplitz_reference(operator):
    (column,) = operator.representation()
    i = torch.arange(len(column))
    return column[(i[:, None] - i).abs()]


def kronecker_reference(operator):
    left, right = operator.representation()
    return (left[:, None, :, None] * right[None, :, None, :]).flatten(2).flatten(0, 1)


TestOperators = conformance(
    OperatorSuite,
    Case(lambda: FeatureMatrix(rows=TALL), reference=lambda op: TALL),
    Case(lambda: FeatureMatrix(rows=TALL).mT, reference=lambda op: TALL.mT),
    Case(lambda: (phi := FeatureMatrix(rows=TALL)) @ phi.mT, reference=lambda op: TALL @ TALL.mT, name="gram"),
    Case(
        lambda: FeatureMatrix(rows=TALL) @ FeatureMatrix(rows=WIDE).mT,
        reference=lambda op: TALL @ WIDE.mT,
        name="gram-of-two",
    ),
    Case(lambda: (phi := FeatureMatrix(rows=TALL)).mT @ phi, reference=lambda op: TALL.mT @ TALL),
    Case(sketch_matrix, reference=sketch_reference),
    Case(lambda: sketch_matrix().mT, reference=sketch_reference),
    Case(lambda: DenseLinearOperator(normal(5, 3)), reference=lambda op: op.representation()[0]),
    Case(lambda: DenseLinearOperator(normal(2, 5, 3)), reference=lambda op: op.representation()[0], name="dense-batch"),
    Case(lambda: DiagLinearOperator(normal(4)), reference=lambda op: torch.diag(op.representation()[0])),
    Case(lambda: ToeplitzLinearOperator(normal(5)), reference=toeplitz_reference),
    Case(
        lambda: KroneckerProductLinearOperator(DenseLinearOperator(normal(2, 3)), DenseLinearOperator(normal(3, 2))),
        reference=kronecker_reference,
        excuses={"check_entries_rows_and_diagonal": "linear_operator 0.6.1 multiplies the diagonals of oblong factors"},
    ),
)
