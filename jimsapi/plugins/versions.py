"""The versions of jimsapi that a plugin's distribution requires (PEP 440 and PEP 508).

pip checks requirements, but not with `--no-deps`, and not if jimsapi is downgraded later.
"""

import re
from collections.abc import Iterable

_REQUIREMENT = re.compile(
    r"\s*(?P<name>[A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*\(?(?P<specifiers>[^;()]*)\)?\s*(?P<marker>;.*)?"
)
_SPECIFIER = re.compile(r"\s*(~=|===|==|!=|<=|>=|<|>)\s*(\S+)\s*")
_VERSION = re.compile(
    r"v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_number>\d*))?"
    r"(?P<post>-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?"
    r"(?:[-_.]?(?P<dev>dev)[-_.]?(?P<dev_number>\d*))?"
    r"(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?",
    re.IGNORECASE,
)
_STAGES = {"alpha": 0, "a": 0, "beta": 1, "b": 1, "preview": 2, "pre": 2, "c": 2, "rc": 2}
_FINAL = 3
_BEFORE_ALPHA = (-1, 0)
"""The stage of a development release without another stage: 1.0.dev1 comes before 1.0a1."""
_NO_DEVELOPMENT = float("inf")

Key = tuple[int, tuple[int, ...], tuple[int, int], int, float]


def required_versions(requirements: Iterable[str], name: str) -> str:
    """Return the version specifiers of the distribution `name` in a distribution's requirements, such as `>=0.2,<1`.

    Requirements with a marker are left out: they may belong to an extra. Returns an empty text if there are none.
    """
    found = []
    for requirement in requirements:
        match = _REQUIREMENT.fullmatch(requirement)
        if match and not match["marker"] and canonical(match["name"]) == canonical(name):
            found.append(match["specifiers"].strip())
    return ",".join(filter(None, found))


def allows(specifiers: str, version: str) -> bool:
    """Return whether `version` meets all of `specifiers`. One that cannot be read counts as met."""
    return all(_meets(specifier, version) for specifier in specifiers.split(",") if specifier.strip())


def _meets(specifier: str, version: str) -> bool:
    match = _SPECIFIER.fullmatch(specifier)
    own = _key(version)
    if match is None or own is None:
        return True
    operator, wanted = match.groups()
    if operator == "===":
        return version == wanted
    if wanted.endswith(".*"):
        within = _is_within(own, wanted.removesuffix(".*"))
        return within if operator == "==" else not within
    bound = _key(wanted)
    if bound is None:
        return True
    match operator:
        case "==":
            return own == bound
        case "!=":
            return own != bound
        case ">=":
            return own >= bound
        case "<=":
            return own <= bound
        case ">":
            return own > bound and not _is_post_release_of(own, bound)
        case "<":
            return own < _first_pre_release(bound)
        case _:
            return own >= bound and _is_within(own, _release_without_last(wanted))


def _release_without_last(version: str) -> str:
    """Return the numbers of a version except the last, which `~=` leaves open."""
    match = _VERSION.fullmatch(version)
    assert match is not None
    epoch = f"{match['epoch']}!" if match["epoch"] else ""
    return epoch + match["release"].rpartition(".")[0]


def _is_post_release_of(own: Key, bound: Key) -> bool:
    """Whether a later version is only a post-release of `bound`, which `>` excludes."""
    return own[:3] == bound[:3] and bound[3:] == (0, _NO_DEVELOPMENT)


def _first_pre_release(bound: Key) -> Key:
    """Return the earliest pre-release of a version, for `<` excludes these; the version itself if it is one."""
    epoch, release, stage, post, development = bound
    if stage[0] != _FINAL or development != _NO_DEVELOPMENT:
        return bound
    return epoch, release, stage if post else _BEFORE_ALPHA, post, 0.0


def _is_within(own: Key, prefix: str) -> bool:
    """Whether a version begins with the numbers of `prefix`, as `==1.4.*` requires."""
    wanted = _VERSION.fullmatch(prefix)
    if wanted is None:
        return True
    numbers = tuple(map(int, wanted["release"].split(".")))
    release = own[1] + (0,) * (len(numbers) - len(own[1]))
    return own[0] == int(wanted["epoch"] or 0) and release[: len(numbers)] == numbers


def _key(version: str) -> Key | None:
    """Return a key that sorts versions as PEP 440 does; None if the text is not a version. Ignores local labels."""
    match = _VERSION.fullmatch(version.strip())
    if match is None:
        return None
    release = [int(number) for number in match["release"].split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    stage = (_STAGES[match["pre"].lower()], int(match["pre_number"] or 0)) if match["pre"] else (_FINAL, 0)
    digits = re.sub(r"\D", "", match["post"]) if match["post"] else ""
    post = 0 if match["post"] is None else 1 + int(digits or 0)
    if match["dev"] is None:
        development = _NO_DEVELOPMENT
    else:
        development = float(match["dev_number"] or 0)
        if match["pre"] is None and match["post"] is None:
            stage = _BEFORE_ALPHA
    return int(match["epoch"] or 0), tuple(release), stage, post, development


def canonical(name: str) -> str:
    """Return the normalized name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
