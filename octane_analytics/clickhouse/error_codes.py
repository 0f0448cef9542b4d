"""Classification of the server's error codes: data errors, errors for the operator, outages."""

from clickhouse_driver import errors as driver_errors

DATA_ERRORS = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        12,  # PARAMETER_OUT_OF_BOUND
        25,  # CANNOT_PARSE_ESCAPE_SEQUENCE
        26,  # CANNOT_PARSE_QUOTED_STRING
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        32,  # ATTEMPT_TO_READ_AFTER_EOF
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        128,  # TOO_LARGE_ARRAY_SIZE
        130,  # CANNOT_READ_ARRAY_FROM_TEXT
        131,  # TOO_LARGE_STRING_SIZE
        153,  # ILLEGAL_DIVISION
        190,  # SIZES_OF_ARRAYS_DONT_MATCH
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        376,  # CANNOT_PARSE_UUID
        395,  # FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
        407,  # DECIMAL_OVERFLOW
        427,  # CANNOT_COMPILE_REGEXP
        454,  # OPENSSL_ERROR
        467,  # CANNOT_PARSE_BOOL
        469,  # VIOLATED_CONSTRAINT
        675,  # CANNOT_PARSE_IPV4
        676,  # CANNOT_PARSE_IPV6
        691,  # UNKNOWN_ELEMENT_OF_ENUM
    }
)
"""Errors about the rows themselves: isolate and dead-letter those, insert the others."""

READ_ONLY = 164
UNKNOWN_TABLE = 60
UNKNOWN_DATABASE = 81
OPERATOR_ERRORS = {
    16: "the table lacks a column: run `octane-analytics schema check`",
    53: "a column is of another type: run `octane-analytics schema check`",
    UNKNOWN_TABLE: "create the table with `octane-analytics schema apply`",
    81: "create the database, then the table with `octane-analytics schema apply`",
    115: "this ClickHouse is too old for a setting the delivery protocol needs",
    READ_ONLY: "the user's profile is read-only: give it one that may insert",
    192: "check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD",
    193: "check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD",
    194: "check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD",
    201: "the user's quota is used up: raise it or wait for its interval to end",
    242: "the table is read-only: check the server's log and, if replicated, Keeper",
    243: "the server's disk is full: free or add space",
    452: "the user's profile pins a setting: loosen its constraint",
    497: "grant the user what it lacks: INSERT and SELECT on the table",
    516: "check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD",
}
"""Errors that waiting does not fix, with the operator's fix. All codes in neither table are outages:
wait, and repeat the same insert. No row is ever skipped because of a code not listed as a data error."""

CONNECTION_ERRORS = frozenset(
    {
        192,  # UNKNOWN_USER
        193,  # WRONG_PASSWORD
        194,  # REQUIRED_PASSWORD
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        279,  # ALL_CONNECTION_TRIES_FAILED, to the servers of another shard
        516,  # AUTHENTICATION_FAILED
        519,  # ALL_REPLICAS_ARE_STALE, of another shard
        745,  # SERVER_OVERLOADED
    }
)
"""Errors that depend on the connection or the server's load, not on the statement. The next server of
the list may reach a shard that this one cannot reach."""

_NAMES = {
    code: name
    for name, code in vars(driver_errors.ErrorCodes).items()
    if name.isupper() and isinstance(code, int)
}


def error_name(code: int) -> str:
    """Return ClickHouse's name of an error code."""
    return str(_NAMES.get(code, "UNKNOWN"))


_LOGIN_FAILED = 516


def plain_message(error: driver_errors.ServerException) -> str:
    """Return the server's message on one line. It may quote any text of a row: do not search in it."""
    text = str(error.message)
    if error.code == _LOGIN_FAILED:
        # The rest is a long advice about forgotten passwords.
        text = text.partition("If you use ClickHouse Cloud")[0]
    return single_line(text)


def single_line(text: str) -> str:
    """The text with a space for each run of white space."""
    return " ".join(text.split())
