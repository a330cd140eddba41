"""The plugins that come with jimsapi. They use the public hooks and nothing else."""

from collections.abc import Mapping

from jimsapi.builtin import app_loader, bearer_key, client_certificate, log_sink, resolvers, stores
from jimsapi.builtin.prometheus import PrometheusPlugin


def builtin_plugins() -> Mapping[str, object]:
    """The built-in plugins by name, fresh for one app, in the order they are asked."""
    return {
        "key": bearer_key,
        "certificate": client_certificate,
        "stores": stores,
        "app-loader": app_loader,
        "resolvers": resolvers,
        "prometheus": PrometheusPlugin(),
        "log-sink": log_sink,
    }
