"""The tools of the agent: what the model reads about them, and what they do."""

from typing import Any

from jimsapi import ThreadContext

from .model import Call
from .orders import ORDERS, OrderNotFound

INSTRUCTIONS = (
    "You are the assistant of a shop. Find an order before you talk about it. If the customer wants the money back, "
    "call `refund`: it asks the customer by itself, so do not ask for a confirmation. Answer in one or two sentences."
)
_NUMBER = {
    "type": "object",
    "properties": {"number": {"type": "integer", "description": "The number of the order"}},
    "required": ["number"],
}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": description, "parameters": _NUMBER}}
    for name, description in (
        ("find_order", "Find an order: its item, its price in euros, and whether it was refunded."),
        ("refund", "Pay the price of an order back. The customer is asked first."),
    )
]
ASKING = frozenset({"refund"})
"""The tools that ask a person."""
REFUSED = "the customer does not want the refund"


async def use_tool(ctx: ThreadContext, call: Call) -> dict[str, Any]:
    """Do what a call of the model wants, record it, and return what the model reads: the result, or an error."""
    async with ctx.tool(call.name, call.arguments, id=call.id) as tool:
        try:
            tool.result = await _result(ctx, call)
        except (OrderNotFound, ValueError) as error:
            tool.error = str(error)  # the model may do something else
    return {"error": tool.error} if tool.error is not None else tool.result


async def _result(ctx: ThreadContext, call: Call) -> dict[str, Any]:
    number = call.arguments.get("number")
    if not isinstance(number, int):
        raise ValueError("`number` must be a whole number")
    if call.name == "find_order":
        return ORDERS.find(number)
    if call.name == "refund":
        return await _refund(ctx, call.id, number)
    raise ValueError(f"there is no tool {call.name}")


async def _refund(ctx: ThreadContext, call_id: str, number: int) -> dict[str, Any]:
    order = ORDERS.find(number)
    if await ctx.ask(f"approve {call_id}", refund_question(order), options=["yes", "no"]) != "yes":
        return {"refused": REFUSED}
    # Once in a turn, also if the run is repeated. The key is for the payment service: if the process dies after the
    # payment and before its result is stored, the service does not pay again.
    receipt: dict[str, Any] = await ctx.once(f"refund {call_id}", ORDERS.refund, number, f"{ctx.turn_id}:{call_id}")
    return receipt


def refund_question(order: dict[str, Any]) -> str:
    """Return what the customer is asked."""
    return f"Refund {order['price']} EUR for order {order['number']}, the {order['item']}?"
