"""Expansion of the parts of a template by which it reads a sample of the users.

A template with `is_sampled` has, in its WITH clause and between the lines `{sample:begin}` and
`{sample:end}`, a condition for the events that count towards `max_events`, beyond those of time and
`app_id`; none if nothing is between. It is expanded to expressions that choose the share, and

| text | meaning |
|---|---|
| `{users:Sample}` | condition: the event's user is in the sample |
| `{share:Sample}` | share of the users that are read, above 0 and at most 1 |

A user is read with all events or not at all. Does not depend on values or on how SQL is run.
"""

import re

from octane_analytics.api import filters

_BEGIN, _END = "{sample:begin}", "{sample:end}"
_BLOCK = re.compile(
    r"^(?P<indent>[ \t]*)\{sample:begin\}[ \t]*$(?P<condition>.*?)^[ \t]*\{sample:end\}[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_COUNT = (
    "(SELECT count() FROM {database:Identifier}.{table:Identifier} WHERE {sample:Float64} = 0 "
    "AND timestamp >= {from:DateTime('UTC')} AND timestamp < {to:DateTime('UTC')} "
    "AND ({app_id:String} = '' OR app_id = {app_id:String})"
)
# In ten-thousandths, so that the share of the answer is the one that was read.
_SHARE = (
    ") AS sample_events, if({sample:Float64} > 0, {sample:Float64}, "
    "least(1, {max_events:UInt64} / greatest(sample_events, 1))) AS sample_wanted, "
    "toUInt32(ceil(sample_wanted * 10000)) AS sampled"
)
_NAMED = {
    "{users:Sample}": "(sampled = 10000 OR cityHash64(user_id) % 10000 < sampled)",
    "{share:Sample}": "(sampled / 10000)",
}


def expand(sql: str, *, is_sampled: bool) -> str:
    """Return the SQL with these parts expanded; the number of its lines is the same.

    Raises ValueError with what is wrong.
    """
    used = [text for text in (_BEGIN, _END, *_NAMED) if text in sql]
    if used and not is_sampled:
        raise ValueError(f"{used[0]} needs is_sampled = true in the header")
    # Filters bound the events that count, too.
    condition = f" {filters.PLACEHOLDER}" if filters.PLACEHOLDER in sql else ""
    expanded, blocks = _BLOCK.subn(lambda match: _share(match, condition), sql)
    if is_sampled and (blocks != 1 or _BEGIN in expanded or _END in expanded):
        raise ValueError(f"is_sampled needs one line {_BEGIN} and, after it, one line {_END}")
    for text, meaning in _NAMED.items():
        if is_sampled and text not in expanded:
            raise ValueError(f"is_sampled needs {text}")
        expanded = expanded.replace(text, meaning)
    return expanded


def _share(match: re.Match[str], filtered: str) -> str:
    condition = match["condition"]
    has_condition = bool(_COMMENT.sub("", condition).strip())
    opening, closing = (" AND (", ")") if has_condition else ("", "")
    return (
        f"{match['indent']}{_COUNT}{filtered}{opening}{condition}{match['indent']}{closing}{_SHARE}"
    )
