-- The events beside a message that waits. Existing rows have none, and do not change.

-- Servers use this table: as in version 2, the statement gives up and retries until it gets the lock at once.
DO $body$
BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    LOOP
        BEGIN
            ALTER TABLE jimsapi_runs ADD COLUMN IF NOT EXISTS beside json;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.3);
        END;
    END LOOP;
END
$body$;
