"""A bot that does what its message says, step by step: `status Looking; stream Hel; hold door; send Hello`."""

import asyncio
import json
from collections import defaultdict

from jimsapi import JimsApp, StatusEvent, ThreadContext
from jimsapi.threads.activity import ToolCall


class Scripted:
    """A pipeline that tests hold, break and release. `hold x` waits until somebody says `open x`.

    `reached` are set once a `hold` has begun, `opened` let it go on; `texts` are the messages that were worked on.
    """

    def __init__(self) -> None:
        self.opened: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.reached: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.texts: list[str] = []
        self.calls: dict[str, ToolCall] = {}

    async def __call__(self, ctx: ThreadContext) -> None:
        """Do all steps of the newest message."""
        text = str(ctx.get_last_user_message())
        self.texts.append(text)
        for step in text.split("; "):
            await self.do(ctx, *step.partition(" ")[::2])

    async def do(self, ctx: ThreadContext, command: str, argument: str) -> None:
        """Do one step; what is no step is answered."""
        match command:
            case "status":
                await ctx.update_agent_status(StatusEvent(argument, "step"))
            case "stream":
                await ctx.stream(argument)
            case "think":
                ctx.reasoning(argument)
            case "tool":
                async with ctx.tool(argument) as call:
                    call.result = argument
            case "source":
                ctx.source(**{"url" if argument.startswith("http") else "title": argument})
            case "use":
                ctx.usage(model="m", input_tokens=int(argument), output_tokens=1)
            case "own":
                event_type, _, data = argument.partition(" ")
                ctx.send_event(event_type, json.loads(data or '{"seen": true}'))
            case "big":
                async with ctx.tool("big") as call:
                    call.result = "x" * 300_000
                ctx.source(title=argument)
            case "begin":
                self.calls[argument] = ctx.tool(argument).__enter__()
            case "end":
                self.calls[argument].result = argument
                self.calls.pop(argument).__exit__(None, None, None)
            case "file":
                ctx.send_message(argument, files=[await ctx.save_file("a.txt", argument.encode())])
            case "send":
                ctx.send_message(argument)
            case "buttons":
                ctx.send_message_with_buttons(argument, [{"text": "Yes"}])
            case "event":
                ctx.send_event("rag.step", {"text": argument})
            case "raise":
                raise RuntimeError(argument)
            case "unstorable":
                ctx.send_event("rag.step", {"what": object()})
            case "hold":
                self.reached[argument].set()
                await self.opened[argument].wait()
            case "open":
                self.opened[argument].set()
            case "reached":
                await self.reached[argument].wait()
            case "stubborn":
                self.reached["stubborn"].set()
                while not self.opened["stubborn"].is_set():
                    try:
                        await self.opened["stubborn"].wait()
                    except asyncio.CancelledError:
                        ctx.thread_config.clear()
            case "see":
                ctx.send_message(json.dumps([said["content"] for said in ctx.history if said["role"] == "user"]))
            case "metadata":
                ctx.send_message(json.dumps(ctx.metadata))
            case _:
                ctx.send_message(f"You said: {command} {argument}".rstrip())

    async def greet(self, ctx: ThreadContext) -> None:
        """Begin a conversation by the steps that the thread's configuration holds."""
        for step in str(ctx.thread_config.get("greet", "send Welcome")).split("; "):
            await self.do(ctx, *step.partition(" ")[::2])


bot = Scripted()
app = JimsApp(bot, conversation_start_pipeline=bot.greet, name="scripted")
