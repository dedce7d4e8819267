"""The broker child's program: serves a rumqttd configuration until its parent goes away.

Run as `python -m fleet.broker.child CONFIGURATION`. The parent holds the other end of stdin; when that closes, however
the parent ended, this process ends too.
"""

import logging
import os
import sys
import threading

from iotcore.iotcore import IotCoreBroker


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)  # rumqttd has no way to stop; it holds nothing that would need it


def main() -> None:
    """Serve until the end of stdin or a signal."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # rumqttd traces every packet inside error spans, which arrive here as ERROR records.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    IotCoreBroker(config_path=sys.argv[1]).run_forever()


if __name__ == "__main__":
    main()
