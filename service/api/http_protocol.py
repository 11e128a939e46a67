"""HTTP that cannot be parsed, such as a URL beyond all limits: refused before there is a request to route."""

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api import problems, web_security


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with refusals in the one shape of errors."""

    def send_400_response(self, msg: str) -> None:
        response = problems.problem_response(
            {}, kind="malformed", title="The request is malformed.", status=400, detail="the request is not valid HTTP"
        )
        lines = [STATUS_LINE[400]]
        response.headers.update(web_security.HEADERS)
        lines += [b"%s: %s\r\n" % header for header in response.raw_headers]
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", bytes(response.body)]))
        self.transport.close()
