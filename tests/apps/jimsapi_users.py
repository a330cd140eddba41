"""An auth plugin for tests: the header `x-user` names one of a few people, each with other rights."""

from jimsapi import AccessDenied, AuthUnavailable, Connection, Identity, InvalidCredentials, hookimpl

PEOPLE = {
    "ann": Identity("ann", contact_id="ann"),
    "bea": Identity("bea", contact_id="bea"),
    "blank": Identity("blank", contact_id=""),
    "ann-talks": Identity("ann-talks", contact_id="ann", scopes={"chat"}),
    "talker": Identity("talker", scopes={"chat"}),
    "reader": Identity("reader", scopes={"threads"}),
    "nobody": Identity("nobody", scopes=()),
    "root": Identity("root"),
}


class Users:
    name, challenge = "users", 'Test realm="people"'

    async def authenticate(self, connection: Connection) -> Identity | None:
        user = connection.headers.get("x-user")
        if user == "denied":
            raise AccessDenied("ann may not enter")
        if user == "down":
            raise AuthUnavailable("the directory is away")
        if user == "broken":
            raise RuntimeError("password=hunter2")
        if user == "odd":
            return "root"  # type: ignore[return-value] # what a careless plugin does
        if user == "wrong":
            raise InvalidCredentials("no such user")
        return None if user is None else PEOPLE[user]


@hookimpl
def jimsapi_auth_provider() -> Users:
    return Users()
