"""The errors that a user can act on; a job ends with their code."""


class JobError(Exception):
    """A failure that the user can act on: at most 15 lines saying what, where and what to do. `code` is the exit code."""

    code = 1


class ConfigError(JobError):
    """The configuration is wrong."""

    code = 2


class DataError(JobError):
    """The data cannot be used as asked."""

    code = 3


class ResourceError(JobError):
    """The cluster or machine lacks what was asked for."""

    code = 4
