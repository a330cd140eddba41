"""The reasons why a token is rejected: a message for the log, and one of a few labels for the metrics."""

from collections.abc import Collection

from jimsapi import AccessDenied, AuthUnavailable, InvalidCredentials


class TokenInvalid(InvalidCredentials):
    """The token names the issuer and is not valid. `reason` is its label in the metrics."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TokenDenied(AccessDenied):
    """The token is valid, but lacks the contact, or a scope: clients then request a token with `scopes`."""

    def __init__(self, reason: str, message: str, scopes: Collection[str] = ()) -> None:
        super().__init__(message, scopes=scopes)
        self.reason = reason


class KeysUnavailable(AuthUnavailable):
    """The issuer's keys are not available, so the token cannot be verified."""

    reason = "unavailable"
