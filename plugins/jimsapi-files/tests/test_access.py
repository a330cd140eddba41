"""Each route is asked for the file of another contact, without a scope, and by a caller that is bound to no contact."""

from typing import Any

import httpx
import pytest
from filing import PATH, stored, upload

from jimsapi.asgi.testing import TestClient

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("people")]

SECRET = b"the secret of ann"


def caller(user: str | None) -> dict[str, str]:
    return {} if user is None else {"x-user": user}


async def of_ann(client: TestClient) -> str:
    return await stored(client, SECRET, headers=caller("root"))


async def statuses(client: TestClient, file_id: str, user: str | None, params: dict[str, str]) -> list[int]:
    """What a caller is told when it reads, asks for the head of, and deletes a file. What it may delete is put back."""
    found = []
    for method in ("GET", "HEAD", "DELETE"):
        answer = await client.request(method, f"{PATH}/{file_id}", params=params, headers=caller(user))
        found.append(answer.status_code)
        allowed = answer.status_code in (200, 204)
        assert (SECRET in answer.content) is (allowed and method == "GET")
    await stored(client, SECRET, headers=caller("root"))
    return found


ANN, BEA, NOBODY = {"contact_id": "ann"}, {"contact_id": "bea"}, dict[str, str]()
ALLOWED, HIDDEN = [200, 200, 204], [404] * 3


@pytest.mark.parametrize(
    ("user", "params", "expected"),
    [
        ("ann", NOBODY, ALLOWED),
        ("ann", ANN, ALLOWED),
        ("ann", BEA, HIDDEN),
        ("ann-talks", NOBODY, ALLOWED),
        ("ann-talks", BEA, HIDDEN),
        ("bea", NOBODY, HIDDEN),
        ("bea", ANN, HIDDEN),
        ("bea", BEA, HIDDEN),
        ("blank", NOBODY, HIDDEN),
        ("blank", ANN, HIDDEN),
        ("root", NOBODY, ALLOWED),
        ("root", ANN, ALLOWED),
        ("root", BEA, HIDDEN),
        ("reader", NOBODY, ALLOWED),
        ("reader", BEA, HIDDEN),
        ("talker", NOBODY, HIDDEN),
        ("talker", ANN, ALLOWED),
        ("talker", BEA, HIDDEN),
        ("talker", {"contact_id": ""}, HIDDEN),
        ("talker", {"contact_id": "ANN"}, HIDDEN),
        ("nobody", NOBODY, [403] * 3),
        ("nobody", ANN, [403] * 3),
        ("wrong", ANN, [401] * 3),
        ("denied", ANN, [403] * 3),
        ("down", ANN, [503] * 3),
        (None, ANN, [401] * 3),
    ],
)
async def test_a_file_is_there_only_for_its_contact_and_for_who_may_see_all(
    client: TestClient, user: str | None, params: dict[str, str], expected: list[int]
) -> None:
    assert await statuses(client, await of_ann(client), user, params) == expected


@pytest.mark.parametrize("user", ["bea", "blank", "talker", "nobody", "wrong", None])
async def test_who_may_not_read_a_file_cannot_tell_that_it_is_there(client: TestClient, user: str | None) -> None:
    file_id = await of_ann(client)
    for method in ("GET", "HEAD", "DELETE"):
        there, not_there = [
            await client.request(method, f"{PATH}/{one}", headers=caller(user)) for one in (file_id, "0" * 64)
        ]
        assert said(there) == said(not_there)
    assert (await client.get(f"{PATH}/{file_id}", headers=caller("ann"))).content == SECRET


def said(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, answer.content, headers


@pytest.mark.parametrize(
    ("user", "contact", "status"),
    [
        ("ann", None, 201),
        ("ann", "ann", 201),
        ("ann", "bea", 403),
        ("ann", "", 403),
        ("ann-talks", None, 201),
        ("ann-talks", "bea", 403),
        ("blank", None, 201),
        ("blank", "ann", 403),
        ("root", "ann", 201),
        ("root", None, 422),
        ("talker", "ann", 201),
        ("talker", None, 422),
        ("reader", "ann", 403),
        ("nobody", "ann", 403),
        ("wrong", "ann", 401),
        (None, "ann", 401),
    ],
)
async def test_a_file_is_stored_only_for_a_contact_that_the_caller_may_act_for(
    client: TestClient, user: str | None, contact: str | None, status: int
) -> None:
    answer = await upload(client, contact=contact, headers=caller(user))
    assert answer.status_code == status, answer.text
    if status == 403:
        bound = {"ann", "ann-talks", "blank"}
        reason = "These credentials are for another contact_id" if user in bound else "lack the scope chat"
        assert reason in answer.json()["detail"]


@pytest.mark.parametrize(
    ("user", "params", "status", "count"),
    [
        ("ann", NOBODY, 200, 1),
        ("ann", ANN, 200, 1),
        ("ann", BEA, 403, None),
        ("ann-talks", NOBODY, 200, 1),
        ("bea", NOBODY, 200, 0),
        ("bea", ANN, 403, None),
        ("root", ANN, 200, 1),
        ("root", NOBODY, 422, None),
        ("reader", ANN, 200, 1),
        ("talker", ANN, 403, None),
        ("nobody", ANN, 403, None),
        (None, ANN, 401, None),
    ],
)
async def test_a_list_has_the_files_of_one_contact_that_the_caller_may_see(
    client: TestClient, user: str | None, params: dict[str, str], status: int, count: int | None
) -> None:
    file_id = await of_ann(client)
    answer = await client.get(PATH, params=params, headers=caller(user))
    assert answer.status_code == status
    assert (file_id in answer.text) is (count == 1)
    if count is not None:
        assert len(answer.json()["files"]) == count


async def test_a_body_is_not_read_before_the_caller_is_admitted(client: TestClient) -> None:
    read = False

    async def body() -> Any:
        nonlocal read
        read = True
        yield b"x"

    for user, status in ((None, 401), ("nobody", 403), ("reader", 403)):
        assert (await upload(client, body(), headers=caller(user))).status_code == status
    assert not read


async def test_the_same_file_of_two_contacts_is_two_files(client: TestClient) -> None:
    own = await stored(client, SECRET, contact=None, headers=caller("bea"))
    assert own != await of_ann(client)
    assert (await client.delete(f"{PATH}/{own}", headers=caller("bea"))).status_code == 204
    assert (await client.get(f"{PATH}/{await of_ann(client)}", headers=caller("ann"))).content == SECRET
