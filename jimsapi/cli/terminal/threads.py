"""The list of a contact's threads, from the API."""

from datetime import datetime
from uuid import UUID

import httpx
import msgspec

from jimsapi.client.answers import decode
from jimsapi.client.call import unreachable
from jimsapi.client.errors import answered_error

MOST = 20
"""Threads of a contact in a list, the newest ones."""
ANSWER_WITHIN = 5.0
"""Seconds."""


class Thread(msgspec.Struct):
    """A thread, as a list shows it."""

    thread_id: UUID
    contact_id: str | None
    title: str | None
    active_at: datetime | None


class _Page(msgspec.Struct):
    threads: list[Thread]


class Threads:
    """Lists threads of a server. The key needs the scope `threads`."""

    def __init__(self, http: httpx.Client, url: str, api_key: str | None) -> None:
        self._http = http
        self._url = f"{url.rstrip('/')}/api/v1/threads"
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}

    def newest(self, contact_id: str | None) -> list[Thread]:
        """Return the newest threads of a contact; None is the contact of the key. Raises `ClientError`."""
        query = {"archived": "false", "limit": str(MOST), **({} if contact_id is None else {"contact_id": contact_id})}
        try:
            answer = self._http.get(self._url, params=query, headers=self._headers, timeout=ANSWER_WITHIN)
        except httpx.RequestError as error:
            raise unreachable(error) from error
        if answer.status_code != 200:
            raise answered_error(answer.status_code, answer.headers, answer.content)
        return decode(answer.content, _Page).threads
