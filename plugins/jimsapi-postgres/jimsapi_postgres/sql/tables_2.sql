-- What is known of a run besides how it ends, and idempotency keys.

-- Servers are at work on this table. Whoever waits for a lock keeps all behind it waiting, so that this gives up and asks
-- again until it gets the table at once; the columns cost no row's rewriting.
DO $body$
BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    LOOP
        BEGIN
            -- `continues`: its message was in the thread before it. `adoption`: the call that took it over from a dead
            -- process. `sent` is the number of events that it sent, a microsecond apart from `sent_at` on.
            ALTER TABLE jimsapi_runs
                ADD COLUMN IF NOT EXISTS continues boolean NOT NULL DEFAULT false,
                ADD COLUMN IF NOT EXISTS caller uuid,
                ADD COLUMN IF NOT EXISTS background boolean NOT NULL DEFAULT false,
                ADD COLUMN IF NOT EXISTS webhook_url text,
                ADD COLUMN IF NOT EXISTS adoption uuid,
                ADD COLUMN IF NOT EXISTS sent_at timestamp,
                ADD COLUMN IF NOT EXISTS sent int NOT NULL DEFAULT 0,
                ADD COLUMN IF NOT EXISTS streamed int;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.3);
        END;
    END LOOP;
END
$body$;

CREATE TABLE IF NOT EXISTS jimsapi_idempotency (
    key uuid NOT NULL PRIMARY KEY,
    body uuid NOT NULL,
    run_id uuid NOT NULL,
    used_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS jimsapi_idempotency_used ON jimsapi_idempotency (used_at);
