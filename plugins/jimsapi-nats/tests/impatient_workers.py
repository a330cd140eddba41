"""The command, for a test that does not wait as long as people do until a dead process is noticed."""

from datetime import timedelta

from impatient import main  # type: ignore[import-not-found, unused-ignore] # beside the tests of jimsapi-postgres
from jimsapi_nats import work

from jimsapi.runs import housekeeping, lookup

housekeeping.UNCLAIMED_AFTER = timedelta(seconds=1)
vars(lookup)["ASK_EVERY"] = 3600.0  # a reader asks once more when the run starts, and need not wait for this
work.REDELIVER_AFTER = 1.0
work.PROGRESS_EVERY = 0.2

if __name__ == "__main__":
    main()
