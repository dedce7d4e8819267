"""The broker's URL, as enrolments and commands name it."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from lepton_edge.errors import NotYetSupportedError, UsageError

DEFAULT_PORT = 1883


@dataclass(frozen=True)
class BrokerAddress:
    """Where a broker listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt://{host}:{self.port}"


def parse_broker(url: str) -> BrokerAddress:
    """Read mqtt://HOST[:PORT].

    Raises:
        NotYetSupportedError: TLS.
        UsageError: another scheme, or no host.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as cause:
        raise UsageError(f"broker {url!r}: {cause}") from cause
    if parts.scheme == "mqtts":
        raise NotYetSupportedError(f"broker {url!r}: not yet: TLS to the broker; use mqtt://HOST:PORT")
    if parts.scheme != "mqtt" or not host:
        raise UsageError(f"broker {url!r}: expected mqtt://HOST:PORT")
    return BrokerAddress(host, port or DEFAULT_PORT)
