"""The agent of `examples/refunds`, written with PydanticAI: `jimsapi --app examples.refunds_pydantic_ai:app`."""

from jimsapi import JimsApp

from .pipeline import answer, open_agent

__all__ = ["answer", "app"]

app = JimsApp(answer, name="refunds-pydantic-ai", lifespan=open_agent, private_events=("state.*",))
