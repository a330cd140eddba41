"""The simulation of replicas: it finds what bounds a machine, is the same for the same seed, and loses no chat."""

import pytest

from benchmarks.simulation import SYNC, Costs, Scene, Simulation, simulated

COSTS = Costs(server=0.0004, database=0.0002, client=0.0002)


def test_all_processes_together_have_the_processors_of_the_machine() -> None:
    scene = Scene(1, 8, 2, 2, 1.0, one_machine=True, clients=64)
    everything = COSTS.server + COSTS.database + COSTS.client
    assert simulated(scene, COSTS)["chats/s"] == pytest.approx(2 / everything, rel=0.03)


def test_a_lonely_client_waits_for_the_work_and_for_two_syncs() -> None:
    scene = Scene(1, 1, 2, 2, 1.0, one_machine=True, clients=1)
    least = COSTS.server + COSTS.database + COSTS.client + 2 * SYNC
    assert simulated(scene, COSTS)["p50 ms"] == pytest.approx(1e3 * least, rel=0.01)


def test_many_transactions_share_a_sync() -> None:
    few, many = (Scene(1, 8, 64, 64, 1.0, one_machine=True, clients=clients) for clients in (1, 64))
    assert simulated(few, COSTS)["chats/sync"] == pytest.approx(0.5, rel=0.02)
    assert simulated(many, COSTS)["chats/sync"] > 2


def test_chats_of_replicas_that_fail_are_sent_again_and_answered() -> None:
    scene = Scene(20, 2, 2, 16, 4.0, rate=8000, fails_every=8.0)
    simulation = Simulation(scene, COSTS, seed=1)
    simulation.run()
    assert simulation.failed > 0
    assert len(simulation.answered) / scene.seconds == pytest.approx(scene.rate, rel=0.1)
    calm = simulated(Scene(20, 2, 2, 16, 1.0, rate=8000), COSTS)
    assert calm["sent again of 1,000,000"] == 0
