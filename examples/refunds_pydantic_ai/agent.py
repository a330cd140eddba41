"""The agent: its tools, and which model it has. Nothing here is special to a server, except for `Recorder`."""

import json
from collections.abc import AsyncIterator
from typing import Any

from pydantic_ai import Agent, DeferredToolRequests, ModelMessage, ModelResponse, ModelRetry, RunContext
from pydantic_ai.capabilities import AbstractCapability, WrapToolExecuteHandler
from pydantic_ai.messages import RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.tools import ToolDefinition

from examples.refunds.conversation import call_messages
from examples.refunds.model import Message, api_key, is_configured, model_name
from examples.refunds.orders import ORDERS, OrderNotFound
from examples.refunds.scripted import decide, pieces
from examples.refunds.tools import INSTRUCTIONS
from jimsapi import ThreadContext

RefundAgent = Agent[ThreadContext, str | DeferredToolRequests]


class Recorder(AbstractCapability[ThreadContext]):
    """Records what any agent does, if the context is its `deps`: tool calls, and the usage of each reply."""

    async def wrap_tool_execute(
        self,
        ctx: RunContext[ThreadContext],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: WrapToolExecuteHandler,
    ) -> Any:
        """Call a tool. An error that the model reads (`ModelRetry`) is recorded, too."""
        async with ctx.deps.tool(call.tool_name, args, id=call.tool_call_id) as recorded:
            recorded.result = await handler(args)
        return recorded.result

    async def after_model_request(
        self, ctx: RunContext[ThreadContext], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """Record what a reply has used, as soon as it is complete: the run may fail later."""
        ctx.deps.usage(
            model=response.model_name or "unknown",
            input_tokens=response.usage.input_tokens,
            output_tokens=response.usage.output_tokens,
            cached_tokens=response.usage.cache_read_tokens,
        )
        return response


def make_agent() -> RefundAgent:
    """Return the agent. It ends with `DeferredToolRequests` if a tool needs an approval."""
    agent = Agent(
        make_model(),
        deps_type=ThreadContext,
        output_type=[str, DeferredToolRequests],
        instructions=INSTRUCTIONS,
        capabilities=[Recorder()],
    )

    @agent.tool
    async def find_order(ctx: RunContext[ThreadContext], number: int) -> dict[str, Any]:
        """Find an order: its item, its price in euros, and whether it was refunded."""
        return known_order(ctx, number)

    @agent.tool(requires_approval=True, args_validator=check_order)
    async def refund(ctx: RunContext[ThreadContext], number: int) -> dict[str, Any]:
        """Pay the price of an order back. The customer is asked first."""
        key = f"refund {ctx.tool_call_id}"
        receipt: dict[str, Any] = await ctx.deps.once(key, ORDERS.refund, number, f"{ctx.deps.turn_id}:{key}")
        return receipt

    return agent


def known_order(ctx: RunContext[ThreadContext], number: int) -> dict[str, Any]:
    """Return an order. If there is none, the model is told so, and may do something else."""
    try:
        return ORDERS.find(number)
    except OrderNotFound as error:
        raise ModelRetry(str(error)) from error


def check_order(ctx: RunContext[ThreadContext], number: int) -> None:
    """Refuse a refund before anybody is asked to approve it."""
    known_order(ctx, number)


def make_model() -> Model:
    """Return the model of `OPENAI_BASE_URL`, `OPENAI_API_KEY` and `OPENAI_MODEL`, else one that follows a script."""
    if not is_configured():
        return FunctionModel(stream_function=follow_script, model_name="scripted")
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return OpenAIChatModel(model_name(), provider=OpenAIProvider(api_key=api_key()))


async def follow_script(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Reply as the script of `examples/refunds` does."""
    text, calls = decide(chat_messages(messages))
    for piece in pieces(text):
        yield piece
    for index, call in enumerate(calls):
        yield {index: DeltaToolCall(name=call.name, json_args=json.dumps(call.arguments), tool_call_id=call.id)}


def chat_messages(messages: list[ModelMessage]) -> list[Message]:
    """Return messages of PydanticAI in the form that the script reads."""
    calls: dict[str, ToolCallPart] = {}
    found: list[Message] = []
    for part in [part for message in messages for part in message.parts]:
        if isinstance(part, UserPromptPart | TextPart):
            found.append({"role": "user" if isinstance(part, UserPromptPart) else "assistant", "content": part.content})
        elif isinstance(part, ToolCallPart):
            calls[part.tool_call_id] = part
        elif isinstance(part, ToolReturnPart | RetryPromptPart):
            call = calls[part.tool_call_id]
            result = part.model_response() if isinstance(part, RetryPromptPart) else part.content
            found += call_messages(call.tool_call_id, call.tool_name, call.args_as_dict(), result)
    return found
