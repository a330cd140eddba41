"""What can be measured: each module has `run(plan)`, which gives a `Sheet`."""
