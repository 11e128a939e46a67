"""HTTP that cannot even be parsed, such as a URL beyond all limits: refused before there is a request to route."""

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api import problems


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, whose own refusal speaks in the one shape of errors."""

    def send_400_response(self, msg: str) -> None:
        answer = problems.problem(
            {},
            kind="malformed",
            title="The request is malformed.",
            status=400,
            detail="this is not HTTP as it should be",
        )
        lines = [STATUS_LINE[400]]
        lines += [b"%s: %s\r\n" % header for header in answer.raw_headers]
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", bytes(answer.body)]))
        self.transport.close()
