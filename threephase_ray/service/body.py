"""What a request meets first, in the proxy: its body is read, up to the limit, before it takes a place in any queue."""

import asyncio
import contextlib
import os

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from threephase_ray.serving import Limits

_LIMITS = "THREEPHASE_LIMITS"
_LINGER = 5.0  # seconds in which a client may end what it sends in vain
_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"


def environment(limits: Limits) -> dict[str, str]:
    """What must stand in the environment of the proxies."""
    return {_CALLBACK: f"{__name__}.{middleware.__name__}", _LIMITS: limits.model_dump_json()}


def middleware() -> list[Middleware]:
    """What a proxy puts before its own work."""
    return [Middleware(Bounded, limits=Limits.model_validate_json(os.environ[_LIMITS]))]


class Refused(Exception):
    """A request that goes no further: status and reason."""


class Bounded:
    """Hands on requests together with all of their body; answers itself those too large, too slow or too many."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        """`app` is what comes behind."""
        self._app, self._limits = app, limits
        self._arriving = 0  # requests whose bodies are being read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            message = await self._arrived(int(Headers(scope=scope).get("content-length", 0)), receive)
        except Refused as refusal:
            status, reason = refusal.args
            await _answer(status, reason, receive, send)
            return
        await self._app(scope, _beginning_with(message, receive), send)

    async def _arrived(self, declared: int, receive: Receive) -> Message:
        """The whole body in one message, or that the client is gone."""
        if self._arriving >= self._limits.waiting:
            raise Refused(503, "too many requests at once")
        self._arriving += 1
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await self._read(declared, receive)
        except TimeoutError:
            raise Refused(408, f"the request did not arrive within {self._limits.timeout_s:g} s") from None
        finally:
            self._arriving -= 1

    async def _read(self, declared: int, receive: Receive) -> Message:
        """The same, without looking at the time."""
        body = bytearray()
        while max(declared, len(body)) <= self._limits.body_bytes:
            message = await receive()
            if message["type"] != "http.request":
                return message
            body += message.get("body", b"")
            if not message.get("more_body", False) and len(body) <= self._limits.body_bytes:
                return {"type": "http.request", "body": bytes(body), "more_body": False}
        raise Refused(413, f"the body is larger than {self._limits.body_bytes} bytes")


async def _answer(status: int, reason: str, receive: Receive, send: Send) -> None:
    """Answer, read on for a moment, then close: a client that is still sending would lose the answer together with the connection."""
    response = JSONResponse({"detail": reason}, status, {"connection": "close"})
    await send({"type": "http.response.start", "status": status, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            while (await receive()).get("more_body", False):
                continue
    await send({"type": "http.response.body"})


def _beginning_with(message: Message, receive: Receive) -> Receive:
    """`receive`, but the message comes first."""
    ahead = [message]

    async def first() -> Message:
        return ahead.pop() if ahead else await receive()

    return first
