"""Place of one process in a Kafka cluster: its id, its roles, and the quorum of controllers."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.tools.kafka.jars import new_id

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Node:
    """A node is broker and controller in one, unless it says otherwise.

    voter is the node id and port of the one controller: None if this node is it. cluster_id is that
    of the storage; a new one if empty.
    """

    node_id: int = 1
    is_broker: bool = True
    voter: tuple[int, int] | None = None
    cluster_id: str = ""

    @property
    def is_controller(self) -> bool:
        return self.voter is None

    def properties(self, port: int, sasl_port: int, controller_port: int) -> dict[str, str]:
        """Return the properties of roles and addresses, for ports on loopback."""
        open_to_clients = {"PLAINTEXT": port, "SASL_PLAINTEXT": sasl_port} if self.is_broker else {}
        listeners = open_to_clients | (
            {"CONTROLLER": controller_port} if self.is_controller else {}
        )
        roles = ["broker"] * self.is_broker + ["controller"] * self.is_controller
        voter = self.voter or (self.node_id, controller_port)
        own = {
            "process.roles": ",".join(roles),
            "node.id": str(self.node_id),
            "listeners": _addresses(listeners),
            "controller.quorum.voters": f"{voter[0]}@{HOST}:{voter[1]}",
        }
        if self.is_broker:
            own["advertised.listeners"] = _addresses(open_to_clients)
        return own

    def format(self, template: Path, data: Path) -> None:
        """Make data a copy of a formatted, empty log directory, unless it is one."""
        if (data / "meta.properties").exists():
            return
        data.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template / "bootstrap.checkpoint", data / "bootstrap.checkpoint")
        meta = (template / "meta.properties").read_text()
        for name, value in (
            ("cluster.id", self.cluster_id or new_id()),
            ("directory.id", new_id()),
            ("node.id", str(self.node_id)),
        ):
            meta = re.sub(rf"(?m)^{re.escape(name)}=.*$", f"{name}={value}", meta)
        (data / "meta.properties").write_text(meta)


def _addresses(ports: dict[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())
