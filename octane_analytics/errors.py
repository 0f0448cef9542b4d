"""Exception tree: each branch stands for the caller's next action."""


class OctaneError(Exception):
    """Root. The message states for the operator what is wrong and what to do."""


class ConfigError(OctaneError):
    """Invalid setting, schema or grant: exit; a restart without a change fails again."""


class TooManyRejected(ConfigError):
    """Share of invalid records above its limit: a producer is probably broken."""


class DecodeError(OctaneError):
    """Invalid payload: send the record to the dead-letter topic.

    `reason` is a short code out of a bounded set, `detail` a text for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Unavailable(OctaneError):
    """Temporary failure of the other side: wait, then repeat the same call."""


class Rebalancing(Unavailable):
    """Rebalance in progress: take part in it, then repeat the call."""


class NeedsOperator(Unavailable):
    """Failure until an operator fixes a grant, a table or a setting; retried like Unavailable."""


class Abandoned(OctaneError):
    """Caller disconnected or timed out: stop, the result is not needed."""


class Rejected(OctaneError):
    """Permanent refusal by the other side: do not retry."""


class DataRejected(Rejected):
    """Refusal because of the rows' values, independent of user and time."""


class StatementRejected(Rejected):
    """Refusal of a statement: `code` and `name` are ClickHouse's, the message has no stack trace."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.name = name


class AssignmentLost(OctaneError):
    """Loss of partitions to another member: discard their records, commit nothing."""


class QueryError(OctaneError):
    """Failure of an API query: an HTTP status, a code for programs and a message for people.

    `details` are further facts for programs; they can be written as JSON.
    """

    def __init__(self, status: int, code: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details
