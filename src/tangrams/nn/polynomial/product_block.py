"""The elementwise product of branches."""

from __future__ import annotations

from torch import Tensor, nn


class ProductBlock(nn.Module):
    r"""The elementwise product of branches over one input [012].

    .. math:: h(x) = \prod_b h_b(x)

    Args:
        *branches: two or more modules whose outputs have the same shape.

    Shape:
        what the branches take → what each of them returns.

    Raises:
        ValueError: if there are fewer than two branches.
    """

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        if len(branches) < 2:
            raise ValueError(f"ProductBlock needs at least two branches, got {len(branches)}")
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """The product.

        Raises:
            ValueError: if two branches end in different shapes.
        """
        product = self.branches[0](x)
        for branch in self.branches[1:]:
            factor = branch(x)
            if factor.shape != product.shape:
                shapes = tuple(product.shape), tuple(factor.shape)
                raise ValueError(f"ProductBlock: branches end in {shapes[0]} and {shapes[1]}: give them one width")
            product = product * factor
        return product
