"""Which contact's files a caller may store, list, read and delete."""

from typing import cast

from jimsapi.asgi import Request, ValidationError
from jimsapi.runs import CHAT, THREADS, Admission, ContactForbidden, Identity, ScopeMissing, check_contact_id
from jimsapi.threads import StoredFileNotFound


def contact_of_new(request: Request, named: str | None) -> str:
    """Return the contact for which a caller stores a file. `named` is the contact that the request names.

    Raises `ContactForbidden` if the caller is bound to another contact, `ValidationError` if neither the caller nor the
    request names one, and `InputRefused` for an invalid one.
    """
    own = _identity(request).contact_id
    if own is not None and named not in (None, own):
        raise ContactForbidden
    contact_id = own if named is None else named
    if contact_id is None:
        loc = ["query", "contact_id"]
        raise ValidationError([{"type": "missing", "loc": loc, "msg": "Field required", "input": None}])
    check_contact_id(contact_id)
    request.person = contact_id
    return contact_id


def contact_of_list(request: Request, named: str | None) -> str:
    """Return the contact whose files a caller may list. Raises as `contact_of_new` does, and `ScopeMissing`.

    A caller that is bound to no contact needs the scope `threads`, as for the list of a contact's threads.
    """
    identity = _identity(request)
    _require_scope(identity)
    if identity.contact_id is None and not identity.may(THREADS):
        raise ScopeMissing(THREADS)
    return contact_of_new(request, named)


def contact_of_file(request: Request, named: str | None) -> str | None:
    """Return the contact whose file a caller may read or delete by its identifier; None for any contact.

    A caller that is bound to no contact and lacks the scope `threads` must name the contact of the file. Raises
    `StoredFileNotFound` if the caller may use no file, so that it does not learn which files exist, and `ScopeMissing`
    if it has neither `chat` nor `threads`.
    """
    identity = _identity(request)
    _require_scope(identity)
    if identity.contact_id is not None:
        if named not in (None, identity.contact_id):
            raise StoredFileNotFound
        return identity.contact_id
    if named is None and not identity.may(THREADS):
        raise StoredFileNotFound
    if named is not None:
        request.person = named
    return named


def _identity(request: Request) -> Identity:
    return cast(Admission, request.admission).identity


def _require_scope(identity: Identity) -> None:
    if not (identity.may(CHAT) or identity.may(THREADS)):
        raise ScopeMissing(CHAT)
