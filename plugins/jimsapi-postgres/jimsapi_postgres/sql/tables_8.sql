-- What durable sinks have not received yet, where each sink is, what it refused, the webhooks of runs that have ended, and
-- how often a run was started again.

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

-- Servers use this table: as in version 2, the statement gives up and retries until it gets the lock at once.
DO $body$
BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    LOOP
        BEGIN
            ALTER TABLE jimsapi_runs ADD COLUMN IF NOT EXISTS restarts int NOT NULL DEFAULT 0;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.3);
        END;
    END LOOP;
END
$body$;
