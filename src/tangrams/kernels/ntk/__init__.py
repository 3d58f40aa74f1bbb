"""The analytic algebra of infinite-width kernels."""
