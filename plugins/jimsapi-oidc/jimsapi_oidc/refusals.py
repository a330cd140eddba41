"""Why a token lets nobody in: for the log a sentence, for the metrics one word of a fixed few."""

from jimsapi import AccessDenied, AuthUnavailable, InvalidCredentials


class TokenInvalid(InvalidCredentials):
    """The token is the issuer's, or says so, and is not acceptable. `reason` is its label in the metrics."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TokenDenied(AccessDenied):
    """The token is genuine and lacks what its holder needs to enter."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class KeysUnavailable(AuthUnavailable):
    """The issuer's keys are not known, so that nothing can be said of a token."""

    reason = "unavailable"
