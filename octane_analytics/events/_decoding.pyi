from collections.abc import Sequence

def pack(
    values: Sequence[bytes | None], start: int = 0, /
) -> tuple[int, bytes, bytes, bytes, bytes, bytes]: ...
