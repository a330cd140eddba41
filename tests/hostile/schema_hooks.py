"""What schemathesis is told beside the document; it loads this module itself."""

import importlib

from jimsapi.threads.storable import Unstorable, dump_storable


def filter_case(context: object, case: object) -> bool:
    """Leave out what no store can keep: a NUL in a query; in a body also a lone surrogate, an integer beyond 64 bits,
    too many levels.

    They are refused wherever they stand, also in free objects and in fields that are passed over, and no JSON schema
    can say so. `tests/api/test_refused_input.py` and `tests/asgi/test_bodies.py` have them.
    """
    query = getattr(case, "query", None) or {}
    if any("\0" in value for value in query.values() if isinstance(value, str)):
        return False
    try:
        dump_storable(getattr(case, "body", None))
    except Unstorable as error:
        return "not JSON serializable" in str(error)  # of schemathesis's own: there is no body
    return True


# Not by an import statement: mypy reads this file also where schemathesis is not installed.
importlib.import_module("schemathesis").hook(filter_case)
