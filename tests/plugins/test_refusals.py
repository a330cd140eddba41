"""What would fail silently or late stops the start, in one line that names plugin, distribution, cause and way out."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jimsapi import create_api
from jimsapi.plugins.errors import StartError
from tests.command import refusal, run_command
from tests.plugins.distributions import install

HOOKIMPL = "from jimsapi import *\n"

FAULTY_PLUGINS: Mapping[str, tuple[str, str]] = {
    "import fails": (
        "import no_such_package",
        "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'",
    ),
    "import raises over two lines": ("raise RuntimeError('one\\ntwo')", "cannot be imported: RuntimeError: one two"),
    "syntax": ("def jimsapi_options(:", "cannot be imported: SyntaxError"),
    "import exits": ("import sys; sys.exit(3)", "cannot be imported: SystemExit: 3"),
    "no hook at all": ("x = 1", "implements no hook"),
    "forgotten hookimpl": (
        "def jimsapi_auth_provider(settings): return None",
        "jimsapi_auth_provider is not marked @hookimpl and would never be called",
    ),
    "wrapper": (
        "@hookimpl(wrapper=True)\ndef jimsapi_observer(): return (yield)",
        "jimsapi_observer is a wrapper",
    ),
    "old wrapper": (
        "@hookimpl(hookwrapper=True)\ndef jimsapi_observer(): yield",
        "jimsapi_observer is a wrapper",
    ),
    "keyword-only": (
        "@hookimpl\ndef jimsapi_observer(*, settings): return None",
        "jimsapi_observer has the parameter settings, which is not a plain positional one",
    ),
    "default": (
        "@hookimpl\ndef jimsapi_observer(settings=None): return None",
        "jimsapi_observer gives settings a default",
    ),
    "args": (
        "@hookimpl\ndef jimsapi_observer(*args): return None",
        "jimsapi_observer has the parameter *args, which is not a plain positional one",
    ),
    "kwargs": (
        "@hookimpl\ndef jimsapi_observer(**kwargs): return None",
        "jimsapi_observer has the parameter **kwargs, which is not a plain positional one",
    ),
    "positional-only": (
        "@hookimpl\ndef jimsapi_observer(settings, /): return None",
        "jimsapi_observer has the parameter settings, which is not a plain positional one",
    ),
    "unknown parameter": (
        "@hookimpl\ndef jimsapi_observer(config): return None",
        "jimsapi_observer has the parameter config; the hook has settings",
    ),
    "async": (
        "@hookimpl\nasync def jimsapi_observer(settings): return None",
        "jimsapi_observer is async",
    ),
    "async generator": (
        "@hookimpl\nasync def jimsapi_observer(settings): yield None",
        "jimsapi_observer is async",
    ),
    "returns a coroutine": (
        "async def build(): return None\n@hookimpl\ndef jimsapi_observer(): return build()",
        "jimsapi_observer returned an awaitable",
    ),
    "returns a future": (
        "import asyncio\n@hookimpl\ndef jimsapi_observer(): return asyncio.get_running_loop().create_future()",
        "jimsapi_observer returned an awaitable",
    ),
    "metrics hook returns a coroutine": (
        "async def build(): return None\n@hookimpl\ndef jimsapi_metrics(): return build()",
        "jimsapi_metrics returned an awaitable",
    ),
    "misspelt": (
        "@hookimpl\ndef jimsapi_observr(): return None",
        "jimsapi_observr is not a hook of jimsapi: did you mean jimsapi_observer?",
    ),
    "of no hook": ("@hookimpl\ndef on_start(): return None", "on_start is not a hook of jimsapi"),
    "takes a place": (
        "@hookimpl(tryfirst=True)\ndef jimsapi_auth_provider(): return None",
        "jimsapi_auth_provider is marked tryfirst or trylast",
    ),
    "hook raises": (
        "@hookimpl\ndef jimsapi_observer(): raise LookupError('no\\nbackend')",
        "jimsapi_observer failed: LookupError: no backend",
    ),
    "options: no class": (
        "@hookimpl\ndef jimsapi_options(): return {}",
        "jimsapi_options returned a dict, which is not an Options class",
    ),
    "options: None": (
        "@hookimpl\ndef jimsapi_options(): pass",
        "jimsapi_options returned a NoneType, which is not an Options class",
    ),
    "options: an unusable declaration": (
        (
            "class Mine(Options, prefix='mine'):\n    size: list[int] = option(help='x')\n"
            "@hookimpl\ndef jimsapi_options(): return Mine"
        ),
        "Mine.size: an option cannot be a list[int]",
    ),
    "options: a bare field": (
        "class Mine(Options, prefix='mine'):\n    size: int = 3\n@hookimpl\ndef jimsapi_options(): return Mine",
        "Mine.size must be declared as",
    ),
    "options: an unknown annotation": (
        (
            "class Mine(Options, prefix='mine'):\n    size: 'Nowhere' = option(help='x')\n"
            "@hookimpl\ndef jimsapi_options(): return Mine"
        ),
        "Nowhere",
    ),
    "provider: no provider": (
        "@hookimpl\ndef jimsapi_auth_provider(): return object()",
        "what jimsapi_auth_provider built, an object, has no authenticate()",
    ),
    "provider: a class": (
        (
            "class P:\n    name = 'p'\n    async def authenticate(self, c): return None\n"
            "@hookimpl\ndef jimsapi_auth_provider(): return P"
        ),
        "jimsapi_auth_provider",
    ),
    "provider: synchronous": (
        (
            "class P:\n    name = 'p'\n    def authenticate(self, c): return None\n"
            "@hookimpl\ndef jimsapi_auth_provider(): return P()"
        ),
        "authenticate",
    ),
    "resolver: no resolver": (
        "@hookimpl\ndef jimsapi_thread_resolver(): return True",
        "what jimsapi_thread_resolver built, a bool, has no resolve()",
    ),
    "sink: no sink": (
        "@hookimpl\ndef jimsapi_event_sink(): return True",
        "what jimsapi_event_sink built, a bool, has no deliver()",
    ),
    "sink: without a name": (
        "class S:\n    async def deliver(self, events): pass\n@hookimpl\ndef jimsapi_event_sink(): return S()",
        "name",
    ),
    "observer: async": (
        "class O:\n    async def on_run(self, record): pass\n@hookimpl\ndef jimsapi_observer(): return O()",
        "on_run",
    ),
    "observer: told of nothing": (
        "@hookimpl\ndef jimsapi_observer(): return True",
        "what jimsapi_observer built, a bool",
    ),
    "store: no store": (
        "@hookimpl\ndef jimsapi_thread_store(): return True",
        "what jimsapi_thread_store built, a bool, has no ping()",
    ),
    "store: without a method": (
        (
            "from jimsapi.stores import MemoryStore\nclass S(MemoryStore):\n    fork = property()\n"
            "@hookimpl\ndef jimsapi_thread_store(): return S()"
        ),
        "what jimsapi_thread_store built returned a S from __aenter__, which has no fork()",
    ),
    "wrapper hook: nothing to call": (
        "@hookimpl\ndef jimsapi_asgi_wrapper(): return 1",
        "what jimsapi_asgi_wrapper built, an int, has no __call__()",
    ),
    "wrapper hook: a wrapper that raises": (
        "@hookimpl\ndef jimsapi_asgi_wrapper(): return lambda app: 1 / 0",
        "ZeroDivisionError",
    ),
    "wrapper hook: a wrapper that forgets to return": (
        "@hookimpl\ndef jimsapi_asgi_wrapper(): return lambda app: None",
        "jimsapi_asgi_wrapper",
    ),
    "adapter: no JimsApp": (
        "@hookimpl\ndef jimsapi_adapt_app(): return {}",
        "jimsapi_adapt_app returned a dict, which is not a JimsApp",
    ),
    "metrics: a name that is taken": (
        (
            "from prometheus_client import Counter\n@hookimpl\n"
            "def jimsapi_metrics(registry):\n    for _ in range(2): Counter('mine', 'x', registry=registry)"
        ),
        "Duplicated timeseries in CollectorRegistry",
    ),
    "metrics: a name of ours": (
        (
            "from prometheus_client import Counter\n@hookimpl\n"
            "def jimsapi_metrics(registry): Counter('jims_http_requests', 'x', registry=registry)"
        ),
        "Duplicated timeseries in CollectorRegistry",
    ),
    "routes: of the core": (
        "@hookimpl\ndef jimsapi_routes(router):\n    @router.post('/api/v1/chat')\n    async def mine(request): pass",
        "POST /api/v1/chat is claimed twice",
    ),
    "routes: the hook raises": (
        "@hookimpl\ndef jimsapi_routes(router): router.nothing",
        "jimsapi_routes failed: AttributeError",
    ),
    "entering fails": (
        (
            "from contextlib import asynccontextmanager\n"
            "@asynccontextmanager\nasync def life():\n    raise ConnectionError('no broker')\n    yield\n"
            "@hookimpl\ndef jimsapi_event_sink(): return life()"
        ),
        "what jimsapi_event_sink built could not be entered: ConnectionError: no broker",
    ),
    "entering gives no sink": (
        (
            "from contextlib import asynccontextmanager\n"
            "@asynccontextmanager\nasync def life():\n    yield 7\n"
            "@hookimpl\ndef jimsapi_event_sink(): return life()"
        ),
        "what jimsapi_event_sink built returned an int from __aenter__, which has no deliver()",
    ),
}


@pytest.fixture
def bot(site: Path) -> Path:
    (site / "bot.py").write_text("async def app(ctx):\n    ctx.send_message('hi')\n")
    return site


def start(site: Path) -> str:
    """Start the real command; gives the line with which it was refused."""
    given = [
        "--app",
        "bot",
        "--store",
        "memory:",
        "--port",
        "0",
        "--metrics-port",
        "0",
        "--api-key",
        "a-key-of-enough-length",
    ]
    return refusal(run_command(*given, cwd=site))


async def start_here(**settings: Any) -> str:
    """Start in this process, which is quicker; gives the message of the refusal."""
    with pytest.raises(StartError) as refused:
        async with create_api("bot", **({"store": "memory:", "api_key": "k"} | settings)).lifespan():
            pass
    line = str(refused.value)
    assert "\n" not in line
    return line


@pytest.mark.anyio
@pytest.mark.parametrize("fault", FAULTY_PLUGINS)
async def test_a_faulty_plugin_stops_the_start_and_the_message_names_it_and_the_way_out(bot: Path, fault: str) -> None:
    code, cause = FAULTY_PLUGINS[fault]
    install(bot, "acme-faulty", HOOKIMPL + code, point="mishap = acme_faulty", version="2.1")
    line = await start_here()
    assert cause in line
    assert "plugin mishap (acme_faulty, distribution acme-faulty 2.1)" in line
    assert "pip uninstall acme-faulty" in line


@pytest.mark.parametrize("fault", ["import raises over two lines", "entering fails"])
def test_a_refused_start_prints_one_line_and_exits_1(bot: Path, fault: str) -> None:
    code, cause = FAULTY_PLUGINS[fault]
    install(bot, "acme-faulty", HOOKIMPL + code, point="mishap = acme_faulty", version="2.1")
    line = start(bot)
    assert cause in line
    assert "plugin mishap (acme_faulty, distribution acme-faulty 2.1)" in line
    assert "pip uninstall acme-faulty" in line


@pytest.mark.parametrize(
    "fault",
    [
        "import fails",
        "import exits",
        "forgotten hookimpl",
        "options: no class",
        "options: an unusable declaration",
        "options: an unknown annotation",
    ],
)
def test_beside_a_faulty_plugin_what_diagnoses_still_works(bot: Path, fault: str) -> None:
    install(bot, "acme-faulty", HOOKIMPL + FAULTY_PLUGINS[fault][0], point="mishap = acme_faulty", version="2.1")
    assert "1. mishap  acme-faulty 2.1  acme_faulty" in diagnose("plugins", bot)
    assert "acme_faulty" not in sys.modules
    assert diagnose("--version", bot).startswith("jimsapi ")
    shown = diagnose("--help", bot)
    assert "--api-key" in shown
    assert "pipuninstallacme-faulty" in "".join(shown.split())  # wrapped, also at hyphens


@pytest.mark.parametrize("body", ["raise LookupError('x')", "cli.nothing"])
def test_help_works_beside_a_plugin_whose_commands_fail(bot: Path, body: str) -> None:
    install(bot, "acme-faulty", f"{HOOKIMPL}@hookimpl\ndef jimsapi_commands(cli): {body}")
    assert "pipuninstallacme-faulty" in "".join(diagnose("--help", bot).split())
    assert "jimsapi_commands failed" in start(bot)


def test_a_command_that_plugins_would_break_says_so_under_check_too(bot: Path) -> None:
    install(bot, "acme-faulty", "import no_such_package")
    checked = run_command("check", "--app", "bot", "--store", "memory:", cwd=bot)
    assert checked.returncode == 1
    assert "no_such_package" in checked.stderr.splitlines()[-1]
    assert "no_such_package" in refusal(run_command("openapi", "--app", "bot", cwd=bot))


@pytest.mark.anyio
async def test_a_target_that_is_not_in_its_module_is_named(bot: Path) -> None:
    install(bot, "acme-faulty", "x = 1", point="mishap = acme_faulty:plugin")
    line = await start_here()
    assert "plugin mishap (acme_faulty:plugin, distribution acme-faulty 1.0) cannot be imported: AttributeError" in line


def test_two_distributions_under_one_name_are_refused_naming_both(bot: Path) -> None:
    hook = f"{HOOKIMPL}@hookimpl\ndef jimsapi_observer(): return None"
    install(bot, "acme-one", hook, point="audit = acme_one", version="1.1")
    install(bot, "acme-two", hook, point="audit = acme_two", version="2.2")
    line = start(bot)
    assert "two plugins are named audit" in line
    assert "acme-one 1.1" in line
    assert "acme-two 2.2" in line
    assert "pip uninstall" in line
    listed = diagnose("plugins", bot)
    assert "1. audit  acme-one 1.1" in listed
    assert "2. audit  acme-two 2.2" in listed


OPTION = f"""{HOOKIMPL}
class Mine(Options, prefix="%s"):
    %s: str = option("", help="x")

@hookimpl
def jimsapi_options():
    return Mine
"""


def test_two_owners_of_an_option_are_refused_naming_both(bot: Path) -> None:
    install(bot, "acme-one", OPTION % ("tape", "path"))
    install(bot, "acme-two", OPTION % ("tape", "path"))
    line = start(bot)
    assert "option --tape-path is declared by acme-one and by acme-two" in line
    assert "uninstall one of the two" in line
    assert "--tape-path" in diagnose("--help", bot)


@pytest.mark.anyio
async def test_a_plugin_cannot_take_an_option_of_ours(bot: Path) -> None:
    install(bot, "acme-one", OPTION % ("thread", "queue"))
    line = await start_here()
    assert "option --thread-queue is declared by jimsapi and by acme-one" in line


PROVIDER = f"""{HOOKIMPL}
class P:
    name = "door"
    async def authenticate(self, connection):
        return None

@hookimpl
def jimsapi_auth_provider():
    return P()
"""


@pytest.mark.anyio
async def test_two_providers_of_one_name_are_refused_naming_both_distributions(bot: Path) -> None:
    install(bot, "acme-one", PROVIDER)
    install(bot, "acme-two", PROVIDER)
    line = await start_here()
    assert "two auth providers are named door" in line
    assert "acme-one" in line
    assert "acme-two" in line
    assert "pip uninstall" in line


@pytest.mark.anyio
async def test_a_plugin_cannot_pass_for_the_bearer_key(bot: Path) -> None:
    install(bot, "acme-one", PROVIDER.replace('"door"', '"key"'))
    line = await start_here()
    assert "two auth providers are named key" in line
    assert "acme-one" in line


@pytest.mark.anyio
async def test_a_route_that_two_plugins_claim_is_refused_naming_both_distributions(bot: Path) -> None:
    routes = f"""{HOOKIMPL}
@hookimpl
def jimsapi_routes(router):
    @router.get("/motto")
    async def motto(request):
        return JSONResponse({{}})
"""
    install(bot, "acme-one", routes)
    install(bot, "acme-two", routes)
    line = start(bot)
    assert "GET /motto is claimed twice" in line
    assert "acme_one" in line
    assert "distribution acme-two 1.0" in line


@pytest.mark.anyio
@pytest.mark.parametrize("suffix", ["", "_FILE"])
async def test_an_auth_variable_without_its_plugin_stops_the_start(
    bot: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setenv(f"JIMS_AUTHENTIK_URL{suffix}", "https://id.example.org")
    line = await start_here()
    assert f"JIMS_AUTHENTIK_URL{suffix} is set, but jimsapi-authentik is not installed" in line


def test_an_empty_auth_variable_is_unset(bot: Path) -> None:
    checked = run_command("check", "--app", "bot", cwd=bot, env={"JIMS_AUTHENTIK_URL": "", "JIMS_OIDC_ISSUER": ""})
    assert checked.returncode == 0, checked.stderr


def test_an_auth_option_goes_to_its_plugin_where_that_is_installed(bot: Path) -> None:
    install(bot, "jimsapi-authentik", OPTION % ("authentik", "url"), point="authentik = jimsapi_authentik")
    checked = run_command("check", "--app", "bot", "--authentik-url", "https://id.example.org", cwd=bot)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.anyio
@pytest.mark.parametrize("order", ["door,key", "key, door"])
async def test_an_auth_order_that_names_an_absent_provider_stops_the_start(bot: Path, order: str) -> None:
    line = await start_here(auth_order=order)
    assert "--auth-order names door, which is not installed or not configured (there are: key)" in line


def test_an_auth_order_that_names_an_unconfigured_provider_stops_the_start(bot: Path) -> None:
    line = refusal(run_command("check", "--app", "bot", "--auth-order", "key", cwd=bot))
    assert "--auth-order names key, which is not installed or not configured (there are: none)" in line


def diagnose(argument: str, folder: Path) -> str:
    """What the command prints for an argument that must succeed."""
    ran = run_command(argument, cwd=folder)
    assert ran.returncode == 0
    return ran.stdout
