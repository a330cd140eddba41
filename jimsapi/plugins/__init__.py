"""Plugins: the hooks that they implement, the options that they declare, and how a start builds a server from them."""

from typing import TYPE_CHECKING

from jimsapi.lazy_attributes import lazy_attributes

if TYPE_CHECKING:
    from jimsapi.plugins.commands import pass_settings
    from jimsapi.plugins.compose import build_file_store
    from jimsapi.plugins.core import CoreOptions
    from jimsapi.plugins.errors import OptionError, PluginError, StartError
    from jimsapi.plugins.hooks import hookimpl
    from jimsapi.plugins.options import Options, Settings, option, specs
    from jimsapi.plugins.protocols import (
        AccessDenied,
        AdmissionRecord,
        AuthProvider,
        AuthUnavailable,
        CommitRecord,
        EventSink,
        FileStore,
        InvalidCredentials,
        NoticeLink,
        Observer,
        ReplicaLink,
        RequestRecord,
        ResolverContext,
        RunRecord,
        ThreadResolver,
        ThreadStore,
    )
    from jimsapi.plugins.secrets import Secret, matches_any, read_plain_file, redact, secret_lines, secret_text

__all__ = [
    "AccessDenied",
    "AdmissionRecord",
    "AuthProvider",
    "AuthUnavailable",
    "CommitRecord",
    "CoreOptions",
    "EventSink",
    "FileStore",
    "InvalidCredentials",
    "NoticeLink",
    "Observer",
    "OptionError",
    "Options",
    "PluginError",
    "ReplicaLink",
    "RequestRecord",
    "ResolverContext",
    "RunRecord",
    "Secret",
    "Settings",
    "StartError",
    "ThreadResolver",
    "ThreadStore",
    "build_file_store",
    "hookimpl",
    "matches_any",
    "option",
    "pass_settings",
    "read_plain_file",
    "redact",
    "secret_lines",
    "secret_text",
    "specs",
]

if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__, __dir__ = lazy_attributes(
        __name__,
        {
            "jimsapi.plugins.commands": ("pass_settings",),
            "jimsapi.plugins.compose": ("build_file_store",),
            "jimsapi.plugins.core": ("CoreOptions",),
            "jimsapi.plugins.errors": ("OptionError", "PluginError", "StartError"),
            "jimsapi.plugins.hooks": ("hookimpl",),
            "jimsapi.plugins.options": ("Options", "Settings", "option", "specs"),
            "jimsapi.plugins.protocols": (
                "AccessDenied",
                "AdmissionRecord",
                "AuthProvider",
                "AuthUnavailable",
                "CommitRecord",
                "EventSink",
                "FileStore",
                "InvalidCredentials",
                "NoticeLink",
                "Observer",
                "ReplicaLink",
                "RequestRecord",
                "ResolverContext",
                "RunRecord",
                "ThreadResolver",
                "ThreadStore",
            ),
            "jimsapi.plugins.secrets": (
                "Secret",
                "matches_any",
                "read_plain_file",
                "redact",
                "secret_lines",
                "secret_text",
            ),
        },
    )
