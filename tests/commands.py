"""The `azimuth` command in this process, and a client of a service that a function plays."""

import io
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import httpx
from typer.testing import CliRunner, Result

from service.cli import app
from service.client.http_client import Client


@contextmanager
def logging_kept() -> Iterator[None]:
    """A command configures logging for its process; the handlers of the tests are not its to close."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


def azimuth(*arguments: object, given: str | None = None) -> Result:
    """Run the command on a wide terminal. What it raises, except its exit code, is raised here, too."""
    with logging_kept():
        done = CliRunner().invoke(app.app, list(map(str, arguments)), input=given, env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def run_azimuth(arguments: Sequence[str], given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """What a process of the command would end with and print: this one has imported everything already."""
    code: object = 0
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(given.encode())))
    with CliRunner().isolation(env={"COLUMNS": "200", **environment}) as (stdout, stderr, _), logging_kept():
        with mock.patch.multiple(sys, argv=["azimuth", *arguments], stdin=stdin):
            try:
                app.main()
            except SystemExit as ended:
                code = ended.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        shown = [stream.getvalue().decode() for stream in (stdout, stderr)]
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, *shown)


def connected(service: Callable[[httpx.Request], httpx.Response]) -> Client:
    client = Client("http://t")
    client._http._transport = httpx.MockTransport(service)
    return client
