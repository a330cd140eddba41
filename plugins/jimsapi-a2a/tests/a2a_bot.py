"""The scripted bot, which can ask a person too: `ask Refund?` is answered with what the person says."""

from jimsapi import JimsApp, ThreadContext
from tests.apps.scripted import Scripted


class Asking(Scripted):
    """A scripted pipeline with the step `ask`."""

    async def do(self, ctx: ThreadContext, command: str, argument: str) -> None:
        """Do one step."""
        if command == "ask":
            ctx.send_message(f"answered: {await ctx.ask('question', argument)}")
        else:
            await super().do(ctx, command, argument)


app = JimsApp(Asking(), name="asking")
