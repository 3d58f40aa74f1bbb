"""The refusal of a network whose tangent features are not defined or cannot be trusted."""


class TangentError(RuntimeError):
    """A network was refused: its samples are coupled, its outputs random, its gradients not finite, or a check failed.

    The message names the module, the layer and, where it applies, the samples.
    """
