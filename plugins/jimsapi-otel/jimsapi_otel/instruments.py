"""The metrics of agents, tools and models, by the semantic conventions for generative AI.

Source: https://github.com/open-telemetry/semantic-conventions-genai, `docs/gen-ai/gen-ai-metrics.md`.
"""

from typing import Any

from opentelemetry import metrics

MAX_NAMES = 200
"""The most names of tools, and of models, in metrics. A pipeline may make up names, and each one is a series."""
OTHER = "_OTHER"
"""The name of all others."""

_AGENT_SECONDS = [0.1 * 2**n for n in range(13)]
_CALL_SECONDS = [0.01 * 2**n for n in range(14)]
_TOKENS = [4**n for n in range(14)]


class Names:
    """The first names that occur, up to `MAX_NAMES`."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def limit(self, name: str) -> str:
        """Return the name, or `OTHER` if there are too many."""
        if name in self._known:
            return name
        if len(self._known) >= MAX_NAMES:
            return OTHER
        self._known.add(name)
        return name


class Instruments:
    """Histograms of durations in seconds, and of tokens."""

    def __init__(self) -> None:
        meter = metrics.get_meter("jimsapi")
        self._agents = meter.create_histogram(
            "gen_ai.invoke_agent.duration",
            "s",
            "The duration of a call of a pipeline.",
            explicit_bucket_boundaries_advisory=_AGENT_SECONDS,
        )
        self._tools = meter.create_histogram(
            "gen_ai.execute_tool.duration",
            "s",
            "The duration of a tool call.",
            explicit_bucket_boundaries_advisory=_CALL_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "The number of input and output tokens of a model call.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._models = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "The duration of a model call, if the pipeline has told it.",
            explicit_bucket_boundaries_advisory=_CALL_SECONDS,
        )
        self._tool_names = Names()
        self._model_names = Names()

    def agent_ended(self, seconds: float, agent: str, error: str | None) -> None:
        """Record a call of a pipeline. `error` is the type of its error, None if it succeeded."""
        self._agents.record(seconds, _with_error({"gen_ai.agent.name": agent}, error))

    def tool_ended(self, seconds: float, tool: str, agent: str, error: str | None) -> None:
        """Record a tool call. `error` is the type of its error, None if it succeeded."""
        attributes = {
            "gen_ai.tool.name": self._tool_names.limit(tool),
            "gen_ai.tool.type": "function",
            "gen_ai.agent.name": agent,
        }
        self._tools.record(seconds, _with_error(attributes, error))

    def model_used(self, sent: int, received: int, model: str, provider: str, seconds: float | None) -> None:
        """Record the tokens of a model call, and how long it took, if that is known."""
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": self._model_names.limit(model),
        }
        for kind, count in (("input", sent), ("output", received)):
            self._tokens.record(count, {**attributes, "gen_ai.token.type": kind})
        if seconds is not None:
            self._models.record(seconds, attributes)


def _with_error(attributes: dict[str, Any], error: str | None) -> dict[str, Any]:
    return attributes if error is None else {**attributes, "error.type": error}
