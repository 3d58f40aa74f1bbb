"""What a parametrization refuses, and what it warns of."""


class FanError(ValueError):
    """A parameter has no fan rule, or several that do not go together; names it and says how to give one."""


class BaseShapeError(ValueError):
    """A parametrization needs a base model to tell widths from fixed sizes, or the base does not fit the model."""


class AlreadyParametrizedError(RuntimeError):
    """A model, or a part of it, carries a parametrization already: applying another would scale its weights twice."""


class UnstableParametrizationWarning(UserWarning):
    """An abc-parametrization whose training blows up with width; says which inequality fails."""
