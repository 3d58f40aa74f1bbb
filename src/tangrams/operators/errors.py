"""What an iterative or direct method raises when it cannot give what was asked for."""

from __future__ import annotations


class ConvergenceError(ArithmeticError):
    """A solve or spectrum did not reach the accuracy asked for.

    Attributes:
        reached: the relative residual that was reached.
        asked: the one asked for.
        iterations: how many steps were taken; 0 for a direct method.
    """

    def __init__(self, who: str, reached: float, asked: float, iterations: int, remedy: str) -> None:
        super().__init__(who, reached, asked, iterations, remedy)
        self.who = who
        self.reached = reached
        self.asked = asked
        self.iterations = iterations
        self.remedy = remedy

    def __str__(self) -> str:
        steps = f" after {self.iterations} iterations" if self.iterations else ""
        return (
            f"{self.who} reached a relative residual of {self.reached:.1e}{steps}, "
            f"{self.asked:.1e} was asked for: {self.remedy}"
        )
