"""mosquitto as a child process with a generated configuration, on loopback and without identities for now.

The certificates and rules of a real network come with `fleet serve --listen`; until then tests alone use this, so
that nothing depends on one broker's habits.
"""

import os
import shutil
from typing import ClassVar

from fleet.broker.process import BrokerProcess
from lepton_edge import durable
from lepton_edge.errors import ConnectionFailedError
from lepton_edge.wire.messages import MAX_PAYLOAD

# max_queued_messages stays at mosquitto's 1000: the pace of transfers must live with what operators run.
_CONFIGURATION = """\
listener {port} {host}
allow_anonymous true
persistence true
persistence_location {folder}/
message_size_limit {payload}
set_tcp_nodelay true
log_type error
log_type warning
"""


def mosquitto_path() -> str:
    """Where mosquitto is; servers often hide it in sbin.

    Raises:
        ConnectionFailedError: it is not installed.
    """
    path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    if path is None:
        raise ConnectionFailedError("mosquitto is not installed here: apt install mosquitto")
    return path


class MosquittoBroker(BrokerProcess):
    """mosquitto 2.x."""

    name: ClassVar[str] = "mosquitto"

    def command(self) -> list[str]:
        path = self.folder / "mosquitto.conf"
        text = _CONFIGURATION.format(host=self.host, port=self.port, folder=self.folder, payload=MAX_PAYLOAD)
        if os.geteuid() == 0:
            text += "user root\n"  # else it becomes a user who may not read the folder
        durable.write(path, text.encode())
        return [mosquitto_path(), "-c", str(path)]
