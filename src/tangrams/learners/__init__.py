"""Estimators that fit on features."""

from tangrams.learners.kernel_ridge import KernelRidge, KernelRidgeClassifier

__all__ = ["KernelRidge", "KernelRidgeClassifier"]
