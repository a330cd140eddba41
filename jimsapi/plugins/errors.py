"""Why a start is refused. Each message is one line that says what is wrong, where, and the way out."""


class StartError(Exception):
    """The server cannot start as configured. The message is what the operator reads; it holds no secret."""


class PluginError(StartError):
    """A plugin cannot be used; the message names it and its distribution."""


class OptionError(StartError):
    """An option's value is unusable, or the option itself is."""
