"""The loop of batch active learning: train, choose, label, train again; and what its errors are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.base import clone

from tangrams.features import TangentFeatures
from tangrams.learners.selection.base import BatchSelector
from tangrams.learners.tabular_mlp import TabularMLPRegressor
from tangrams.operators import FeatureMatrix, KhatriRaoSketch


@dataclass(frozen=True)
class RegressionErrors:
    """How far predictions are from targets, from the middle of the distribution to its end.

    Attributes:
        mae: mean absolute error.
        rmse: root of the mean squared error.
        q95: 95 % of the absolute errors are at most this.
        q99: 99 % of them.
        maxe: the largest.
    """

    mae: float
    rmse: float
    q95: float
    q99: float
    maxe: float

    @classmethod
    def of(cls, targets: Float[np.ndarray, "n"], predictions: Float[np.ndarray, "n"]) -> RegressionErrors:
        """Measure predictions."""
        error = np.sort(np.abs(np.asarray(targets) - np.asarray(predictions)))
        at = [error[int(q * len(error))] for q in (0.95, 0.99)]
        return cls(float(error.mean()), float(np.sqrt((error**2).mean())), float(at[0]), float(at[1]), float(error[-1]))


@dataclass(frozen=True)
class ActiveLearningCurve:
    """What a run of the loop went through.

    Attributes:
        sizes: how many labels there were before each round and at the end.
        errors: on the test samples at each of these sizes.
        chosen: every round's batch, as indices of the samples.
        statuses: what each selection said of itself, None where all went well.
    """

    sizes: list[int]
    errors: list[RegressionErrors]
    chosen: list[Int[np.ndarray, "b"]]
    statuses: list[str | None]

    @property
    def mean_log_rmse(self) -> float:
        """Mean log RMSE over the rounds, the first fit left out: the benchmark's score."""
        return float(np.mean([np.log(error.rmse) for error in self.errors[1:]]))


class ActiveLearningLoop:
    """Labels a pool batch by batch, retraining from scratch in between; labelled samples are given to the selection.

    This is the paper's TP mode [007], that of the distance methods; for selections that look at the pool alone, on
    posterior features say, :class:`PoolModeLoop`.

    Args:
        regressor: cloned for every round, ``random_state`` raised by one.
        selector: chooses a batch.
        features: feature rows of samples by the fitted regressor, such as :func:`sketched_gradients`.
        transformation: a scikit-learn transformer, fitted on the labelled rows (and targets) in every round.

    """

    def __init__(
        self,
        regressor: TabularMLPRegressor,
        selector: BatchSelector,
        features: Callable[[Any, Any], Any],
        transformation: Any = None,
    ) -> None:
        self.regressor = regressor
        self.selector = selector
        self.features = features
        self.transformation = transformation

    def run(
        self,
        X: Float[np.ndarray, "n d"],
        y: Float[np.ndarray, "n"],
        initial: Int[np.ndarray, "k"],
        *,
        rounds: int,
        test: tuple[Any, Any],
        validation: tuple[Any, Any] | None = None,
    ) -> ActiveLearningCurve:
        """Label ``rounds`` batches.

        Args:
            X: all samples that are labelled or may be.
            y: their targets, looked at when they are labelled.
            initial: which are labelled at the start.
            rounds: how many batches.
            test: inputs and targets that measure.
            validation: inputs and targets that choose the epoch.
        """
        labelled = np.asarray(initial)
        curve = ActiveLearningCurve([], [], [], [])
        for number in range(rounds + 1):
            pool = np.setdiff1d(np.arange(len(X)), labelled)
            model = _fresh(self.regressor, self.regressor.random_state + number)
            model.fit(X[labelled], y[labelled], unlabelled=X[pool], validation=validation)
            curve.sizes.append(len(labelled))
            curve.errors.append(RegressionErrors.of(test[1], model.predict(test[0])))
            if number == rounds:
                break
            known, candidates = self.features(model, X[labelled]), self.features(model, X[pool])
            if self.transformation is not None:
                scaled = (y[labelled] - y[labelled].mean()) / max(y[labelled].std(), 1e-12)
                fitted = _fresh(self.transformation).fit(known, scaled)
                known, candidates = fitted.transform(known), fitted.transform(candidates)
            selector = _fresh(self.selector, self.selector.random_state + number)
            self.choose(selector, candidates, known)
            curve.chosen.append(pool[selector.indices_])
            curve.statuses.append(selector.status_)
            labelled = np.concatenate([labelled, curve.chosen[-1]])
        return curve

    def choose(self, selector: BatchSelector, pool: Any, labelled: Any) -> None:
        """Fit the selector."""
        selector.fit(pool, labelled=labelled)


class PoolModeLoop(ActiveLearningLoop):
    """The loop of :class:`ActiveLearningLoop` with the selection looking at the pool alone: the paper's P mode [007].

    Args:
        regressor: cloned for every round.
        selector: chooses a batch.
        features: feature rows of samples by the fitted regressor.
        transformation: brings what is known of the labelled samples, such as
            :class:`~tangrams.learners.selection.PosteriorFeatures`.
    """

    def choose(self, selector: BatchSelector, pool: Any, labelled: Any) -> None:
        """Fit the selector."""
        selector.fit(pool)


def sketched_gradients(regressor: TabularMLPRegressor, X: Any, num_features: int = 512, seed: int = 0) -> FeatureMatrix:
    """The paper's features: the gradients of the fitted network, sketched to 512 numbers without being formed.

    Args:
        regressor: a fitted regressor.
        X: samples.
        num_features: k of the :class:`~tangrams.operators.KhatriRaoSketch`.
        seed: of the sketch.
    """
    phi = TangentFeatures(regressor.network_) >> KhatriRaoSketch(num_features, seed=seed)
    return phi.matrix(regressor.network_inputs(X))


def _fresh(estimator: Any, random_state: int | None = None) -> Any:
    copy: Any = clone(estimator)
    return copy if random_state is None else copy.set_params(random_state=random_state)
