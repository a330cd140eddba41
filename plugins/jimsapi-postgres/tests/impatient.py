"""The command, for a test that does not wait as long as people do until a silent process counts as dead: 3 seconds."""

from datetime import timedelta

from jimsapi_postgres import peers

from jimsapi.cli import main
from jimsapi.runs import housekeeping

housekeeping.HEARTBEAT_EVERY = 0.2
peers.POLL_EVERY = 0.2
peers.SILENCE = timedelta(seconds=3)

if __name__ == "__main__":
    main()
