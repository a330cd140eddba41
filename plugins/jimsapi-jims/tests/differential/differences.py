"""Where jimsapi answers otherwise than jims-api 0.6.2 on purpose, each with its reason.

Requests are named as in `corpus.py`. The test holds each difference against both servers, and
docs/migrate-from-jims-api.md shows them: run this file to write them there.
"""

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[4] / "docs" / "migrate-from-jims-api.md"
BEGINS = "<!-- the tables: written by plugins/jimsapi-jims/tests/differential/differences.py -->\n"
ENDS = "<!-- the end of the tables -->\n"


@dataclass(frozen=True)
class Side:
    """An answer: its status, what the page says of it, and a text that its body has."""

    status: int
    says: str
    body: str


@dataclass(frozen=True)
class Difference:
    """What `there` (jims-api) and `here` (jimsapi) make of the same requests.

    Only those that are `LEFT_OUT` have no requests.
    """

    what: str
    there: Side
    here: Side
    why: str
    requests: tuple[str, ...]


CUT_OFF = "cut off"
"""What stands in the place of a stream's end that did not come."""

CRASH = "Internal Server Error"
WELL = '"assistant_messages"'
NOT_JSON = '"type": "json_invalid"'

REQUESTS = [
    Difference(
        "a body that is not declared as JSON, or not declared at all",
        Side(422, "`model_attributes_type`, because it reads the body as a text", "model_attributes_type"),
        Side(415, "names the content type that is needed", "must be declared as JSON"),
        "415 is the status for this. It also stops web pages of other sites from posting without a preflight.",
        (
            "content type text/plain",
            "content type text/json",
            "content type application/x-www-form-urlencoded",
            "content type multipart/form-data; boundary=x",
            "content type application/jsonp",
            "content type json",
            "content type ",
            "no content type",
            "a form",
            "a broken body of another type",
            "stream: content type text/plain",
            "stream: no content type",
        ),
    ),
    Difference(
        "a type that ends in `+json` and does not begin with `application/`",
        Side(422, "`model_attributes_type`", "model_attributes_type"),
        Side(200, "", WELL),
        "The suffix says that the body is JSON (RFC 6839, 3.1).",
        ("content type text/x+json",),
    ),
    Difference(
        "two `Content-Type` headers, only the first JSON",
        Side(200, "the first counts", WELL),
        Side(415, "the last counts", "must be declared as JSON"),
        "HTTP allows one. The body must not be JSON to one reader and something else to another.",
        ("two content types, the first JSON",),
    ),
    Difference(
        "two `Content-Type` headers, only the last JSON",
        Side(422, "the first counts", "model_attributes_type"),
        Side(200, "the last counts", WELL),
        "The same.",
        ("two content types, the second JSON",),
    ),
    Difference(
        "`Content-Encoding`, except `identity`",
        Side(200, "ignored", WELL),
        Side(415, "", "compressed request body"),
        "jimsapi does not decompress bodies, because a small one may become very large.",
        ("content-encoding: gzip",),
    ),
    Difference(
        "`Prefer: respond-async`",
        Side(200, "ignored", WELL),
        Side(202, "with `run_id`; the run goes on in the background", '"run_id"'),
        "The client asks for it.",
        ("prefer: respond-async",),
    ),
    Difference(
        "a message that is repeated with the same `Idempotency-Key`",
        Side(200, "ignored; the message is stored and answered again", '"created_new_thread": false'),
        Side(200, "the first answer", '"created_new_thread": true'),
        "A client can send a message again if it does not know whether the first one arrived.",
        ("an idempotency key again",),
    ),
    Difference(
        "an `Idempotency-Key` that was used for another message, or is not 1 to 255 visible characters of ASCII",
        Side(200, "ignored", WELL),
        Side(422, "says what is wrong with the key", "dempotency"),
        "The client would rely on a key that has no effect.",
        ("an idempotency key with another message", "an empty idempotency key"),
    ),
    Difference(
        "a body over 1 MiB (`--max-body` raises it)",
        Side(200, "", WELL),
        Side(413, "names the limit", "over the limit"),
        "One caller must not fill the memory.",
        ("a message of 3 MB", "stream: a message of 3 MB"),
    ),
    Difference(
        "a body in UTF-16, or with a byte order mark",
        Side(200, "", WELL),
        Side(422, "`json_invalid`", NOT_JSON),
        "JSON between systems is UTF-8 without a mark (RFC 8259, 8.1).",
        ("broken: UTF-16", "broken: a BOM first"),
    ),
    Difference(
        "a body in no encoding of Unicode",
        Side(400, "", "There was an error parsing the body"),
        Side(422, "`json_invalid`", NOT_JSON),
        "All broken JSON gets the same answer.",
        ("broken: no UTF-8", "stream: broken: no UTF-8"),
    ),
    Difference(
        "`NaN`, `Infinity` or a number beyond the range of a double, such as `1e400`, within `thread_config`",
        Side(200, "stored in SQLite; PostgreSQL refuses it", WELL),
        Side(422, "`json_invalid`", NOT_JSON),
        "They are not JSON, or not finite for most readers. Other readers of the database fail on them.",
        ("NaN in the configuration", "1e400 in the configuration", "stream: NaN in the configuration"),
    ),
    Difference(
        "`NaN`, `Infinity` or `1e400` for another field; half a surrogate pair in a text",
        Side(500, "bare", CRASH),
        Side(422, "`json_invalid`", NOT_JSON),
        "The caller made the error, and can read that.",
        (
            "NaN for a field",
            "Infinity for a field",
            "1e400 for a field",
            "half a surrogate pair in the contact",
            "half a surrogate pair in the message",
        ),
    ),
    Difference(
        "the character NUL in a text",
        Side(200, "stored in SQLite; PostgreSQL refuses some of it", WELL),
        Side(422, "`string_contains_nul`", "string_contains_nul"),
        "Every store refuses the same input, before it stores anything.",
        (
            "a NUL in the contact",
            "a NUL in the message",
            "a NUL in the configuration",
            "stream: a NUL in the message",
        ),
    ),
    Difference(
        "an integer beyond 64 bits in `thread_config`",
        Side(200, "stored", WELL),
        Side(422, "`integer_out_of_range`", "integer_out_of_range"),
        "Most readers of JSON turn it into another number.",
        ("an integer over 64 bits",),
    ),
    Difference(
        "an integer beyond 64 bits for another field",
        Side(422, "`uuid_type`", "uuid_type"),
        Side(422, "`integer_out_of_range`", "integer_out_of_range"),
        "Both refuse it; jimsapi checks the size first.",
        ("an integer over 64 bits for a field",),
    ),
    Difference(
        "an integer of more than 4,300 digits",
        Side(400, "", "There was an error parsing the body"),
        Side(422, "`integer_out_of_range`", "integer_out_of_range"),
        "The answer names the field.",
        ("an integer of 5,000 digits",),
    ),
    Difference(
        "such a number or `NaN`, or the character NUL, in a field that jims-api does not know",
        Side(200, "ignored", WELL),
        Side(422, "as in the other fields", '"detail": [{"type"'),
        "jimsapi checks the whole body before it looks for the fields.",
        (
            "an integer over 64 bits for an unknown field",
            "a NUL for an unknown field",
            "NaN for an unknown field",
        ),
    ),
    Difference(
        "`contact_id` of more than 2,000 bytes",
        Side(200, "stored in SQLite; PostgreSQL's index refuses the longest", WELL),
        Side(422, "`string_too_long`", "string_too_long"),
        "The text is the key of an index.",
        ("a contact over 2,000 bytes",),
    ),
    Difference(
        "`event_type` of more than 255 characters",
        Side(200, "stored in SQLite; PostgreSQL refuses it", WELL),
        Side(422, "`string_too_long`", "string_too_long"),
        "The column has room for 255.",
        ("an event type of 256 characters",),
    ),
    Difference(
        "`event_type` in the domains `state` and `jims`, and of jimsapi's own events beside a message or a question, "
        "such as `message.files` and `question.answered`",
        Side(200, "the caller sets the app's state", WELL),
        Side(422, "`reserved_event_type`", "reserved_event_type"),
        "A caller must not forge events of the app and the server.",
        (
            "a forged state",
            "a forged life cycle",
            "a forged answer to a question",
            "forged files of a message",
            "stream: a forged state",
        ),
    ),
    Difference(
        "more than 200 lists and objects within each other",
        Side(200, "until Python's stack ends", WELL),
        Side(422, "`nesting_too_deep`", "nesting_too_deep"),
        "Other readers of the database have such limits too.",
        ("nesting of 300",),
    ),
]

AUTH = [
    Difference(
        "`--authentik-app-slug` without `--authentik-url`",
        Side(200, "it admits everybody", WELL),
        Side(401, "it admits nobody, and the start logs the reason", "Unauthorized"),
        "An incomplete configuration must not open the API.",
        ("half of Authentik, no token", "half of Authentik, a token"),
    ),
    Difference(
        "two options `--api-key`, a caller with the first key",
        Side(401, "the last option counts", "Unauthorized"),
        Side(200, "every key counts", WELL),
        "You can change keys without a gap. Look at your script if it overrides a key by a second option.",
        ("two keys, the first",),
    ),
    Difference(
        '`--api-key ""`, a caller without a token or with any',
        Side(401, "", "Unauthorized"),
        Side(200, "the server is public, and the start logs a warning", WELL),
        "An empty option is an unset one, as an empty `JIMS_API_KEY` is to both. Look at your script if it passes "
        '`"$KEY"`.',
        ("an empty key, no token", "an empty key, a token"),
    ),
    Difference(
        "the key without `Bearer`",
        Side(200, "", WELL),
        Side(401, "", "Unauthorized"),
        "The documented form is `Authorization: Bearer <key>`, and nothing else.",
        ("the key without Bearer", "stream: the key without Bearer"),
    ),
    Difference(
        "the key after `Bearer` and two spaces",
        Side(401, "", "Unauthorized"),
        Side(200, "", WELL),
        "RFC 9110 (11.4) allows more than one space.",
        ("the key after two spaces",),
    ),
    Difference(
        "two `Authorization` headers, the first with the key",
        Side(200, "the first counts", WELL),
        Side(400, "", "Send one Authorization header"),
        "A proxy and the server must not read different ones.",
        ("the key, then a wrong header",),
    ),
    Difference(
        "two `Authorization` headers, the first wrong",
        Side(401, "the first counts", "Unauthorized"),
        Side(400, "", "Send one Authorization header"),
        "The same.",
        ("a wrong header, then the key",),
    ),
    Difference(
        "broken JSON, without a token",
        Side(422, "", NOT_JSON),
        Side(401, "", "Unauthorized"),
        "The server does not read the body of a stranger.",
        ("broken JSON, without a token", "stream: broken JSON, without a token"),
    ),
    Difference(
        "with Authentik: an empty token, or one beyond ASCII",
        Side(500, "bare", CRASH),
        Side(401, "", "Unauthorized"),
        "Authentik has no such tokens, so jimsapi does not ask it.",
        ("an empty header", "a key beyond ASCII"),
    ),
    Difference(
        "Authentik reports that the user has no access",
        Side(401, "", "Unauthorized"),
        Side(403, "", "Forbidden"),
        "The user needs access; another token would not help.",
        ("Authentik: no access", "stream: Authentik: no access"),
    ),
    Difference(
        "Authentik fails with an error of its own",
        Side(401, "", "Unauthorized"),
        Side(503, "", "Authentication is unavailable"),
        "The token may be good: the client should try again with it.",
        ("Authentik: out of order", "stream: Authentik: out of order"),
    ),
    Difference(
        "Authentik does not answer, or its answer is not JSON",
        Side(500, "bare", CRASH),
        Side(503, "", "Authentication is unavailable"),
        "The same, and the pipeline did not fail.",
        ("Authentik: no JSON", "Authentik: hangs up"),
    ),
]

PATHS = [
    Difference(
        "`HEAD /healthz`",
        Side(405, "", ""),
        Side(200, "", ""),
        "Load balancers use HEAD, and HEAD is allowed where GET is.",
        ("HEAD /healthz",),
    ),
    Difference(
        "`OPTIONS` of a path that exists",
        Side(405, "", "Method Not Allowed"),
        Side(204, "with `Allow`", ""),
        "This is what OPTIONS asks for.",
        ("OPTIONS /healthz", "OPTIONS /api/v1/chat", "OPTIONS /api/v1/chat/stream"),
    ),
    Difference(
        "a method that HTTP does not know",
        Side(405, "", "Method Not Allowed"),
        Side(400, "from the parser", '{"detail": "Bad Request"}'),
        "The parser refuses it before the server looks up a route.",
        ("BREW /api/v1/chat",),
    ),
    Difference(
        "`%2F` for a slash of a path",
        Side(200, "", WELL),
        Side(404, "", "Not Found"),
        "An escaped slash is a character of a name, and does not separate names (RFC 3986, 2.2).",
        ("a path with %2F for its slashes",),
    ),
    Difference(
        "a request line with the server's address, such as `POST http://host/api/v1/chat`",
        Side(404, "", "Not Found"),
        Side(200, "", WELL),
        "A server must accept this form (RFC 9112, 3.2.2).",
        ("the server's address before the path",),
    ),
    Difference(
        "`GET /docs`",
        Side(200, "Swagger UI, loaded from a CDN", "swagger-ui"),
        Side(200, "a page of our own", "jimsapi"),
        "It works without the internet, and sends no data about its readers to others.",
        ("GET /docs",),
    ),
    Difference(
        "`GET /redoc`",
        Side(200, "ReDoc, loaded from a CDN", "ReDoc"),
        Side(404, "", "Not Found"),
        "One page of documentation is enough.",
        ("GET /redoc",),
    ),
    Difference(
        "`GET /openapi.json`",
        Side(200, "title `JIMS API`", '"title": "JIMS API"'),
        Side(200, "title `jimsapi`, more routes, every status", '"title": "jimsapi"'),
        "jimsapi has more to describe.",
        ("GET /openapi.json",),
    ),
    Difference(
        "`GET /readyz`",
        Side(404, "", "Not Found"),
        Side(200, "and 503 while it stops, or its store is unavailable", '"status": "ok"'),
        "A new route.",
        ("GET /readyz",),
    ),
    Difference(
        "`GET /api/v1/threads` without a contact",
        Side(404, "", "Not Found"),
        Side(422, "`contact_id` is required", '"contact_id"'),
        "New routes: threads and their events can be listed, read and deleted.",
        ("GET /api/v1/threads",),
    ),
]

PIPELINES = [
    Difference(
        "an event with a date, a time, a UUID or an enumeration",
        Side(500, "with the SQL statement and its parameters", "INSERT INTO thread_events"),
        Side(200, "stored as text", WELL),
        "Its meaning is clear.",
        ("datetime", "date", "uuid", "enum"),
    ),
    Difference(
        "an event with a `Decimal`, a set, bytes, or an object",
        Side(500, "with the SQL statement and its parameters", "INSERT INTO thread_events"),
        Side(500, "names the event's type, and the type in it", "event 'app.data' cannot be stored"),
        "A caller must not see SQL or the data.",
        ("decimal", "set", "bytes", "object"),
    ),
    Difference(
        "an event with keys that are not strings",
        Side(500, "bare, but the events are stored", CRASH),
        Side(200, "the keys become texts, as JSON writes them", WELL),
        "The answer has all events that are stored.",
        ("number keys",),
    ),
    Difference(
        "an event with an integer beyond 64 bits, or the character NUL; an event type over 255 characters",
        Side(200, "stored in SQLite; PostgreSQL refuses such a type", WELL),
        Side(500, "names the event's type", "cannot be stored"),
        "Every store accepts the same events.",
        ("over 64 bits", "nul", "long type"),
    ),
    Difference(
        "an event with half a surrogate pair, or 300 objects within each other",
        Side(500, "bare", CRASH),
        Side(500, "`Pipeline error: …`, names the event's type", "event 'app.data' cannot be stored"),
        "The author of the pipeline can find the event.",
        ("surrogate", "nested 300"),
    ),
    Difference(
        "two events with one `event_id`",
        Side(500, "with the SQL statement and its parameters; the first is stored", "INSERT INTO thread_events"),
        Side(500, "names the event's type; nothing is stored", "event 'app.second' cannot be stored"),
        "The store keeps all events of a run, or none.",
        ("twice",),
    ),
    Difference(
        "a pipeline raises `SystemExit` or `CancelledError`",
        Side(500, "bare", CRASH),
        Side(500, "`Pipeline error: …`", "Pipeline error: the pipeline"),
        "Every error of a pipeline has the documented shape.",
        ("exit", "cancel"),
    ),
    Difference(
        "a pipeline raises an error whose text holds half a surrogate pair",
        Side(500, "bare", CRASH),
        Side(500, "`Pipeline error: …` with `?` for it", "Pipeline error: a?b"),
        "The same.",
        ("fail with a surrogate",),
    ),
    Difference(
        "the conversation-start pipeline raises an error",
        Side(500, "bare; the message is lost", CRASH),
        Side(500, "`Pipeline error: …`; the message is stored", "Pipeline error: nobody is up yet"),
        "As for the main pipeline.",
        ("a conversation start that fails",),
    ),
]

LEFT_OUT = [
    Difference(
        "other items of a stream than `status`, `result` and `error`",
        Side(200, "nothing", ""),
        Side(200, "comments while nothing happens, `id:` lines, events `started`, `delta`, `event` and `gap`", ""),
        "Proxies keep the connection, clients may use the events, others ignore unknown events (WHATWG HTML, 9.2.6).",
        (),
    ),
    Difference(
        "a client that reads more slowly than the pipeline sends",
        Side(200, "the server keeps everything in memory for it", ""),
        Side(200, "the newest 1,000 statuses, up to 256 KiB, are kept for it, and `result` or `error`", ""),
        "One client must not fill the memory or delay the pipeline.",
        (),
    ),
]
"""Of streams, and not compared: which of it a client gets depends on when it reads."""

STREAMS = [
    *LEFT_OUT,
    Difference(
        "a status that is a plain string",
        Side(200, "left out", WELL),
        Side(200, "`status`, with `type` `status`", '["status", {"status": "thinking", "type": "status"}]'),
        "The app wants people to see it.",
        ("stream: a status that is a text", "stream: all that a pipeline may say"),
    ),
    Difference(
        "a `StatusEvent` whose fields are not strings",
        Side(200, "as JSON has them", '["status", {"status": 5, "type": 5}]'),
        Side(200, "as texts", '["status", {"status": "5", "type": "5"}]'),
        "`StatusEvent` declares these fields as strings, and clients display them.",
        ("stream: a status of numbers",),
    ),
    Difference(
        "half a surrogate pair in a status, or in the text of an error",
        Side(200, "its escape", r"a\ud800b"),
        Side(200, "`?` for it", "a?b"),
        "It is not a character, and many parsers refuse it.",
        ("stream: a status with half a surrogate pair", "stream: a failure with a surrogate"),
    ),
    Difference(
        "an event with a date, a time, a UUID or an enumeration",
        Side(200, "`error` with the SQL statement and its parameters", "INSERT INTO thread_events"),
        Side(200, "`result`", WELL),
        "As for `/chat`.",
        ("stream: datetime",),
    ),
    Difference(
        "an event with a `Decimal`, a set, bytes, or an object; two events with one `event_id`",
        Side(200, "`error` with the SQL statement and its parameters", "INSERT INTO thread_events"),
        Side(200, "`error` that names the event's type", "cannot be stored"),
        "As for `/chat`.",
        ("stream: decimal", "stream: twice"),
    ),
    Difference(
        "an event with an integer beyond 64 bits, or half a surrogate pair",
        Side(200, "`result`", WELL),
        Side(200, "`error` that names the event's type", "event 'app.data' cannot be stored"),
        "As for `/chat`.",
        ("stream: over 64 bits", "stream: surrogate"),
    ),
    Difference(
        "an event with keys that are not strings",
        Side(200, "cut off without a `result`, but the events are stored", CUT_OFF),
        Side(200, "`result`", WELL),
        "As for `/chat`.",
        ("stream: number keys",),
    ),
    Difference(
        "a pipeline raises `CancelledError`",
        Side(200, "cut off without an `error`", CUT_OFF),
        Side(200, "`error`", '["error", {"detail": "Pipeline error: the pipeline'),
        "A client must be able to recognize the end of a stream.",
        ("stream: a cancellation",),
    ),
    Difference(
        "a pipeline raises `SystemExit`",
        Side(200, "cut off, and the server's process ends", CUT_OFF),
        Side(200, "`error`", '["error", {"detail": "Pipeline error: the pipeline'),
        "One message must not stop the server for everybody.",
        ("stream: an exit",),
    ),
    Difference(
        "the conversation-start pipeline raises an error",
        Side(500, "bare; the message is lost", CRASH),
        Side(
            200,
            "`error` with `Pipeline error: …`; the message is stored",
            '["error", {"detail": "Pipeline error: nobody',
        ),
        "A thread has accepted the message, so the stream has begun.",
        ("stream: a conversation start that fails",),
    ),
    Difference(
        "a client disconnects",
        Side(200, "the pipeline is cancelled: the next message finds no answer", "!report and wait"),
        Side(200, "the pipeline goes on: the next message finds its answer", "worth the wait"),
        "The message is in the thread, and the client wants its answer when it comes back.",
        ("what a client that left finds later",),
    ),
]

AT_ONCE = [
    Difference(
        "several messages in one thread at the same time",
        Side(200, "answered at the same time; none sees the answers to the others", "said so far"),
        Side(200, "answered one after another, in order of arrival", "said so far"),
        "A conversation has an order.",
        ("messages at once in one thread", "stream: messages at once in one thread"),
    ),
    Difference(
        "several first messages of one contact at the same time",
        Side(200, "a thread each", WELL),
        Side(200, "one thread", WELL),
        "It is one conversation.",
        ("first messages of one contact at once",),
    ),
]

PARTS = {
    "Requests": REQUESTS,
    "Authentication": AUTH,
    "Paths and methods": PATHS,
    "What pipelines do": PIPELINES,
    "Streams": STREAMS,
    "Messages at the same time": AT_ONCE,
}
DIFFERENCES = [difference for part in PARTS.values() for difference in part]


def tables() -> str:
    """The tables as the page shows them."""
    return "\n".join(f"### {title}\n\n{_table(part)}" for title, part in PARTS.items())


def _table(part: list[Difference]) -> str:
    rows = [["what", "jims-api 0.6.2", "jimsapi", "why"], ["---"] * 4]
    rows += [[one.what, _cell(one.there), _cell(one.here), one.why] for one in part]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(side: Side) -> str:
    return f"{side.status} {side.says}".rstrip()


def page(text: str) -> str:
    """The page with the tables as they should be."""
    before, begins, rest = text.partition(BEGINS)
    _, ends, after = rest.partition(ENDS)
    return f"{before}{begins}\n{tables()}\n{ends}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
