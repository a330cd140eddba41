"""Answers questions about people and their interests from a graph: `jimsapi --app examples.interests:app`."""

from jimsapi import JimsApp

from .pipeline import answer_interests, greet
from .tables import data_folder, read_tables

# A faulty folder stops the start here. The database opens only with the first question.
read_tables(data_folder())

__all__ = ["answer_interests", "app", "greet"]

app = JimsApp(answer_interests, conversation_start_pipeline=greet, name="interests")
