"""Versions are compared as pip compares them."""

from hypothesis import example, given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from jimsapi.plugins.versions import allows, canonical, required_versions

numbers = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
stages = st.sampled_from(["", "a1", "b2", "rc1", ".post1", ".dev1", "a1.dev2", "rc1.post1", ".post1.dev1"])
versions = st.builds("{}{}".format, numbers, stages)
bounds = st.builds("{}{}".format, st.sampled_from([">=", "<=", ">", "<", "==", "!="]), versions)
ranges = st.builds("{}{}.*".format, st.sampled_from(["==", "!="]), numbers)
compatible = st.builds("~={}.{}{}".format, numbers, st.integers(0, 3), stages)
specifiers = st.lists(st.one_of(bounds, ranges, compatible), max_size=3).map(",".join)


@given(specifiers, versions)
@example("<1.post1", "1a1")
@example(">1a1", "1.post1")
@example("<1", "1.dev1")
@example(">1", "1.post1")
def test_a_version_meets_what_it_meets_for_pip(wanted: str, version: str) -> None:
    assert allows(wanted, version) == SpecifierSet(wanted).contains(Version(version), prereleases=True)


def test_what_cannot_be_read_does_not_stop_a_start() -> None:
    assert allows(">=one", "0.1.0")
    assert allows("around 3", "0.1.0")
    assert allows(">=99", "unknown")


def test_the_requirement_of_one_distribution_is_found_whatever_its_spelling() -> None:
    requirements = ["jimsapi-postgres>=3", "JIMSAPI (>=0.2)", "jimsapi[test] <1", "jimsapi >=9; extra == 'x'"]
    assert required_versions(requirements, "jimsapi") == ">=0.2,<1"
    assert required_versions(["httpx"], "jimsapi") == ""
    assert canonical("Acme_Door.Keeper") == "acme-door-keeper"
