"""Spans and metrics of what an agent does, by OpenTelemetry's semantic conventions for generative AI.

Source: https://github.com/open-telemetry/semantic-conventions-genai, `docs/gen-ai`. The conventions are in development,
so names may change; this module follows what `opentelemetry-util-genai` 1.3b0 emits. It does not use that package,
which is a beta whose interface changes with each release, and needs the module for most of the same: which events of a
run begin and end a span.

A pipeline is an agent, and its thread is the conversation. The usage of models is on the spans of models only: tools
for such traces add up what all spans of a trace have.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from jimsapi import ThreadContext
from jimsapi.runs import Pipeline
from jimsapi.threads import MODEL_USAGE, ActivityObserver, QuestionAsked, ToolCall, storable_text
from jimsapi_otel.content import Conversation, as_text
from jimsapi_otel.errors import error_type, note_error
from jimsapi_otel.instruments import Instruments
from jimsapi_otel.providers import provider_of

logger = logging.getLogger("jimsapi.otel")

TOOL_ERROR = "tool_error"
"""The `error.type` of a call whose `error` the pipeline has set, so that there is no exception."""
LONGEST_CALL = 86_400.0
"""Seconds. A longer `duration` of a model call is none: no run takes longer."""
UNFINISHED = "unfinished"
"""The `error.type` of a call whose block has not ended when the pipeline ends."""


class Agents:
    """Wraps pipelines, so that their runs have spans and metrics.

    `content`: the spans have messages, and arguments and results of tools. `models`: each `model.usage` of a pipeline
    has a span and counts in the metrics. Otherwise the instrumented client of the models does that.
    """

    def __init__(self, *, content: bool, models: bool) -> None:
        self.tracer: Tracer = trace.get_tracer("jimsapi")
        self.instruments = Instruments()
        self.content = content
        self.models = models

    def trace(self, pipeline: Pipeline, name: str) -> Pipeline:
        """Return a pipeline that calls `pipeline` in a current span. `name` is the pipeline's name in metrics."""

        async def traced(ctx: ThreadContext) -> None:
            run = AgentRun(self, name, ctx)
            ctx.observe(run)
            token = context.attach(run.context)
            error: BaseException | None = None
            try:
                await pipeline(ctx)
            except BaseException as raised:
                error = raised
                raise
            finally:
                context.detach(token)
                run.end(ctx, error)

        return traced


class TimedSpan:
    """A span whose duration is the same in a metric."""

    __slots__ = ("_began", "_started", "span")

    def __init__(self, tracer: Tracer, name: str, parent: Context, attributes: Mapping[str, Any]) -> None:
        self._started = time.time_ns()
        self._began = time.perf_counter_ns()
        self.span: Span = tracer.start_span(name, parent, SpanKind.INTERNAL, attributes, start_time=self._started)

    def end(self) -> float:
        """End the span, and return its duration in seconds."""
        duration = time.perf_counter_ns() - self._began
        self.span.end(self._started + duration)
        return duration / 1e9


class ToolSpan(TimedSpan):
    """The span of a tool call. `before` was the current context when the call began."""

    __slots__ = ("before", "within")

    def __init__(self, tracer: Tracer, parent: Context, call: ToolCall, agent: str) -> None:
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.name,
            "gen_ai.tool.call.id": call.id,
            "gen_ai.tool.type": "function",
            "gen_ai.agent.name": agent,
        }
        super().__init__(tracer, f"execute_tool {call.name}", parent, attributes)
        self.before = context.get_current()
        self.within = trace.set_span_in_context(self.span, parent)


class AgentRun(ActivityObserver):
    """One call of a pipeline. `context` is that within its span."""

    def __init__(self, agents: Agents, name: str, ctx: ThreadContext) -> None:
        self._agents = agents
        self._name = name
        # A message outside of every thread has a conversation only at its client.
        self._of_conversation = {"gen_ai.conversation.id": str(ctx.thread_id)} if ctx.has_thread else {}
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": name,
            **self._of_conversation,
        }
        self._timed = TimedSpan(agents.tracer, f"invoke_agent {name}", context.get_current(), attributes)
        self.context = trace.set_span_in_context(self._timed.span)
        self._tools: dict[ToolCall, ToolSpan] = {}
        self._conversation = Conversation() if agents.content and self._timed.span.is_recording() else None

    def tool_began(self, call: ToolCall) -> None:
        """Begin a span, which is the current one within the block of the call."""
        tool = self._tools[call] = ToolSpan(self._agents.tracer, self._parent(), call, self._name)
        if self._agents.content and tool.span.is_recording():
            tool.span.set_attribute("gen_ai.tool.call.arguments", as_text(call.arguments))
        context.attach(tool.within)

    def tool_ended(self, call: ToolCall, outcome: Mapping[str, Any], error: BaseException | None) -> None:
        """End the span of a call, unless the end of the pipeline has done so."""
        tool = self._tools.pop(call, None)
        if tool is None:
            return
        if trace.get_current_span() is tool.span:
            # A token would be of no use here: a block may end in a copy of the context in which it began.
            context.attach(tool.before)
        if isinstance(error, QuestionAsked):  # it has not failed, and is called again with the answer
            tool.end()
            return
        if self._agents.content and "result" in outcome and tool.span.is_recording():
            tool.span.set_attribute("gen_ai.tool.call.result", as_text(outcome["result"]))
        kind = None
        if error is not None:
            kind = error_type(error)
            note_error(tool.span, error, self._error_text(outcome))
        elif "error" in outcome:
            kind = TOOL_ERROR
            _fail(tool.span, kind, self._error_text(outcome))
        self._agents.instruments.tool_ended(tool.end(), call.name, self._name, kind)

    def event_sent(self, event_type: str, data: Any) -> None:
        """Begin and end the span of a model's use, and collect the content of messages."""
        if not isinstance(data, dict):
            return
        if event_type == MODEL_USAGE and self._agents.models:
            self._model_used(data)
        elif self._conversation is not None:
            self._conversation.add(event_type, data)

    def end(self, ctx: ThreadContext, error: BaseException | None) -> None:
        """End the spans of calls that are left, and that of the pipeline, which has raised `error`."""
        for call in list(self._tools):
            if (tool := self._tools.pop(call, None)) is not None:
                _fail(tool.span, UNFINISHED, None)
                self._agents.instruments.tool_ended(tool.end(), call.name, self._name, UNFINISHED)
        span, kind = self._timed.span, None
        if self._conversation is not None:
            try:
                self._conversation.describe(span, ctx, failed=error is not None)
            except Exception:  # a trace must not cost an answer
                logger.exception("run %s: its span has no content", ctx.run_id)
        if error is not None and not isinstance(error, QuestionAsked):
            kind = error_type(error)
            note_error(span, error)
        self._agents.instruments.agent_ended(self._timed.end(), self._name, kind)

    def _parent(self) -> Context:
        """Return the current context, or that of the pipeline in a thread that has none."""
        current = context.get_current()
        return current if trace.get_current_span(current).get_span_context().is_valid else self.context

    def _model_used(self, data: Mapping[str, Any]) -> None:
        """Record what a call of a model has used. Without a `duration` of the event, the span has none either."""
        # An event of the pipeline's own may have a lone surrogate, which would cost all spans of a batch.
        model = storable_text(str(data.get("model")))
        sent, received, cached = (_count(data.get(name)) for name in ("input_tokens", "output_tokens", "cached_tokens"))
        provider = provider_of(model)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
            "gen_ai.agent.name": self._name,
            "gen_ai.usage.input_tokens": sent,
            "gen_ai.usage.output_tokens": received,
            **self._of_conversation,
        }
        if cached:
            attributes["gen_ai.usage.cache_read.input_tokens"] = cached
        if isinstance(cost := data.get("cost"), float | int):  # the conventions have no name for it; Langfuse has this
            attributes["gen_ai.usage.cost"] = float(cost)
        now, seconds = time.time_ns(), data.get("duration")
        took = seconds if isinstance(seconds, float) and 0 <= seconds <= LONGEST_CALL else None
        began = now - int((took or 0.0) * 1e9)
        span = self._agents.tracer.start_span(
            f"chat {model}", self._parent(), SpanKind.CLIENT, attributes, start_time=began
        )
        span.end(now)
        self._agents.instruments.model_used(sent, received, model, provider, took)

    def _error_text(self, outcome: Mapping[str, Any]) -> str | None:
        return as_text(outcome["error"]) if self._agents.content and "error" in outcome else None


def _fail(span: Span, kind: str, description: str | None) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, description)


def _count(value: Any) -> int:
    """Return a number of tokens. Events of a pipeline's own may have anything in its place."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else 0
