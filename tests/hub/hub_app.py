"""The test Hub as an ASGI application: requests, faults, answers."""

import asyncio
import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote

import hub_files
import hub_repos
from hub_answers import Answer, Refusal
from hub_faults import Faults
from hub_state import Hub, Seen

PIECE = 65536


@dataclass(frozen=True)
class Request:
    """A request. A slash within a name is still written %2F in its path."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


@dataclass
class App:
    """The application. Its state is plain objects, so that a test can inspect and change them."""

    state: Hub = field(default_factory=Hub)
    faults: Faults = field(default_factory=Faults)

    async def __call__(self, scope, receive, send):
        assert scope["type"] == "http"
        method, raw = scope["method"], scope["raw_path"].decode()
        path = unquote(raw)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        fault = self.faults.of(method, path)
        # uvicorn gives no other way to close a connection in the middle
        cut = receive.__self__.transport.abort
        if fault and fault.cut == "before":
            cut()
            return
        body = await self._read(receive, fault)
        query = scope["query_string"].decode()
        self.state.seen.append(Seen(method, path, query, headers, body))
        if fault and fault.cut == "middle":
            cut()
            return
        if fault and fault.status:
            answer = Answer(
                fault.status,
                {"error": fault.message},
                {"X-Error-Message": fault.message, **fault.headers} if fault.message else fault.headers,
            )
        else:
            request = Request(method, raw.strip("/"), parse_qs(query), headers, body)
            answer = self._answer(request)
        if fault and fault.cut == "after":
            cut()
            return
        await _send(send, method, answer)

    async def _read(self, receive, fault):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if fault and fault.slow:
                await asyncio.sleep(fault.slow)
            if fault and fault.cut == "middle" and len(body) > 0:
                return body
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return body

    def _answer(self, request):
        routes = [*hub_repos.ROUTES, *hub_files.ROUTES]
        try:
            for method, pattern, handle in routes:
                found = re.fullmatch(pattern, request.path)
                if found and request.method in method.split():
                    given = {key: unquote(value) for key, value in found.groupdict().items() if value}
                    return handle(self.state, request, **given)
        except Refusal as refusal:
            return refusal.answer
        return Answer(404, {"error": "Sorry, we can't find the page you are looking for."})


async def _send(send, method, answer):
    body, headers = answer.encoded()
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers
            ],
        }
    )
    pieces = [] if method == "HEAD" else [body[i : i + PIECE] for i in range(0, len(body), PIECE)]
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
