"""Random histories of the limits beside a model in exact fractions that keeps a bucket for everybody."""

from collections import Counter
from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jimsapi.runs.admission import Admission
from jimsapi.runs.quota import Quota, QuotaExceeded, QuotaKeys, QuotaLimits, Rate, RateLimit, RunLimit
from jimsapi.threads.identity import Identity
from tests.hostile.machines import run_machine

CALLERS = [Admission(Identity(subject), provider) for subject, provider in (("a", "key"), ("b", "key"), ("a", "other"))]
CONTACTS = ("ann", "bob", "")
ROOM = 3

_rates = st.none() | st.builds(Rate, st.integers(1, 4), st.sampled_from(["s", "min"]))
_counts = st.none() | st.integers(1, 3)
Key = tuple[int, str | None]


class _Bucket:
    """A bucket that is full at first and fills evenly."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.tokens = Fraction(rate.count)
        self.at = Fraction(0)

    def left(self, now: Fraction) -> Fraction:
        """Tokens that are there."""
        return min(self.tokens + (now - self.at) * self.rate.count / self.rate.seconds, Fraction(self.rate.count))

    def take(self, now: Fraction) -> None:
        """Take one."""
        self.tokens, self.at = self.left(now) - 1, now


class QuotaMachine(RuleBasedStateMachine):
    """A message passes if every limit of the model lets it; with little room, only if."""

    room = 1000

    @initialize(rate=_rates, identity_rate=_rates, contact_runs=_counts, identity_runs=_counts)
    def limits(
        self, rate: Rate | None, identity_rate: Rate | None, contact_runs: int | None, identity_runs: int | None
    ) -> None:
        if not (rate or identity_rate or contact_runs or identity_runs):
            contact_runs = 1
        self.rates = [(rate, True), (identity_rate, False)]
        self.runs = [(contact_runs, True), (identity_runs, False)]
        self.quota = Quota(
            QuotaLimits(rate=rate, identity_rate=identity_rate, contact_runs=contact_runs, identity_runs=identity_runs),
            self.room,
        )
        self.now = Fraction(0)
        self.buckets: dict[tuple[int, Key], _Bucket] = {}
        self.open: Counter[tuple[int, Key]] = Counter()
        self.counted: list[tuple[QuotaKeys, int, str]] = []

    @rule(half_seconds=st.integers(1, 40))
    def wait(self, half_seconds: int) -> None:
        self.now += Fraction(half_seconds, 2)

    @rule(caller=st.sampled_from(range(len(CALLERS))), contact=st.sampled_from(CONTACTS))
    def take(self, caller: int, contact: str) -> None:
        allowed = self.model_allows(caller, contact, self.now)
        try:
            keys = self.quota.acquire(CALLERS[caller], contact, float(self.now))
        except QuotaExceeded as refusal:
            self.check_refusal(refusal, allowed, caller, contact)
            return
        assert allowed
        for place, rate, key in self.rate_keys(caller, contact):
            self.buckets.setdefault((place, key), _Bucket(rate)).take(self.now)
        for place, _, key in self.run_keys(caller, contact):
            self.open[place, key] += 1
        self.counted.append((keys, caller, contact))

    def check_refusal(self, refusal: QuotaExceeded, allowed: bool, caller: int, contact: str) -> None:
        assert not allowed or self.room == ROOM  # buckets that are shared refuse more
        assert refusal.retry_after >= 1
        assert refusal.exhausted
        assert all(allowance.remaining == 0 for allowance in refusal.exhausted)
        later = self.now + refusal.retry_after
        for place, rate, key in self.rate_keys(caller, contact):
            assert self.buckets.get((place, key), _Bucket(rate)).left(later) >= 1

    @precondition(lambda self: self.counted)
    @rule(pick=st.integers(0, 20))
    def give_back(self, pick: int) -> None:
        keys, caller, contact = self.counted.pop(pick % len(self.counted))
        self.quota.release(keys)
        for place, _, key in self.run_keys(caller, contact):
            self.open[place, key] -= 1

    @invariant()
    def what_is_left_is_never_more_than_the_model_has(self) -> None:
        for keys, caller, contact in self.counted:
            told = {one.policy.name: one.remaining for one in self.quota.allowances(keys, float(self.now))}
            for name, (place, rate, key) in zip(self.names(self.rates), self.rate_keys(caller, contact), strict=True):
                left = int(self.buckets.get((place, key), _Bucket(rate)).left(self.now))
                assert told[name] == left or (self.room == ROOM and told[name] <= left)
            for name, (place, count, key) in zip(
                self.names(self.runs, "-runs"), self.run_keys(caller, contact), strict=True
            ):
                assert told[name] == count - self.open[place, key]

    @invariant()
    def nothing_is_kept_of_runs_that_have_ended(self) -> None:
        for limit in self.quota._limits:
            if isinstance(limit, RunLimit):
                assert len(limit) <= len(self.counted)
            elif isinstance(limit, RateLimit):
                assert len(limit) <= self.room + 256

    def model_allows(self, caller: int, contact: str, now: Fraction) -> bool:
        rates = all(
            self.buckets.get((place, key), _Bucket(rate)).left(now) >= 1
            for place, rate, key in self.rate_keys(caller, contact)
        )
        return rates and all(self.open[place, key] < count for place, count, key in self.run_keys(caller, contact))

    def rate_keys(self, caller: int, contact: str) -> list[tuple[int, Rate, Key]]:
        return [
            (place, rate, (caller, contact if by_contact else None))
            for place, (rate, by_contact) in enumerate(self.rates)
            if rate is not None
        ]

    def run_keys(self, caller: int, contact: str) -> list[tuple[int, int, Key]]:
        return [
            (place, count, (caller, contact if by_contact else None))
            for place, (count, by_contact) in enumerate(self.runs)
            if count is not None
        ]

    def names(self, limits: list[tuple[Rate | None, bool]] | list[tuple[int | None, bool]], end: str = "") -> list[str]:
        return [("contact" if by_contact else "identity") + end for limit, by_contact in limits if limit is not None]


class CrowdedQuotaMachine(QuotaMachine):
    """The same with room for few buckets, which callers then share."""

    room = ROOM


def test_a_message_passes_exactly_when_every_limit_lets_it() -> None:
    run_machine(QuotaMachine)


def test_with_little_room_no_more_messages_pass() -> None:
    run_machine(CrowdedQuotaMachine)
