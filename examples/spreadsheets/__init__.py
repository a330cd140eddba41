"""Answers questions about the files of a message: `jimsapi --app examples.spreadsheets:app --files-store …`."""

from jimsapi import JimsApp

from .pipeline import answer

__all__ = ["answer", "app"]

app = JimsApp(answer, name="spreadsheets")
