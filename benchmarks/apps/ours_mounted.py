"""Ours for any server: the chat API with the peers' routes as an ASGI app, without the command's log line a request."""

from benchmarks.apps import echo
from benchmarks.serving import KEY
from jimsapi import create_api

api = create_api(echo.app, store="memory:", api_key=KEY)
