"""The exception tree: one branch for each thing the caller does next."""


class OctaneError(Exception):
    """Root. The message tells the operator what is wrong and what to do about it."""


class ConfigError(OctaneError):
    """A setting, a schema or a right is wrong: exit, and do not start again unchanged."""


class TooManyRejected(ConfigError):
    """So much of what comes in is no event that something upstream must be broken."""


class DecodeError(OctaneError):
    """A payload is not an event: to the dead-letter topic with it.

    `reason` is a short code out of a bounded set, the message is for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Unavailable(OctaneError):
    """The other side cannot serve now: wait, then repeat the same call."""


class Rebalancing(Unavailable):
    """The group is about to settle anew: take part in that, then repeat the call."""


class NeedsOperator(Unavailable):
    """As Unavailable, and waiting alone will not help: a right, a table or a setting is missing."""


class Abandoned(OctaneError):
    """Whoever asked has gone or waits no longer: stop, there is nobody to answer."""


class Rejected(OctaneError):
    """The other side refuses for good: repeating the call is of no use."""


class DataRejected(Rejected):
    """The server refuses the rows themselves, not who sends them or when."""


class StatementRejected(Rejected):
    """The server refuses a statement: `code` and `name` are ClickHouse's, the message has no trace."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.name = name


class AssignmentLost(OctaneError):
    """Somebody else owns the partitions: discard what was read of them, commit nothing."""


class QueryError(OctaneError):
    """A query failed for a reason of its own: an HTTP status and a code for a program to read.

    `details` are more facts for that program; they can be written as JSON.
    """

    def __init__(self, status: int, code: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details
