-- The kind of a failure. Rows of before have none, and stay as they are.

-- Servers are at work on this table: as for version 2, this gives up and asks again until it gets the table at once.
DO $body$
BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    LOOP
        BEGIN
            ALTER TABLE jimsapi_runs ADD COLUMN IF NOT EXISTS failure varchar(16);
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.3);
        END;
    END LOOP;
END
$body$;
