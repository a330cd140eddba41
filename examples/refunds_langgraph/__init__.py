"""The agent of `examples/refunds`, written with LangGraph: `jimsapi --app examples.refunds_langgraph:app`."""

from jimsapi import JimsApp

from .pipeline import answer, open_graph

__all__ = ["answer", "app"]

app = JimsApp(answer, name="refunds-langgraph", lifespan=open_graph, private_events=("state.*",))
