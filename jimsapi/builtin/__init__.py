"""The plugins that come with jimsapi. They use the public hooks and nothing else."""

from collections.abc import Mapping

from jimsapi.builtin import (
    app_loader,
    bearer_key,
    client_certificate,
    event_file,
    event_webhook,
    log_sink,
    resolvers,
    stores,
)
from jimsapi.builtin.prometheus import PrometheusPlugin


def builtin_plugins() -> Mapping[str, object]:
    """Return the built-in plugins by name, in the order in which their hooks are called. Each app gets new ones."""
    return {
        "key": bearer_key,
        "certificate": client_certificate,
        "stores": stores,
        "app-loader": app_loader,
        "resolvers": resolvers,
        "prometheus": PrometheusPlugin(),
        "log-sink": log_sink,
        "event-file": event_file,
        "event-webhook": event_webhook,
    }
