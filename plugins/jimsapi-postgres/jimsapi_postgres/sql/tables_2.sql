-- More columns of runs, and idempotency keys.

-- Servers use this table. A statement that waits for a lock blocks all statements behind it, so this one gives up and
-- retries until it gets the lock at once. Adding the columns rewrites no rows.
DO $body$
BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    LOOP
        BEGIN
            -- `continues`: the message was in the thread before the run. `adoption`: the call that took the run over from
            -- a dead process. `sent`: the number of events that the run sent, a microsecond apart from `sent_at` on.
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
