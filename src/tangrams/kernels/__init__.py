"""Gram matrices: empirical and analytic neural tangent kernels, Laplace and their kin."""
