"""Somebody who chats by one connection and looks at the clock."""

import http.client
import json
import time

from benchmarks.answers import WITH_KEY


class Caller:
    """A caller with one keep-alive connection to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __call__(self, contact_id: str, *, new: bool = False) -> float:
        """Chat as a contact, who has a thread unless it is `new`. Returns the seconds until the answer was read.

        Raises `RuntimeError` for another answer.
        """
        body = json.dumps({"contact_id": contact_id, "message": "Hello?"})
        began = time.perf_counter()
        self._connection.request("POST", "/api/v1/chat", body, WITH_KEY)
        answer = self._connection.getresponse()
        text = answer.read()
        seconds = time.perf_counter() - began
        if answer.status != 200 or json.loads(text)["created_new_thread"] != new:
            raise RuntimeError(f"the chat of {contact_id!r} was answered {answer.status}: {text.decode()}")
        return seconds
