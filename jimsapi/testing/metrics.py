"""The contract of a plugin's metrics, as tests. Metrics that pass them can be scraped, and name no person."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any
from uuid import uuid4

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from jimsapi.asgi.testing import TestClient
from jimsapi.builtin import builtin_plugins
from jimsapi.plugins.manager import PluginManager
from jimsapi.plugins.metrics import MetricsRegistry
from jimsapi.plugins.versions import canonical
from jimsapi.testing.contract import CapturedOutput, DoesNotApply, PluginContract, needs, resolved

HOST = "jims_metrics_failures"
"""The metric that the registry itself has."""


class MetricsContract(PluginContract):
    """Derive a class from this one in a test module, and declare the plugin and its options:

        class TestDisk(MetricsContract):
            distribution = "jimsapi-disk"
            settings = {}
            unconfigured = DoesNotApply("it always measures")

    pytest then runs every case against the installed plugin: on registries of its own, and on that of a server.
    """

    hook = "jimsapi_metrics"

    @cached_property
    def prefix(self) -> str:
        """The beginning of the names of all its metrics. The default is the distribution's name without `jimsapi-`."""
        return canonical(self.distribution).removeprefix("jimsapi-").replace("-", "_") + "_"

    @cached_property
    def unconfigured(self) -> Mapping[str, Any] | DoesNotApply:
        """Options with which the plugin registers nothing. The default is no options."""
        return {}

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """Headers of a caller that may write for every contact, if `settings` need credentials. The default is none."""
        return {}

    @cached_property
    def secrets(self) -> Sequence[str]:
        """The secret parts of `settings` and `headers`, which must not be shown. The default is none."""
        return ()

    def test_configured_it_registers_metrics(self) -> None:
        assert self.families(self.registered(self.settings)), "configured, it registers no metric in `registry`"

    @needs("unconfigured")
    def test_without_configuration_it_registers_nothing(self) -> None:
        unconfigured = self.unconfigured
        assert not isinstance(unconfigured, DoesNotApply)
        assert self.families(self.registered(unconfigured)) == []

    def test_names_begin_with_the_prefix(self) -> None:
        names = [family.name for family in self.families(self.registered(self.settings))]
        others = [name for name in names if not name.startswith(self.prefix)]
        assert not others, f"{others} do not begin with {self.prefix}: another plugin may use these names"

    def test_every_metric_has_a_help_text(self) -> None:
        for family in self.families(self.registered(self.settings)):
            assert family.documentation.strip(), f"{family.name} has no help text"

    def test_each_app_of_a_process_has_its_own_metrics(self) -> None:
        before = {family.name for family in REGISTRY.collect()}
        for _ in range(2):
            families = self.families(self.registered(self.settings))
            assert families
        in_process = {family.name for family in REGISTRY.collect()}
        # Metrics of a module are there since the module was imported, which may be long before this case.
        shared = (in_process - before) | (in_process & {family.name for family in families})
        assert not shared, f"{sorted(shared)} are in the registry of the process: pass `registry` to each metric"

    async def test_a_server_s_metrics_can_be_read_at_any_time(self) -> None:
        api = self.api()
        async with TestClient(api, headers=self.headers) as client:
            assert api.composition is not None
            failures = api.composition.registry.failures
            for _ in range(3):
                text, _ = await asyncio.gather(asyncio.to_thread(api.metrics), chat(client, "ann"))
                assert list(text_string_to_metric_families(text))
        assert not failures, f"collectors of {', '.join(failures)} failed; the log has the traceback"

    async def test_no_label_names_a_contact_a_thread_or_a_message(self) -> None:
        api = self.api()
        message = f"message {uuid4()}"
        contacts = [f"contact {uuid4()}" for _ in range(20)]
        async with TestClient(api, headers=self.headers) as client:
            await chat(client, "ann")
            before = self.series(api.metrics())
            answers = [await chat(client, contact, message) for contact in contacts]
            after = self.series(api.metrics())
        threads = [answer["thread_id"] for answer in answers]
        forbidden = {message, *contacts, *threads}
        named = {name for name, labels in after if any(one in value for one in forbidden for _, value in labels)}
        assert not named, f"labels of {sorted(named)} name a contact, a thread or a message"
        grown = {name for name, _ in after - before}
        # A metric may begin with the first request of a kind, but not with each of twenty.
        assert len(after) - len(before) < len(contacts), f"{sorted(grown)} grow with the number of contacts"

    async def test_no_secret_is_logged_or_shown(self, shown: CapturedOutput) -> None:
        api = self.api()
        async with TestClient(api, headers=self.headers) as client:
            await chat(client, "ann")
            shown.add(api.metrics())
        shown.assert_contains_none_of(self.secrets)

    def registered(self, given: Mapping[str, Any]) -> MetricsRegistry:
        """Return a new registry in which the plugin has registered its metrics, with these options."""
        plugins = PluginManager(builtin_plugins())
        settings = resolved(plugins, given)
        registry = MetricsRegistry(self.distribution)
        for hook in self.implementations(plugins):
            hook(registry=registry, settings=settings)
        return registry

    def families(self, registry: CollectorRegistry) -> list[Metric]:
        """Return the plugin's metrics in a registry."""
        return [family for family in registry.collect() if family.name != HOST]

    def series(self, text: str) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        """Return name and labels of each series of the plugin, from the text of a scrape."""
        return {
            (sample.name, frozenset(sample.labels.items()))
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith(self.prefix)
        }


async def chat(client: TestClient, contact_id: str, message: str = "hi") -> dict[str, Any]:
    """Send a message to the API. Returns the answer. Fails if the server does not answer the message."""
    answer = await client.post("/api/v1/chat", json={"contact_id": contact_id, "message": message})
    assert answer.status_code == 200, (
        f"the server answered {answer.status_code} to a message, so no run can be observed; if `settings` require "
        "credentials, declare `headers` of a caller that the server admits, and that may write for every contact"
    )
    found: dict[str, Any] = answer.json()
    return found
