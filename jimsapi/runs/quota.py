"""How much a caller may ask for: messages in a time, and messages that are answered at once.

A limit is counted for each caller and contact (a shared key speaks for many contacts), or for each caller over all its
contacts (who might invent them). A message that is refused takes nothing of any limit; a run that fails has taken its
part. The counts are this process's own, and gone when it ends.
"""

import hashlib
import heapq
import math
import re
from collections.abc import Sequence

import msgspec

from jimsapi.runs.identity import Admission
from jimsapi.threads.errors import DomainError

ROOM = 100_000
"""Buckets that a rate keeps apart; beyond, callers share some."""

MAX_COUNT = 1_000_000

_UNITS = {"s": (1, "second"), "min": (60, "minute"), "h": (3600, "hour"), "day": (86_400, "day")}
_RATE = re.compile(r"([1-9][0-9]{0,6})/(s|min|h|day)", re.ASCII)

_KIN = 2
"""Bytes at the beginning of a key that all the keys of a caller have in common."""


class Rate(msgspec.Struct, frozen=True):
    """`count` messages per `unit`: s, min, h or day."""

    count: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Read a rate such as `60/min`. Raises `ValueError` that says what it must be."""
        found = _RATE.fullmatch(text.strip())
        if found is None or int(found[1]) > MAX_COUNT:
            raise ValueError(f"give a number from 1 to {MAX_COUNT} and a unit: 5/s, 60/min, 1000/h or 10000/day")
        return cls(int(found[1]), found[2])

    @property
    def seconds(self) -> int:
        """The unit's length."""
        return _UNITS[self.unit][0]

    def __str__(self) -> str:
        return f"{self.count} per {_UNITS[self.unit][1]}"


class QuotaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a caller and contact, and those of a caller over all contacts; None is no limit."""

    rate: Rate | None = None
    identity_rate: Rate | None = None
    contact_runs: int | None = None
    identity_runs: int | None = None


class Policy(msgspec.Struct, frozen=True):
    """A limit as a caller is told of it: `quota` messages in `seconds`, or at once if that is None."""

    name: str
    quota: int
    seconds: int | None


class Allowance(msgspec.Struct, frozen=True):
    """What is left of a limit. It grows by one in `seconds`, rounded up; None: when an open run ends."""

    policy: Policy
    remaining: int
    seconds: int | None


class QuotaExceeded(DomainError):
    """The caller has used up a limit, and may try again in `retry_after` seconds (whole ones, at least 1).

    `policies` are all its limits, `exhausted` those that let nothing through now.
    """

    def __init__(
        self, message: str, retry_after: int, policies: Sequence[Policy], exhausted: Sequence[Allowance]
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.policies = policies
        self.exhausted = exhausted


class Account(msgspec.Struct, frozen=True):
    """Whose limits a message counts against: the keys of its caller, and of its caller and contact."""

    identity: bytes
    contact: bytes


class RateLimit:
    """A bucket of `rate.count` tokens for each key. It is full at first and fills evenly, and a message takes a token.

    So any time of t seconds sees at most `count + count * t / rate.seconds` messages. A bucket is one number, the time
    when it is full again (GCRA). Times are counted in nanoseconds times `count`: filling by one token takes a whole
    number of these, so that nothing is rounded.

    A bucket that is full again is as good as none and is forgotten. If `room` are not full, the keys of a caller that
    have none share one (with those of a few other callers): who invents contacts gains nothing by it, and a bucket is
    never forgotten before its time.
    """

    def __init__(self, name: str, rate: Rate, *, by_contact: bool, room: int = ROOM) -> None:
        self.policy = Policy(name, rate.count, rate.seconds)
        self.by_contact = by_contact
        self._rate = rate
        self._room = room
        self._token = rate.seconds * 1_000_000_000
        self._second = rate.count * 1_000_000_000
        self._full_at: dict[bytes, int] = {}
        self._shared: dict[bytes, int] = {}
        # Every key of `_full_at` once, by a time at which its bucket may be full: not later than the true one.
        self._to_forget: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        """Buckets kept now."""
        return len(self._full_at) + len(self._shared)

    def wait(self, key: bytes, now: float) -> float:
        """Seconds until a message gets a token; 0 if it does at `now`, in seconds of a clock that never goes back."""
        return max(self._debt(key, now) - self._token * (self._rate.count - 1), 0) / self._second

    def take(self, key: bytes, now: float) -> None:
        """Take a token that is there."""
        moment = self._moment(now)
        full_at = moment + self._debt(key, now) + self._token
        if key not in self._full_at:
            self._forget(moment)
            if len(self._full_at) >= self._room:
                self._shared[key[:_KIN]] = full_at
                return
            heapq.heappush(self._to_forget, (full_at, key))
        self._full_at[key] = full_at

    def allowance(self, key: bytes, now: float) -> Allowance:
        """What is left in the bucket."""
        debt = self._debt(key, now)
        missing = -(-debt // self._token)
        until_next = debt - self._token * (missing - 1) if missing else self._token
        return Allowance(self.policy, self._rate.count - missing, _whole(until_next / self._second))

    def refusal(self, seconds: int) -> str:
        """What a caller is told that has to wait."""
        return f"Too many messages of this {_whose(self)}: at most {self._rate}; try again in {seconds} s"

    def _debt(self, key: bytes, now: float) -> int:
        """How long the key's bucket needs to be full."""
        full_at = self._full_at.get(key)
        if full_at is None:
            full_at = self._shared.get(key[:_KIN], 0)
        return max(full_at - self._moment(now), 0)

    def _moment(self, now: float) -> int:
        return int(now * 1_000_000_000) * self._rate.count

    def _forget(self, moment: int) -> None:
        """Forget buckets that are full: a few at a time, so that no caller waits for many."""
        for _ in range(8):
            if not self._to_forget or self._to_forget[0][0] > moment:
                return
            key = self._to_forget[0][1]
            full_at = self._full_at[key]
            if full_at > moment:
                heapq.heapreplace(self._to_forget, (full_at, key))
            else:
                heapq.heappop(self._to_forget)
                del self._full_at[key]


class RunLimit:
    """At most `count` open runs for each key."""

    def __init__(self, name: str, count: int, *, by_contact: bool) -> None:
        self.policy = Policy(name, count, None)
        self.by_contact = by_contact
        self._open: dict[bytes, int] = {}

    def __len__(self) -> int:
        """Keys with an open run."""
        return len(self._open)

    def wait(self, key: bytes, now: float) -> float:
        """0 if another run may open; else seconds after which to try again, since nobody knows when a run ends."""
        return 0.0 if self._open.get(key, 0) < self.policy.quota else 1.0

    def take(self, key: bytes, now: float) -> None:
        """A run opens."""
        self._open[key] = self._open.get(key, 0) + 1

    def give_back(self, key: bytes) -> None:
        """A run has ended."""
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]

    def allowance(self, key: bytes, now: float) -> Allowance:
        """How many runs may open beside those that are open."""
        return Allowance(self.policy, self.policy.quota - self._open.get(key, 0), None)

    def refusal(self, seconds: int) -> str:
        """What a caller is told that has to wait."""
        whose, count = _whose(self), self.policy.quota
        return f"Too many messages of this {whose} are being answered: at most {count} at once; try again later"


Limit = RateLimit | RunLimit


class Quota:
    """All limits together: a message passes every one of them, or takes nothing of any."""

    def __init__(self, limits: QuotaLimits, room: int = ROOM) -> None:
        self._limits: list[Limit] = []
        if limits.rate is not None:
            self._limits.append(RateLimit("contact", limits.rate, by_contact=True, room=room))
        if limits.identity_rate is not None:
            self._limits.append(RateLimit("identity", limits.identity_rate, by_contact=False, room=room))
        if limits.contact_runs is not None:
            self._limits.append(RunLimit("contact-runs", limits.contact_runs, by_contact=True))
        if limits.identity_runs is not None:
            self._limits.append(RunLimit("identity-runs", limits.identity_runs, by_contact=False))
        self.policies = tuple(limit.policy for limit in self._limits)

    def take(self, admission: Admission, contact_id: str, now: float) -> Account:
        """Let a message through; `give_back` its account when its run has ended.

        Raises:
            QuotaExceeded: a limit is used up.
        """
        account = account_of(admission, contact_id)
        limits = self._limits_of(account)
        waits = [limit.wait(key, now) for limit, key in limits]
        longest = max(waits)
        if longest:
            seconds = _whole(longest)
            message = limits[waits.index(longest)][0].refusal(seconds)
            exhausted = [limit.allowance(key, now) for (limit, key), wait in zip(limits, waits, strict=True) if wait]
            raise QuotaExceeded(message, seconds, self.policies, exhausted)
        for limit, key in limits:
            limit.take(key, now)
        return account

    def give_back(self, account: Account) -> None:
        """The run of a message that was let through has ended, however it did. Its token stays taken."""
        for limit, key in self._limits_of(account):
            if isinstance(limit, RunLimit):
                limit.give_back(key)

    def allowances(self, account: Account, now: float) -> Sequence[Allowance]:
        """What is left of each limit."""
        return [limit.allowance(key, now) for limit, key in self._limits_of(account)]

    def _limits_of(self, account: Account) -> list[tuple[Limit, bytes]]:
        return [(limit, account.contact if limit.by_contact else account.identity) for limit in self._limits]


def account_of(admission: Admission, contact_id: str) -> Account:
    """The keys of a caller, and of a caller and contact: digests, since names may be long and many."""
    caller = repr((admission.provider, admission.identity.subject))
    identity = hashlib.blake2b(caller.encode(), digest_size=16).digest()
    contact = hashlib.blake2b(contact_id.encode(), digest_size=16, key=identity).digest()
    return Account(identity, identity[:_KIN] + contact)


def _whose(limit: Limit) -> str:
    return "contact" if limit.by_contact else "caller"


def _whole(seconds: float) -> int:
    """Seconds as HTTP writes them: rounded up, and never 0."""
    return max(math.ceil(seconds), 1)
