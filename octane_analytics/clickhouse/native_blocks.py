"""Driver client that sends packed columns and bounds results.

The layout is that of ClickHouse's native protocol, a Data packet of the client (its documentation,
"Native protocol: client"); the driver writes everything except the packed columns.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from clickhouse_driver import Client, defines
from clickhouse_driver.block import BlockInfo
from clickhouse_driver.columns.service import write_column
from clickhouse_driver.connection import Connection
from clickhouse_driver.protocol import ClientPacketTypes, ServerPacketTypes
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str, write_binary_uint8

from octane_analytics.clickhouse.exceptions import read_exception
from octane_analytics.clickhouse.result_blocks import ResultBlocks, ResultMeter
from octane_analytics.events.packed_columns import PackedColumn, SecondsColumn, TextColumn
from octane_analytics.events.row_order import sorting_order, write_in_order


class PackingClient(Client):  # type: ignore[misc]  # the driver has no types
    """Driver client whose inserts accept packed columns, and whose results are bounded by `meter` in
    total and by `block_meter` for each block, if these are set.

    Reads the server's exceptions with `exceptions.read_exception`.
    """

    meter: ResultMeter | None = None
    block_meter: ResultMeter | None = None
    check_types: Callable[[Mapping[str, str]], None] | None = None
    """Called with the types of an insert's columns before anything is sent; raises to send nothing."""
    sorts_rows = False
    """True for inserts of packed events that are sent in the order of the table's sorting key."""
    on_connect: Callable[[], object] | None = None
    """Called with a new connection, before its first statement; may run statements, and raises to send
    nothing. The driver reconnects by itself, also to another of its hosts."""
    totals: tuple[Any, ...] | None = None
    """Row that WITH TOTALS adds to the last query's result."""
    inserted_rows = 0
    """Rows of the last insert according to the server; 0 if it does not report them."""
    dropped_blocks = 0
    """Blocks of the last insert that the server dropped because it had their token."""

    _seen_socket: object = None
    """Socket of the connection for which `on_connect` was called."""

    def get_connection(self) -> Connection:
        connection = super().get_connection()
        connection.receive_exception = lambda: read_exception(connection.fin)
        # Called again for the same connection: not on top of what the last call has set.
        receive_packet = partial(type(connection).receive_packet, connection)

        def receive() -> Any:
            packet = receive_packet()
            if packet.type == ServerPacketTypes.PROFILE_EVENTS:
                self._count_events(packet.block)
            return packet

        connection.receive_packet = receive
        return connection

    def _count_events(self, block: Any) -> None:
        """Add the increments of the events that tell whether an insert took effect."""
        columns = dict(zip((name for name, _ in block.columns_with_types), block.data, strict=True))
        for name, value in zip(columns.get("name", ()), columns.get("value", ()), strict=True):
            if name == "InsertedRows":
                self.inserted_rows += value
            elif name == "DuplicatedInsertedBlocks":
                self.dropped_blocks += value

    def receive_packet(self) -> Any:
        """Receive a packet; called by the driver for each packet of a result."""
        connection = self.connection
        if not isinstance(connection.block_in, ResultBlocks):
            connection.block_in = ResultBlocks(connection.block_in)
        if self.block_meter is not None:
            self.block_meter.reset()
        connection.block_in.meter = self.meter or self.block_meter
        packet = super().receive_packet()
        # The driver treats totals and extremes as ordinary rows.
        kind = getattr(packet, "type", None)
        if kind == ServerPacketTypes.TOTALS:
            self.totals = next(iter(packet.block.get_rows()), None)
        return True if kind in (ServerPacketTypes.TOTALS, ServerPacketTypes.EXTREMES) else packet

    def establish_connection(self, settings: Any) -> None:
        """Connect if necessary; called by the driver before each statement."""
        self.totals = None
        self.inserted_rows = self.dropped_blocks = 0
        super().establish_connection(settings)
        while self.on_connect is not None and self.connection.socket is not self._seen_socket:
            self._seen_socket = self.connection.socket
            self.connection.is_query_executing = False  # nothing of this statement is sent yet
            self.on_connect()
            super().establish_connection(settings)  # with the settings of this statement

    def send_data(
        self,
        sample_block: Any,
        data: Sequence[Sequence[object]],
        types_check: bool = False,
        columnar: bool = False,
    ) -> int:
        """Send the columns of an insert; called by the driver once the server requests them."""
        if self.check_types is not None:
            self.check_types(dict(sample_block.columns_with_types))
        max_rows = self.connection.context.client_settings["insert_block_size"]
        is_packed = columnar and any(isinstance(column, PackedColumn) for column in data)
        if not is_packed or len(data[0]) > max_rows:
            rows: int = super().send_data(sample_block, data, types_check, columnar)
            return rows
        names_and_types = sample_block.columns_with_types
        order = None
        if self.sorts_rows and _are_sent_packed(names_and_types, data):
            order = sorting_order(data)
        _send_block(self.connection, names_and_types, data, order)
        self.receive_profile_events()
        _send_block(self.connection, (), ())  # the end of the data
        self.receive_profile_events()
        return len(data[0])


def _send_block(
    connection: Connection,
    names_and_types: Sequence[tuple[str, str]],
    columns: Sequence[Sequence[object]],
    order: bytes | None = None,
) -> None:
    """Send the rows; in this order, if all columns are sent packed."""
    revision, stream = connection.server_info.used_revision, connection.block_out
    write_varint(ClientPacketTypes.DATA, connection.fout)
    write_binary_str("", connection.fout)  # of no temporary table
    BlockInfo().write(stream.fout)
    write_varint(len(columns), stream.fout)
    write_varint(len(columns[0]) if columns else 0, stream.fout)
    for (name, kind), column in zip(names_and_types, columns, strict=True):
        write_binary_str(name, stream.fout)
        write_binary_str(kind, stream.fout)
        if revision >= defines.DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION:
            write_binary_uint8(0, stream.fout)  # none
        if isinstance(column, PackedColumn) and _is_sent_packed(column, kind):
            if order is not None:
                write_in_order(column, order, stream.fout.write)
                continue
            for chunk in column.chunks:
                stream.fout.write(chunk)
        else:
            write_column(connection.context, name, kind, list(column), stream.fout)
    stream.finalize()


def _are_sent_packed(
    names_and_types: Sequence[tuple[str, str]], columns: Sequence[Sequence[object]]
) -> bool:
    return all(
        isinstance(column, PackedColumn) and _is_sent_packed(column, kind)
        for (_, kind), column in zip(names_and_types, columns, strict=True)
    )


def _is_sent_packed(column: PackedColumn[Any], kind: str) -> bool:
    """Return whether the live table's column has the type of the packing."""
    if isinstance(column, SecondsColumn):
        return kind == "DateTime" or kind.startswith("DateTime(")
    return isinstance(column, TextColumn) and kind == "String"
