"""What a loader raises when a data set is not there."""


class DataNotFoundError(FileNotFoundError):
    """A data set or one of its files is neither in the local folder nor to be had; says how to get it."""
