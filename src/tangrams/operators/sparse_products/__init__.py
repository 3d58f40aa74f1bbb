"""Products of sparse matrices, sparse: row by row into tables, and the other orders to compare with.

:func:`spgemm` is where to start; factors are :class:`CSR`. :class:`AutomaticDataflow` picks among
:class:`CompiledDataflow` (numba, the extra ``fast``), :class:`LibraryDataflow`, :class:`DenseDataflow`,
:class:`SortDataflow` and :class:`HashDataflow`; :class:`InnerDataflow` and :class:`OuterDataflow` are there to compare.
"""

from tangrams.operators.sparse_products.compiled import CompiledDataflow
from tangrams.operators.sparse_products.csr import CSR, csr_matmul, flops_per_row, meetings
from tangrams.operators.sparse_products.dataflows import (
    AutomaticDataflow,
    Dataflow,
    DenseDataflow,
    HashDataflow,
    InnerDataflow,
    LibraryDataflow,
    OuterDataflow,
    ProductStats,
    SortDataflow,
)
from tangrams.operators.sparse_products.hashing import HashAccumulator, TableFullError, high_bits, low_bits
from tangrams.operators.sparse_products.product import (
    MIN_PLUS,
    OR_AND,
    PLUS_TIMES,
    Semiring,
    SparseProductOperator,
    graph_square,
    masked_spgemm,
    product_gradients,
    semiring_spgemm,
    spgemm,
    triangle_count,
)
from tangrams.operators.sparse_products.windows import ProductPlan, plan_windows, static_loads, token_loads, traffic

__all__ = [
    "CSR",
    "MIN_PLUS",
    "OR_AND",
    "PLUS_TIMES",
    "AutomaticDataflow",
    "CompiledDataflow",
    "Dataflow",
    "DenseDataflow",
    "HashAccumulator",
    "HashDataflow",
    "InnerDataflow",
    "LibraryDataflow",
    "OuterDataflow",
    "ProductPlan",
    "ProductStats",
    "Semiring",
    "SortDataflow",
    "SparseProductOperator",
    "TableFullError",
    "csr_matmul",
    "flops_per_row",
    "graph_square",
    "high_bits",
    "low_bits",
    "masked_spgemm",
    "meetings",
    "plan_windows",
    "product_gradients",
    "semiring_spgemm",
    "spgemm",
    "static_loads",
    "token_loads",
    "traffic",
    "triangle_count",
]
