"""Options: typed classes.

Each field defines a command-line flag, a `JIMS_*` environment variable and a keyword argument of `create_api`.

An option's value comes from the first of these that is set: the flag or keyword, the variable `JIMS_<NAME>`, the file
that `JIMS_<NAME>_FILE` names, the configuration file, the default. An empty value counts as not set. An empty file
stops the start.

An option that repeats has several values. Each flag adds one, the keyword is one value or a list, the variable is one
value and is not split unless its help says so, and the file has one value a line, beside comment lines that begin with
#. If such an option is a `Secret`, the values of all sources are used together: operators can add a new key in one
source while the old key is still in another.
"""

import difflib
import re
import types
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from jimsapi.plugins.config_file import NO_CONFIG, ConfigFile
from jimsapi.plugins.errors import OptionError, StartError
from jimsapi.plugins.secrets import Secret, read_plain_file, redact, secret_lines, secret_text, url_secrets

ENV_PREFIX = "JIMS_"
FILE_SUFFIX = "_FILE"
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})


class _Declaration(msgspec.Struct, frozen=True):
    """The value of a class attribute that `option()` declares."""

    default: Any
    help: str
    minimum: float | None
    maximum: float | None


_REQUIRED: Any = object()


def option(default: Any = _REQUIRED, *, help: str, minimum: float | None = None, maximum: float | None = None) -> Any:
    """Declare an option in an `Options` class.

    Without a `default`, the default of `X | None` is None, of a tuple `()`, and of a bool False; an option of any other
    type is then required. `minimum` and `maximum` are the inclusive bounds of a number. `help` is the sentence that
    `--help` and the reference show.
    """
    return _Declaration(default, help, minimum, maximum)


class OptionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One option of an `Options` class. The command line and the documentation are generated from it."""

    field: str
    key: str
    type: Any
    default: Any
    help: str
    minimum: float | None
    maximum: float | None
    repeats: bool

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.key.upper()

    @property
    def file_variable(self) -> str:
        """The variable that names a file with the value. It has no effect if it is another option's own variable."""
        return self.variable + FILE_SUFFIX

    @property
    def merges_sources(self) -> bool:
        """Whether the option uses the values of all sources, not only those of the first."""
        return self.repeats and self.type is Secret

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.type) if get_origin(self.type) is Literal else ()


class Options:
    """Base class of a plugin's options. Each option is an annotated field that `option` declares.

    Every name begins with the class's `prefix`: with the prefix `ticket`, the field `secret` is the flag
    `--ticket-secret`, the variable `JIMS_TICKET_SECRET` and the keyword `ticket_secret`. The type of a field is str,
    int, float, bool, Path, Secret, a Literal of strings, one of these or None, or `tuple[X, ...]` with one of these
    (the option then repeats). Instances are frozen. `settings.get(TicketOptions)` returns one; a test can create one:
    `TicketOptions(secret=Secret("s"))`.
    """

    _prefix: ClassVar[str] = ""
    _specs: ClassVar[tuple[OptionSpec, ...]]

    def __init_subclass__(cls, prefix: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._prefix = prefix

    def __init__(self, **values: Any) -> None:
        for spec in specs(type(self)):
            if spec.field in values:
                value = values.pop(spec.field)
            elif spec.required:
                raise OptionError(f"{spec.flag} is required: give it, or set {spec.variable}")
            else:
                value = spec.default
            object.__setattr__(self, spec.field, value)
        if values:
            raise TypeError(f"{type(self).__name__} has no option {', '.join(values)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


OptionsType = TypeVar("OptionsType", bound=Options)
Made = TypeVar("Made")


def specs(cls: type[Options]) -> tuple[OptionSpec, ...]:
    """Return the options that a class declares, in order. Raises `OptionError` for an invalid declaration."""
    if "_specs" not in vars(cls):  # a start needs them several times
        hints = {name: hint for name, hint in get_type_hints(cls).items() if get_origin(hint) is not ClassVar}
        cls._specs = tuple(_spec(cls, field, hint) for field, hint in hints.items())
    return cls._specs


def _spec(cls: type[Options], field: str, hint: Any) -> OptionSpec:
    declared = getattr(cls, field, None)
    if not isinstance(declared, _Declaration):
        raise OptionError(f"{cls.__name__}.{field} must be declared as `{field}: … = option(…, help=…)`")
    value_type, default, repeats = hint, declared.default, False
    if get_origin(hint) in (Union, types.UnionType):
        inner = [arm for arm in get_args(hint) if arm is not types.NoneType]
        value_type = inner[0] if len(inner) == 1 else hint
        default = None if default is _REQUIRED else default
    elif get_origin(hint) is tuple:
        value_type, repeats = get_args(hint)[0] if get_args(hint)[1:] == (...,) else hint, True
        default = () if default is _REQUIRED else default
    elif hint is bool and default is _REQUIRED:
        default = False
    is_literal = get_origin(value_type) is Literal and all(isinstance(value, str) for value in get_args(value_type))
    if value_type not in (str, int, float, bool, Path, Secret) and not is_literal:
        raise OptionError(f"{cls.__name__}.{field}: an option cannot be a {value_type!r}")
    return OptionSpec(
        field=field,
        key=f"{cls._prefix}_{field}" if cls._prefix else field,
        type=value_type,
        default=default,
        help=declared.help,
        minimum=declared.minimum,
        maximum=declared.maximum,
        repeats=repeats,
    )


def parse(spec: OptionSpec, value: Any, source: str) -> Any:
    """Convert one value of an option, a text or the value of a keyword, to the option's type.

    Raises:
        OptionError: the value does not have the option's type or range. The message names `source`, and shows the value
            unless it is a secret.
    """
    try:
        parsed = _convert(spec.type, value)
    except (ValueError, TypeError, OverflowError):
        shown = "the value" if spec.type is Secret else _describe_value(value)
        raise OptionError(f"{source}: {shown} is not {_describe(spec)}") from None
    if isinstance(parsed, int | float) and not isinstance(parsed, bool):
        below = spec.minimum is not None and parsed < spec.minimum
        above = spec.maximum is not None and parsed > spec.maximum
        if below or above or parsed != parsed:
            raise OptionError(f"{source}: {value!r} is not {_describe(spec)}")
    return parsed


def _describe_value(value: Any) -> str:
    """Return a faulty value for an error: without the passwords of URLs, and without the content of arrays."""
    if not isinstance(value, str | int | float):
        return "an array" if isinstance(value, list | tuple) else f"a value of the type {type(value).__name__}"
    text = repr(value)
    secrets = url_secrets(text)  # `redact` replaces them while they exist
    return redact(text) if secrets else text


def _convert(kind: Any, value: Any) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError
        return value
    if isinstance(value, bool) and kind is not bool:
        raise TypeError
    if kind is float and isinstance(value, int):
        return float(value)
    if isinstance(value, kind):
        return value
    if kind is Path and hasattr(value, "__fspath__"):
        return Path(value)
    if not isinstance(value, str):
        raise TypeError
    if kind is bool:
        return _boolean(value)
    # Spaces around a secret come from a shell or an editor. A header could not transport them.
    return kind(value.strip() if kind in (int, float, Secret) else value)


def _boolean(text: str) -> bool:
    folded = text.strip().lower()
    if folded in _TRUE:
        return True
    if folded in _FALSE:
        return False
    raise ValueError


def is_on(text: str) -> bool:
    """Return whether the text of a switch, which may belong to a missing plugin, means anything but off."""
    return text.strip().lower() not in {"", *_FALSE}


def _describe(spec: OptionSpec) -> str:
    if spec.choices:
        return f"one of {', '.join(spec.choices)}"
    names = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path", Secret: "text"}
    text = names.get(spec.type, "text")
    if spec.minimum is not None and spec.maximum is not None:
        return f"{text} from {spec.minimum:.16g} to {spec.maximum:.16g}"
    return text if spec.minimum is None else f"{text} of at least {spec.minimum:.16g}"


class Owned(msgspec.Struct, frozen=True):
    """An `Options` class and the distribution that it comes from."""

    options: type[Options]
    distribution: str


class SecretSources(msgspec.Struct, frozen=True):
    """The sources of a `Secret` that repeats, for a plugin that reads the file again when it changes.

    `given` has the values of flags, keyword and variable. `file` is the path in the variable `JIMS_<NAME>_FILE`, or in
    the configuration file; None if neither is set. `variable` names the one that is used.
    """

    given: tuple[Secret, ...]
    file: Path | None
    variable: str


class Settings:
    """The resolved options of the core and of all plugins.

    `given` has the values of flags or keywords, by key; None counts as not set. `environ` is the process's environment,
    and `config` the configuration file. With `lacks_plugins`, unknown keys of the file may be options of plugins that
    are not loaded, so they are warnings. `warnings` are sentences about values that have no effect.
    `implementations(hook)` returns the functions of the loaded plugins for a hook.

    Raises:
        OptionError: an option is unknown, is declared twice, or has an invalid value.
    """

    def __init__(
        self,
        owned: Iterable[Owned],
        given: Mapping[str, Any],
        environ: Mapping[str, str],
        implementations: Callable[[str], Sequence[Any]] = lambda hook: (),
        config: ConfigFile = NO_CONFIG,
        *,
        lacks_plugins: bool = False,
    ) -> None:
        self.implementations = implementations
        self._environ = environ
        self._config = config
        self._given = {key: value for key, value in given.items() if not _is_unset(value)}
        self._instances: dict[type[Options], Options] = {}
        self._origins: dict[str, str] = {}
        self._sources: dict[str, SecretSources] = {}
        self.warnings: list[str] = []
        self._url_secrets: list[Secret] = []
        self._shared: dict[Callable[[Settings], Any], Any] = {}
        owned = list(owned)
        declared = [spec for item in owned for spec in specs(item.options)]
        self._keys = {spec.key for spec in declared}
        self._check_config(declared, lacks_plugins)
        owners: dict[str, str] = {}
        for item in owned:
            values: dict[str, Any] = {}
            for spec in specs(item.options):
                if spec.key in owners:
                    raise OptionError(
                        f"option {spec.flag} is declared by {owners[spec.key]} and by {item.distribution}: "
                        "uninstall one of the two"
                    )
                owners[spec.key] = item.distribution
                self._resolve(spec, values)
            self._instances[item.options] = _instance(item, values)
            for value in values.values():
                for one in value if isinstance(value, tuple) else (value,):
                    if isinstance(one, str):
                        self.guard(one)
        self._reject_unknown_keys(owners)
        self.known = frozenset(owners)
        self.warnings += [
            f"{variable} is set but is not an option; did you mean {near}?"
            for variable, near in near_misses(environ, owners)
        ]

    def get(self, cls: type[OptionsType]) -> OptionsType:
        """Return the resolved options of a class that a `jimsapi_options` hook returned.

        Raises `OptionError` for any other class.
        """
        try:
            instance = self._instances[cls]
        except KeyError:
            raise OptionError(f"{cls.__name__} was not declared: return it from jimsapi_options") from None
        assert isinstance(instance, cls)
        return instance

    def value(self, key: str) -> Any:
        """Return the value of any option by its key, for example `host`; None if there is no such option.

        For options of the command and of other plugins, whose class a plugin does not have. `create_api` has no options
        of the command.
        """
        for cls, instance in self._instances.items():
            for spec in specs(cls):
                if spec.key == key:
                    return getattr(instance, spec.field)
        return None

    def is_given(self, key: str) -> bool:
        """Return whether a flag, keyword, variable or file sets the option `key`, for example `ticket_secret`."""
        return key in self._origins

    def origin(self, key: str) -> str:
        """Return where the value of an option comes from, for people: names of flags, variables and files."""
        return self._origins.get(key, "default")

    def shared(self, make: Callable[["Settings"], Made]) -> Made:
        """Return the object that `make(settings)` returns, for hooks of one plugin that use the same object.

        The first call makes it; later calls with the same function or class return it. Each start of an app has new
        settings, and so new objects. Raises `TypeError` if `make` is a lambda or a nested function, which is a new one
        each time.

            class Visits:
                def __init__(self, settings): ...

            @hookimpl
            def jimsapi_observer(settings):
                return settings.shared(Visits)

            @hookimpl
            def jimsapi_metrics(registry, settings):
                registry.register(settings.shared(Visits))
        """
        if isinstance(make, types.FunctionType) and "<" in make.__qualname__:
            raise TypeError(f"settings.shared needs a class or a function of a module, not {make.__qualname__}")
        if make not in self._shared:
            self._shared[make] = make(self)
        made: Made = self._shared[make]
        return made

    def guard(self, url: str) -> None:
        """Let `redact` replace the secrets in `url`, such as its password, while these settings exist."""
        self._url_secrets.extend(url_secrets(url))

    def sources(self, key: str) -> SecretSources:
        """Return the sources of a `Secret` that repeats. Raises `KeyError` for any other option."""
        return self._sources[key]

    def _resolve(self, spec: OptionSpec, values: dict[str, Any]) -> None:
        text = self._environ.get(spec.variable, "")
        if _is_service_link(spec, text) and spec.key not in self._given:
            self.warnings.append(
                f"{spec.variable}={text} is not read: Kubernetes set it for a service of that name; set "
                f"enableServiceLinks: false in the pod, or give {spec.flag}, or rename the service"
            )
        file_key = spec.key + FILE_SUFFIX.lower()
        if self._environ.get(spec.file_variable) and file_key not in self._keys and self._config.values.get(file_key):
            self.warnings.append(f"{self._config.source(file_key)} is not read, since {spec.file_variable} is set")
        found = list(islice(self._raw_values(spec), None if spec.merges_sources else 1))
        if spec.merges_sources:
            self._sources[spec.key] = self._sources_of(spec, found)
        elif self._environ.get(spec.file_variable) and self._file_of(spec) and self._variable_of(spec) is not None:
            self.warnings.append(
                f"{spec.file_variable} is not read, since {spec.variable} is set too; unset one of them"
            )
        if not found:
            return
        if spec.repeats:
            values[spec.field] = tuple(item for raw, source in found for item in _parse_all(spec, raw, source))
        else:
            [(raw, source)] = found
            values[spec.field] = parse(spec, raw, source)
        self._origins[spec.key] = ", ".join(source for _, source in found)

    def _raw_values(self, spec: OptionSpec) -> Iterator[tuple[Any, str]]:
        """The value of each source that is set, with the source's name, in order of precedence."""
        if spec.key in self._given:
            yield self._given[spec.key], spec.flag
        if (text := self._variable_of(spec)) is not None:
            yield text, spec.variable
        if (file := self._file_of(spec)) is not None:
            yield _read_values(spec, *file), file[1]
        if (value := self._config.values.get(spec.key)) is not None and not _is_unset(value):
            yield value, self._config.source(spec.key)

    def _variable_of(self, spec: OptionSpec) -> str | None:
        """The text of an option's variable; None if it is not set, or if Kubernetes set it."""
        text = self._environ.get(spec.variable)
        return None if text is None or _is_unset(text) or _is_service_link(spec, text) else text

    def _file_of(self, spec: OptionSpec) -> tuple[Path, str] | None:
        """The file with an option's value, and what names it; or None.

        `JIMS_KEYS_FILE` is `--keys-file`, not the file of `--keys`.
        """
        key = spec.key + FILE_SUFFIX.lower()
        if key in self._keys:
            return None
        path = self._environ.get(spec.file_variable)
        if path is not None and not _is_unset(path):
            return Path(path), spec.file_variable
        named = self._config.values.get(key)
        if named is None or _is_unset(named):
            return None
        if not isinstance(named, str):
            source, kind = self._config.source(key), type(named).__name__
            raise OptionError(f"{source}: expected a file path as a string, got {kind}; write the path in quotes")
        return Path(named), self._config.source(key)

    def _sources_of(self, spec: OptionSpec, found: list[tuple[Any, str]]) -> SecretSources:
        path, name = self._file_of(spec) or (None, "")
        given = tuple(item for raw, source in found if source != name for item in _parse_all(spec, raw, source))
        return SecretSources(given, path, name or spec.file_variable)

    def _check_config(self, declared: Sequence[OptionSpec], lacks_plugins: bool) -> None:
        """Raise `OptionError` for a key of the configuration file that is unknown, a secret, or set in two ways."""
        values = self._config.values
        suffix = FILE_SUFFIX.lower()
        for spec in declared:
            if spec.key not in values:
                continue
            source, file_key = self._config.source(spec.key), spec.key + suffix
            if spec.type is Secret:
                raise OptionError(f"{source} is a secret: put it in a file of its own, and name that as {file_key}")
            if file_key in values and file_key not in self._keys:
                raise OptionError(f"{source} and {file_key} are both set; remove one of the two")
        for key in values:
            if key in self._keys or key.removesuffix(suffix) in self._keys:
                continue
            if lacks_plugins:
                self.warnings.append(f"{self._config.source(key)} is not read: no loaded plugin has this option")
                continue
            near = difflib.get_close_matches(key, self._keys, n=1, cutoff=0.8)
            hint = f"; did you mean {near[0]}?" if near else "; is its plugin installed and loaded?"
            raise OptionError(f"{self._config.path}: there is no option {key}{hint}")

    def _reject_unknown_keys(self, owners: Collection[str]) -> None:
        for key in self._given:
            if key not in owners:
                near = difflib.get_close_matches(key, owners, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise OptionError(f"there is no option {key}{hint}")


def _instance(item: Owned, values: dict[str, Any]) -> Options:
    """Create the options of a class. Raises `OptionError` also for an error in the code of the class."""
    try:
        return item.options(**values)
    except StartError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise OptionError(
            f"the options of {item.distribution} cannot be used: {type(error).__name__}: {text}; fix "
            f"{item.options.__name__}, or: pip uninstall {item.distribution}"
        ) from error


def _is_service_link(spec: OptionSpec, text: str) -> bool:
    """Whether Kubernetes set the variable of a port. If a service is named `jims`, Kubernetes sets
    `JIMS_PORT=tcp://10.0.0.1:8080` in the pods of its namespace, and Docker's links did the same."""
    return spec.type is int and spec.key.endswith("port") and re.match(r"(tcp|udp|sctp)://", text) is not None


def _is_unset(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_unset(item) for item in value)
    if isinstance(value, Secret):
        return not value.reveal()
    return value is None or (isinstance(value, str) and not value.strip())


def _parse_all(spec: OptionSpec, raw: Any, source: str) -> list[Any]:
    items = raw if isinstance(raw, list | tuple) else [raw]
    return [parse(spec, item, source) for item in items if not _is_unset(item)]


def _read_values(spec: OptionSpec, path: Path, source: str) -> Any:
    """Read an option's file: one value, or one value a line if the option repeats. Raises `OptionError`.

    `source` is what names the file: a variable, or a key of the configuration file.
    """
    try:
        text = secret_text(read_plain_file(path)[0])
    except OSError as error:
        raise OptionError(f"{source}: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise OptionError(f"{source}: cannot read {path}: {error}") from None
    values: Any = secret_lines(text) if spec.repeats else _only_line(spec, path, text, source)
    if _is_unset(values):
        what = "the secret" if spec.type is Secret else "the value"
        unset = "unset the variable" if source == spec.file_variable else "remove the key"
        raise OptionError(f"{source}: {path} is empty; put {what} in it, or {unset}")
    return values


def _only_line(spec: OptionSpec, path: Path, text: str, source: str) -> str:
    """The value in the file of an option that does not repeat. Raises `OptionError` for more lines or a control
    character."""
    value = text.rstrip("\r\n")
    if len(lines := value.replace("\r\n", "\n").replace("\r", "\n").split("\n")) > 1:
        raise OptionError(
            f"{source}: {path} has {len(lines)} lines, and {spec.flag} has one value; leave only the line "
            "with the value, without comments"
        )
    if control := next((character for character in value if unicodedata.category(character) == "Cc"), None):
        raise OptionError(
            f"{source}: {path} contains the control character U+{ord(control):04X}; write the value as "
            "text without control characters"
        )
    return value


def near_misses(environ: Mapping[str, str], known: Collection[str]) -> list[tuple[str, str]]:
    """Return pairs (set variable, option's variable) where a `JIMS_*` variable looks like a misspelt option.

    Other programs use the prefix too, so an unknown variable is not a mistake by itself.
    """
    variables = [ENV_PREFIX + key.upper() for key in known]
    ours = {*variables, *(name + FILE_SUFFIX for name in variables)}
    unknown = [name for name in sorted(environ) if name.startswith(ENV_PREFIX) and name not in ours]
    return [(name, near) for name in unknown if (near := _nearest(name, variables)) is not None]


def _nearest(name: str, variables: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(name, variables, n=1, cutoff=0.85)
    if name.endswith(FILE_SUFFIX):  # with the suffix, any two short names would look alike, so compare without it
        stem = name.removesuffix(FILE_SUFFIX)
        near += [found + FILE_SUFFIX for found in difflib.get_close_matches(stem, variables, n=1, cutoff=0.85)]
    return next(iter(difflib.get_close_matches(name, near, n=1)), None)
