-- The tables of this package. Their names begin with jimsapi_.

-- The indexes are partial, and only one fits each query, so that a query for one thread's open runs reads neither its many
-- ended runs nor the runs of other threads. A query for the runs of an owner reads all open runs. `seq` orders the open
-- runs of one thread. `message_data`, and `beside`, the events beside the message, are stored only until they enter the
-- thread. `continues`: the message was in the thread before the run. `adoption`: the call that took the run over from a dead
-- process. `sent`: the number of events that the run sent, a microsecond apart from `sent_at` on. `restarts`: how often the
-- run started again because its process had died.
CREATE TABLE IF NOT EXISTS jimsapi_runs (
    run_id uuid NOT NULL PRIMARY KEY,
    thread_id uuid NOT NULL,
    seq bigint NOT NULL,
    owner uuid NOT NULL,
    status varchar(16) NOT NULL,
    created_new_thread boolean NOT NULL,
    message_id uuid NOT NULL,
    message_type varchar(255) NOT NULL,
    message_data json,
    beside json,
    accepted_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    error text,
    failure varchar(16),
    continues boolean NOT NULL DEFAULT false,
    caller uuid,
    background boolean NOT NULL DEFAULT false,
    webhook_url text,
    adoption uuid,
    sent_at timestamp,
    sent int NOT NULL DEFAULT 0,
    streamed int,
    restarts int NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS jimsapi_runs_running ON jimsapi_runs (thread_id) WHERE status = 'running';
CREATE INDEX IF NOT EXISTS jimsapi_runs_open ON jimsapi_runs (thread_id, seq) WHERE finished_at IS NULL;
CREATE INDEX IF NOT EXISTS jimsapi_runs_finished ON jimsapi_runs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS jimsapi_runs_thread ON jimsapi_runs (thread_id) WHERE finished_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS jimsapi_owners (
    owner uuid NOT NULL PRIMARY KEY,
    beat_at timestamptz NOT NULL
);

CREATE TABLE IF NOT EXISTS jimsapi_idempotency (
    key uuid NOT NULL PRIMARY KEY,
    body uuid NOT NULL,
    run_id uuid NOT NULL,
    used_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS jimsapi_idempotency_used ON jimsapi_idempotency (used_at);

-- The title, archive time, metadata and parent of a thread (`ThreadFacts`), and the ratings of its events. Threads without
-- any of these have no row.

CREATE TABLE IF NOT EXISTS jimsapi_threads (
    thread_id uuid NOT NULL PRIMARY KEY,
    title text,
    archived_at timestamptz,
    metadata json NOT NULL DEFAULT '{}',
    parent_id uuid,
    parent_event_id uuid
);
CREATE INDEX IF NOT EXISTS jimsapi_threads_parent ON jimsapi_threads (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS jimsapi_feedback (
    thread_id uuid NOT NULL,
    event_id uuid NOT NULL,
    rating smallint NOT NULL,
    comment text,
    given_at timestamptz NOT NULL,
    PRIMARY KEY (thread_id, event_id)
);

-- The index of the search. It is brought up to date when somebody searches, and not when events are stored. `number` is
-- greater for newer threads of a contact. Events of the thread before `until` are all in the index.

CREATE TABLE IF NOT EXISTS jimsapi_search_threads (
    thread_id uuid NOT NULL PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    until timestamp NOT NULL,
    title text
);

-- A row for each message. The title of a thread has the time -infinity, and an event_id of zeros. `words` also has a word
-- that stands for the contact.
CREATE TABLE IF NOT EXISTS jimsapi_search (
    number bigint NOT NULL,
    at timestamp NOT NULL,
    event_id uuid NOT NULL,
    words tsvector NOT NULL,
    PRIMARY KEY (number, at, event_id)
);

-- Every search follows the writes of its contact at once, so a list of pending rows would make every search slower.
CREATE INDEX IF NOT EXISTS jimsapi_search_words ON jimsapi_search USING gin (words) WITH (fastupdate = off);

-- Totals of what was used of models. They are sorted as bytes, so that all transactions lock rows in the same order.

CREATE TABLE IF NOT EXISTS jimsapi_thread_usage (
    thread_id uuid NOT NULL,
    model text COLLATE "C" NOT NULL,
    calls bigint NOT NULL,
    input bigint NOT NULL,
    output bigint NOT NULL,
    cached bigint NOT NULL,
    cost float8 NOT NULL,
    PRIMARY KEY (thread_id, model)
);

CREATE TABLE IF NOT EXISTS jimsapi_contact_usage (
    contact_id text COLLATE "C" NOT NULL,
    day date NOT NULL,
    model text COLLATE "C" NOT NULL,
    caller uuid NOT NULL,
    calls bigint NOT NULL,
    input bigint NOT NULL,
    output bigint NOT NULL,
    cached bigint NOT NULL,
    cost float8 NOT NULL,
    PRIMARY KEY (contact_id, day, model, caller)
);

CREATE TABLE IF NOT EXISTS jimsapi_caller_usage (
    caller uuid NOT NULL,
    day date NOT NULL,
    model text COLLATE "C" NOT NULL,
    calls bigint NOT NULL,
    input bigint NOT NULL,
    output bigint NOT NULL,
    cached bigint NOT NULL,
    cost float8 NOT NULL,
    PRIMARY KEY (caller, day, model)
);

-- What durable sinks have not received yet, where each sink is, what it refused, and the webhooks of runs that have ended.

CREATE TABLE IF NOT EXISTS jimsapi_outbox (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    thread_id uuid NOT NULL,
    event_id uuid NOT NULL,
    run_id uuid,
    added_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Each transaction that stores events looks whether this table has a row, and a row changes with each batch of its sink.
CREATE TABLE IF NOT EXISTS jimsapi_sinks (
    name text COLLATE "C" NOT NULL PRIMARY KEY,
    position bigint NOT NULL,
    owner uuid,
    held_until timestamptz,
    history timestamptz,
    history_after text,
    rewinds int NOT NULL DEFAULT 0
)
WITH (fillfactor = 20);

CREATE TABLE IF NOT EXISTS jimsapi_dead_letters (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sink text COLLATE "C" NOT NULL,
    thread_id uuid NOT NULL,
    event_id uuid NOT NULL,
    run_id uuid,
    reason text NOT NULL,
    failed_at timestamptz NOT NULL,
    again boolean NOT NULL DEFAULT false
);
CREATE INDEX IF NOT EXISTS jimsapi_dead_letters_sink ON jimsapi_dead_letters (sink, number);
CREATE INDEX IF NOT EXISTS jimsapi_dead_letters_again ON jimsapi_dead_letters (sink, number) WHERE again;
CREATE INDEX IF NOT EXISTS jimsapi_dead_letters_thread ON jimsapi_dead_letters (thread_id);

-- `jimsapi_runs` has their URLs. A run without auth has the caller 0.
CREATE TABLE IF NOT EXISTS jimsapi_webhooks (
    run_id uuid NOT NULL PRIMARY KEY,
    caller uuid NOT NULL,
    due_at timestamptz NOT NULL,
    calls int NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jimsapi_webhooks_due ON jimsapi_webhooks (caller, due_at);

-- The receivers of runs that plugins notify. Those that are settled have no time at which they are due.

CREATE TABLE IF NOT EXISTS jimsapi_subscriptions (
    run_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    subscription_id uuid NOT NULL,
    thread_id uuid NOT NULL,
    caller uuid,
    data text NOT NULL,
    due_at timestamptz,
    call_at timestamptz,
    notice text,
    calls int NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, kind, name)
);
CREATE UNIQUE INDEX IF NOT EXISTS jimsapi_subscriptions_id ON jimsapi_subscriptions (subscription_id);
CREATE INDEX IF NOT EXISTS jimsapi_subscriptions_due ON jimsapi_subscriptions (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS jimsapi_subscriptions_thread ON jimsapi_subscriptions (thread_id);
