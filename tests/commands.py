"""The `azimuth` command in this process, and a client of a service that a function plays."""

from collections.abc import Callable

import httpx
from typer.testing import CliRunner, Result

from service.cli import app
from service.client.http_client import Client


def azimuth(*arguments: object, given: str | None = None) -> Result:
    """Run the command on a wide terminal. What it raises, except its exit code, is raised here, too."""
    done = CliRunner().invoke(app.app, list(map(str, arguments)), input=given, env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def connected(service: Callable[[httpx.Request], httpx.Response]) -> Client:
    client = Client("http://t")
    client._http._transport = httpx.MockTransport(service)
    return client
