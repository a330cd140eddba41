"""The command, for a test that does not wait as long as people do until a dead process is noticed."""

from datetime import timedelta

from jimsapi_nats import work
from jimsapi_postgres import peers

from jimsapi.cli import main
from jimsapi.runs import housekeeping, lookup

housekeeping.HEARTBEAT_EVERY = 0.2
housekeeping.UNCLAIMED_AFTER = timedelta(seconds=1)
peers.POLL_EVERY = 0.2
peers.SILENCE = timedelta(seconds=3)
lookup.ASK_EVERY = 3600.0  # a reader asks once more when the run starts, and need not wait for this
work.REDELIVER_AFTER = 1.0
work.PROGRESS_EVERY = 0.2

if __name__ == "__main__":
    main()
