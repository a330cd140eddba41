"""An agent that finds orders and refunds them: `jimsapi --app examples.refunds:app`."""

from jimsapi import JimsApp

from .model import open_model
from .pipeline import answer

__all__ = ["answer", "app"]

app = JimsApp(answer, name="refunds", lifespan=open_model, private_events=("state.*",))
