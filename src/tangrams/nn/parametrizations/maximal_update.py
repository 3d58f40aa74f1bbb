"""The maximal update parametrization: every layer learns features, at any width."""

from __future__ import annotations

from tangrams.nn.parametrizations.base import FanParametrization
from tangrams.nn.parametrizations.errors import BaseShapeError, FanError
from tangrams.nn.parametrizations.fans import Fans, Role
from tangrams.nn.parametrizations.plan import Scaling


class MaximalUpdate(FanParametrization):
    r"""μP: the parametrization in which every layer's features move by Θ(1) and no more [017].

    =================  =========================  ==========  =====================  ===========
    with m = ratio of  initial variance           multiplier  SGD                    Adam
    fans to the base
    =================  =========================  ==========  =====================  ===========
    input, bias, gain  that of the base           1           ``m_out``              1
    hidden             ``1 / m_in``               1           ``m_out / m_in``       ``1 / m_in``
    readout            that of the base           ``1/m_in``  ``m_in``               1
    =================  =========================  ==========  =====================  ===========

    A size that is the same in the base is not a width, and a readout is a matrix with a width in its inputs alone; so
    a base is needed. A readout that starts at zero, which is advised, stays at zero. Attention should divide its
    scores by the width of a head, not by its root, or heads keep their width: that is in the model's forward, and not
    for a parametrization to change.
    """

    def law(self, fans: Fans, base: Fans | None) -> Scaling:
        """The table above.

        Raises:
            BaseShapeError: if there is no base.
        """
        if base is None:
            raise BaseShapeError(
                f"{type(self).__name__} tells widths from fixed sizes by a base model: pass base=, or take Spectral"
            )
        m_in, m_out = fans.fan_in / base.fan_in, fans.out_features / base.out_features
        if fans.role is Role.MATRIX and m_in != 1 and m_out == 1:
            return Scaling(1.0, 1 / m_in, m_in, 1.0)
        return Scaling(m_in**-0.5, 1.0, m_out / m_in, 1 / m_in)


class MeanField(MaximalUpdate):
    """The mean-field parametrization of networks with one hidden layer, whose readout averages over units [017].

    There it is :class:`MaximalUpdate`; a matrix between two widths has no mean-field scaling that trains.
    """

    def law(self, fans: Fans, base: Fans | None) -> Scaling:
        """That of :class:`MaximalUpdate` for inputs and readout.

        Raises:
            FanError: for a weight between two widths.
        """
        scaling = super().law(fans, base)
        if base is not None and fans.fan_in != base.fan_in and fans.out_features != base.out_features:
            raise FanError(
                f"MeanField has no rule for a weight between widths ({base.fan_in} → {fans.fan_in} inputs, "
                f"{base.out_features} → {fans.out_features} outputs): it is for one hidden layer, take MaximalUpdate"
            )
        return scaling
