"""How state machines are run here."""

import os

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def run_machine(machine: type[RuleBasedStateMachine]) -> None:
    """Drive a machine through random histories. `JIMSAPI_MACHINE_EXAMPLES` says how many (50)."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("JIMSAPI_MACHINE_EXAMPLES", "50")),
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
