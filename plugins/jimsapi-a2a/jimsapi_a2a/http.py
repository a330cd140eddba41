"""The HTTP+JSON binding (specification, section 11): a path for each method."""

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from jimsapi.asgi import ErrorResponse, HTTPError, Request, Response
from jimsapi.runs import RunService
from jimsapi.threads import DomainError
from jimsapi.wire import read_json
from jimsapi_a2a.encoding import Binding, Encoder, json_response, with_headers
from jimsapi_a2a.errors import A2AError, of_answer
from jimsapi_a2a.methods import Methods, check_version
from jimsapi_a2a.parts import JSON

A2A_JSON = "application/a2a+json"

_BINDING = Binding(A2A_JSON, lambda value: value, lambda error: error.in_http(), b"error", has_statuses=True)
_BINDING_AS_JSON = msgspec.structs.replace(_BINDING, content_type=JSON)
_VARY = (b"vary", b"accept")


class HttpBinding:
    """Calls methods for requests of the binding."""

    def __init__(self, service: RunService, methods: Methods) -> None:
        self._service = service
        self._methods = methods

    async def call(
        self,
        request: Request,
        name: str,
        named: Mapping[str, Any],
        *,
        query: type[msgspec.Struct] | None = None,
        needs_body: bool = False,
    ) -> Response:
        """Answer a request with the method `name`. `named` are the parameters in its path, `query` those in its query.

        A body, which only some methods need, has the others.
        """
        encoder = Encoder(request, self._service, _BINDING_AS_JSON if _prefers_json(request) else _BINDING)
        response = await self._answer(request, name, named, encoder, query, needs_body)
        response.raw_headers.append(_VARY)
        return response

    async def _answer(
        self,
        request: Request,
        name: str,
        named: Mapping[str, Any],
        encoder: Encoder,
        query: type[msgspec.Struct] | None,
        needs_body: bool,
    ) -> Response:
        try:
            check_version(request)
            params: Any = {}
            if needs_body or request.unread:
                params = await read_json(request, self._service)
            elif query is not None:
                params = msgspec.to_builtins(request.typed_query(query))
            if isinstance(params, dict):
                params.update(named)
            return encoder.response(await self._methods.table[name](request, params))
        except (A2AError, DomainError, HTTPError) as error:
            return encoder.error(error)


def _prefers_json(request: Request) -> bool:
    """Return whether a client wants `application/json`, the type of A2A 1.0.0, rather than that of A2A.

    1.0.1 says that the latter should be used (section 11.1), so it is for all clients that accept both alike.
    """
    qualities = request.accepted_types()
    general = qualities.get("application/*", qualities.get("*/*", 0.0))
    return qualities.get(JSON, general) > qualities.get(A2A_JSON, general)


def reword(answer: Response) -> Response:
    """Return an error that comes before a method, such as 401, in the form of A2A."""
    content = answer.content if isinstance(answer, ErrorResponse) else orjson.loads(answer.body or b"{}")
    headers = [pair for pair in answer.raw_headers if pair[0] not in (b"content-length", b"content-type")]
    error = of_answer(answer.status, content, headers)
    response = with_headers(json_response(error.in_http(), answer.status, A2A_JSON), error)
    response.names_connection = answer.names_connection
    return response
