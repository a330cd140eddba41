"""The limits of a caller: messages per time, and open runs. `jimsapi.runs.spending` checks its budgets.

A limit counts either for each pair of caller and contact, or for each caller over all its contacts. The first kind is
for keys that many contacts share. The second kind limits callers that invent contacts. A rejected message does not
count against any limit. A run that fails does. Each process counts for itself, and the counts end with the process;
`jimsapi.runs.shared_quota` adds what other replicas count.
"""

import hashlib
import heapq
import math
import re
from collections.abc import Sequence

import msgspec

from jimsapi.runs.admission import Admission
from jimsapi.runs.budget import Budget
from jimsapi.threads.errors import DomainError

ROOM = 100_000
"""The number of buckets of a rate limit. If there are more keys, some callers share a bucket."""

MAX_COUNT = 1_000_000

_UNITS = {"s": (1, "second"), "min": (60, "minute"), "h": (3600, "hour"), "day": (86_400, "day")}
_RATE = re.compile(r"([1-9][0-9]{0,6})/(s|min|h|day)", re.ASCII)

_CALLER_BYTES = 2
"""The number of bytes at the beginning of a key that all keys of a caller share."""


class Rate(msgspec.Struct, frozen=True):
    """`count` messages per `unit`: s, min, h or day."""

    count: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Read a rate such as `60/min`. Raises `ValueError` with the valid form if it is invalid."""
        found = _RATE.fullmatch(text.strip())
        if found is None or int(found[1]) > MAX_COUNT:
            raise ValueError(f"give a number from 1 to {MAX_COUNT} and a unit: 5/s, 60/min, 1000/h or 10000/day")
        return cls(int(found[1]), found[2])

    @property
    def seconds(self) -> int:
        """The length of the unit in seconds."""
        return _UNITS[self.unit][0]

    def __str__(self) -> str:
        return f"{self.count} per {_UNITS[self.unit][1]}"


class QuotaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of each caller and contact (`rate`, `contact_runs`, the budgets), and those of each caller.

    None means no limit.
    """

    rate: Rate | None = None
    identity_rate: Rate | None = None
    contact_runs: int | None = None
    identity_runs: int | None = None
    token_budget: Budget | None = None
    cost_budget: Budget | None = None

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The budgets that are set."""
        return tuple(budget for budget in (self.token_budget, self.cost_budget) if budget is not None)


class Policy(msgspec.Struct, frozen=True):
    """A limit as answers describe it: `quota` messages in `seconds`. If `seconds` is None, `quota` open runs.

    Budgets have a `unit` that `quota` counts in place of messages.
    """

    name: str
    quota: int
    seconds: int | None
    unit: str | None = None


def budget_policy(budget: Budget) -> Policy:
    """Return a budget as answers describe it."""
    return Policy(budget.name, budget.amount, budget.seconds, budget.unit)


class Allowance(msgspec.Struct, frozen=True):
    """The remaining messages of a limit. One more is available in `seconds` (rounded up).

    If `seconds` is None, one more is available when an open run ends. Of a budget, all is available in `seconds`.
    """

    policy: Policy
    remaining: int
    seconds: int | None


class QuotaExceeded(DomainError):
    """The caller has reached a limit, and may try again in `retry_after` seconds (an integer, at least 1).

    `policies` are all its limits, and `exhausted` those that reject the message.
    """

    def __init__(
        self, message: str, retry_after: int, policies: Sequence[Policy], exhausted: Sequence[Allowance]
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.policies = policies
        self.exhausted = exhausted


class QuotaKeys(msgspec.Struct, frozen=True):
    """The keys under which a message is counted: one for its caller, and one for its caller and contact."""

    identity: bytes
    contact: bytes


class RateLimit:
    """A token bucket of `rate.count` tokens for each key. It starts full and fills evenly. A message takes one token.

    In t seconds, at most `count + count * t / rate.seconds` messages get a token. A bucket is stored as one number, the
    time at which it is full again (GCRA, the generic cell rate algorithm). Times are integers, in nanoseconds times
    `count`, so that the time for one token is exact.

    A full bucket is removed, since a missing bucket counts as full. If `room` buckets are not full, the other keys of a
    caller share one bucket, also with the keys of a few other callers. So a caller that invents contacts gains nothing,
    and a bucket is never removed before it is full.
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
        # A heap with each key of `_full_at` once. Its time is at most the time at which the bucket is full.
        self._removals: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        """The number of buckets that are stored."""
        return len(self._full_at) + len(self._shared)

    def wait(self, key: bytes, now: float) -> float:
        """Return the seconds until a message gets a token; 0 if it gets one now.

        `now` is in seconds of a monotonic clock, here and in the other methods.
        """
        return max(self._time_until_full(key, now) - self._token * (self._rate.count - 1), 0) / self._second

    def acquire(self, key: bytes, now: float, tokens: int = 1) -> None:
        """Acquire a token. Call this only if `wait` returns 0, or for messages that another replica has admitted.

        Those may take more tokens than there are. Then the bucket owes them, and is full again so much later.
        """
        ticks = self._ticks(now)
        full_at = ticks + self._time_until_full(key, now) + self._token * tokens
        if key not in self._full_at:
            self._remove_full(ticks)
            if len(self._full_at) >= self._room:
                self._shared[key[:_CALLER_BYTES]] = full_at
                return
            heapq.heappush(self._removals, (full_at, key))
        self._full_at[key] = full_at

    def put_back(self, key: bytes, tokens: int = 1) -> None:
        """Put tokens back that `acquire` took. The removal of the bucket may then come later than it could."""
        buckets, name = (self._full_at, key) if key in self._full_at else (self._shared, key[:_CALLER_BYTES])
        if name in buckets:
            buckets[name] -= self._token * tokens

    def allowance(self, key: bytes, now: float) -> Allowance:
        """Return the remaining tokens, and when the next one is added."""
        debt = self._time_until_full(key, now)
        missing = min(-(-debt // self._token), self._rate.count)
        until_next = debt - self._token * (missing - 1) if missing else self._token
        return Allowance(self.policy, self._rate.count - missing, _round_up(until_next / self._second))

    def refusal(self, seconds: int) -> str:
        """Return the error text for a caller that has to wait `seconds`."""
        return f"Too many messages of this {_subject(self)}: at most {self._rate}; try again in {seconds} s"

    def _time_until_full(self, key: bytes, now: float) -> int:
        """The time until the bucket of a key is full, in nanoseconds times `count`."""
        full_at = self._full_at.get(key)
        if full_at is None:
            full_at = self._shared.get(key[:_CALLER_BYTES], 0)
        return max(full_at - self._ticks(now), 0)

    def _ticks(self, now: float) -> int:
        """Convert seconds to nanoseconds times `count`."""
        return int(now * 1_000_000_000) * self._rate.count

    def _remove_full(self, ticks: int) -> None:
        """Remove buckets that are full at `ticks`. Each call removes at most 8, so that no caller waits long."""
        for _ in range(8):
            if not self._removals or self._removals[0][0] > ticks:
                return
            key = self._removals[0][1]
            full_at = self._full_at[key]
            if full_at > ticks:
                heapq.heapreplace(self._removals, (full_at, key))
            else:
                heapq.heappop(self._removals)
                del self._full_at[key]


class RunLimit:
    """At most `count` open runs for each key."""

    def __init__(self, name: str, count: int, *, by_contact: bool) -> None:
        self.policy = Policy(name, count, None)
        self.by_contact = by_contact
        self._open: dict[bytes, int] = {}

    def __len__(self) -> int:
        """The number of keys with an open run."""
        return len(self._open)

    def wait(self, key: bytes, now: float) -> float:
        """Return 0 if the key may have another run, otherwise 1 second: the end of a run cannot be predicted."""
        return 0.0 if self._open.get(key, 0) < self.policy.quota else 1.0

    def acquire(self, key: bytes, now: float) -> None:
        """Count a run that begins."""
        self._open[key] = self._open.get(key, 0) + 1

    def release(self, key: bytes) -> None:
        """Count a run that has ended."""
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]

    def allowance(self, key: bytes, now: float) -> Allowance:
        """Return how many more runs the key may have."""
        return Allowance(self.policy, self.policy.quota - self._open.get(key, 0), None)

    def refusal(self, seconds: int) -> str:
        """Return the error text for a caller that has to wait."""
        subject, count = _subject(self), self.policy.quota
        return f"Too many messages of this {subject} are being answered: at most {count} at once; try again later"


Limit = RateLimit | RunLimit


class Quota:
    """The limits of messages and runs. A message counts against all of them if all accept it, else against none.

    `policies` are all limits of a server, with its budgets.
    """

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
        self.policies = (*(limit.policy for limit in self._limits), *map(budget_policy, limits.budgets))

    def acquire(self, admission: Admission, contact_id: str, now: float, *, has_run: bool = True) -> QuotaKeys:
        """Count a message. Returns its keys, for `release` when its run has ended.

        If it `has_run`, it also counts as an open run until then.

        Raises:
            QuotaExceeded: a limit is reached.
        """
        keys = quota_keys(admission, contact_id)
        limits = self._limits_of(keys)
        if not has_run:
            limits = [(limit, key) for limit, key in limits if isinstance(limit, RateLimit)]
        waits = [limit.wait(key, now) for limit, key in limits]
        longest = max(waits, default=0.0)
        if longest:
            seconds = _round_up(longest)
            message = limits[waits.index(longest)][0].refusal(seconds)
            exhausted = [limit.allowance(key, now) for (limit, key), wait in zip(limits, waits, strict=True) if wait]
            raise QuotaExceeded(message, seconds, self.policies, exhausted)
        for limit, key in limits:
            limit.acquire(key, now)
        return keys

    def release(self, keys: QuotaKeys) -> None:
        """Count that the run of a message has ended. Only the limits of open runs change."""
        for limit, key in self._limits_of(keys):
            if isinstance(limit, RunLimit):
                limit.release(key)

    def put_back(self, keys: QuotaKeys) -> None:
        """Count that a message was refused after all. Only the limits of messages change."""
        for limit, key in self._limits_of(keys):
            if isinstance(limit, RateLimit):
                limit.put_back(key)

    def count_elsewhere(self, keys: QuotaKeys, messages: int, now: float) -> None:
        """Count messages that another replica has admitted. If the number is negative, it has put them back."""
        for limit, key in self._limits_of(keys):
            if isinstance(limit, RateLimit) and messages > 0:
                limit.acquire(key, now, messages)
            elif isinstance(limit, RateLimit):
                limit.put_back(key, -messages)

    def counted(self) -> list[tuple[str, int]]:
        """Return the name of each limit, and how many callers or contacts it counts now."""
        return [(limit.policy.name, len(limit)) for limit in self._limits]

    def allowances(self, keys: QuotaKeys, now: float) -> Sequence[Allowance]:
        """Return the remaining messages of each limit."""
        return [limit.allowance(key, now) for limit, key in self._limits_of(keys)]

    def _limits_of(self, keys: QuotaKeys) -> list[tuple[Limit, bytes]]:
        return [(limit, keys.contact if limit.by_contact else keys.identity) for limit in self._limits]


def quota_keys(admission: Admission, contact_id: str) -> QuotaKeys:
    """Return the keys of a caller, and of a caller and contact. They are digests, since names may be long."""
    caller = repr((admission.provider, admission.identity.subject))
    identity = hashlib.blake2b(caller.encode(), digest_size=16).digest()
    contact = hashlib.blake2b(contact_id.encode(), digest_size=16, key=identity).digest()
    return QuotaKeys(identity, identity[:_CALLER_BYTES] + contact)


def _subject(limit: Limit) -> str:
    return "contact" if limit.by_contact else "caller"


def _round_up(seconds: float) -> int:
    """Seconds as an integer for HTTP headers: rounded up, and at least 1."""
    return max(math.ceil(seconds), 1)
