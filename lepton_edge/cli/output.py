"""What all commands share: errors to exit statuses, JSON to stdout, the rest to stderr."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import click
import msgspec

from lepton_edge.errors import LeptonError, RuntimeUnavailableError
from lepton_edge.extras import advice

PROGRAM = "lepton-edge"


class ErrorCommand(click.Command):
    """A command with `-v` and `--json`, whose errors are one line and an exit status (a traceback with -v)."""

    json_option: ClassVar[bool] = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["-v", "--verbose"], is_flag=True, help="Log more; show tracebacks."))
        if self.json_option:
            self.params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document."))

    def invoke(self, ctx: click.Context) -> Any:
        verbose = bool(ctx.params.pop("verbose", False))
        ctx.obj = Output(as_json=bool(ctx.params.pop("as_json", False)), verbose=verbose)
        logging.basicConfig(
            stream=sys.stderr,
            level=logging.DEBUG if verbose else logging.WARNING,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        try:
            return super().invoke(ctx)
        except LeptonError as error:
            if verbose:
                logging.getLogger(PROGRAM).exception("failed")
            click.echo(f"{PROGRAM}: {error}", err=True)
            ctx.exit(error.exit_status)
        except ModuleNotFoundError as error:
            if verbose or not advice(error):
                raise
            click.echo(f"{PROGRAM}: {advice(error)}", err=True)
            ctx.exit(RuntimeUnavailableError.exit_status)
        except KeyboardInterrupt:
            click.echo(f"{PROGRAM}: interrupted", err=True)
            ctx.exit(130)


class ServiceCommand(ErrorCommand):
    """A command that runs until stopped, and prints one JSON line when ready."""

    json_option = False


class Output:
    """How a command answers; commands get it with `click.pass_obj`."""

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        self.as_json = as_json
        self.verbose = verbose

    def document(self, value: object, *, text: str = "") -> None:
        """The command's result: `value` as one JSON document with --json, else `text`, on stdout."""
        click.echo(msgspec.json.encode(value).decode() if self.as_json else text, nl=self.as_json or bool(text))

    def note(self, text: str) -> None:
        """Something for a person, on stderr."""
        click.echo(text, err=True)


@contextmanager
def stopping_politely() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that scratch folders go; only where signals can be caught."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def printable(text: str) -> str:
    """`text` without control characters: what a device or a file says must not steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
