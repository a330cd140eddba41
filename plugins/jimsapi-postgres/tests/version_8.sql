-- What version 8 of the schema had instead of what later ones have.

DROP FUNCTION jimsapi_forget_subscriptions_9;
DROP TABLE jimsapi_subscriptions;
UPDATE jimsapi_schema SET version = 8, serves_from = 1;

CREATE OR REPLACE FUNCTION jimsapi_delete_2(
    of_thread uuid, of_contact text, acting text, mine uuid[], at_once int, OUT closed uuid[], OUT thread_count int
)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    of_threads uuid[];
    closed_owners uuid[];
BEGIN
IF of_thread IS NULL THEN
    of_threads := ARRAY(
        SELECT t.thread_id FROM threads t WHERE t.contact_id = of_contact ORDER BY t.created_at, t.thread_id LIMIT at_once
    );
    IF cardinality(of_threads) = 0 THEN
        -- A fork that copies a thread deleted before this call may not have committed. It holds this lock until then.
        PERFORM pg_advisory_xact_lock(hashtextextended(of_contact, 1));
        of_threads := ARRAY(
            SELECT t.thread_id FROM threads t WHERE t.contact_id = of_contact
            ORDER BY t.created_at, t.thread_id
            LIMIT at_once
        );
    END IF;
ELSE
    of_threads := ARRAY(
        SELECT t.thread_id FROM threads t WHERE t.thread_id = of_thread AND (acting IS NULL OR t.contact_id = acting)
    );
END IF;
thread_count := cardinality(of_threads);
closed := '{}';
IF thread_count = 0 THEN
    DELETE FROM jimsapi_contact_usage u WHERE u.contact_id = of_contact;
    RETURN;
END IF;

-- Most of the work is done before the locks: a call that waits for one also blocks the other threads that it has locked.
DELETE FROM thread_events e WHERE e.thread_id = ANY (of_threads);
PERFORM pg_advisory_xact_lock(l.key) FROM (
    SELECT DISTINCT uuid_hash_extended(f.thread, 3) AS key FROM unnest(of_threads) f (thread) ORDER BY key
) l;

SELECT coalesce(array_agg(r.run_id ORDER BY r.thread_id, r.seq), '{}'), array_agg(r.owner ORDER BY r.thread_id, r.seq)
INTO closed, closed_owners
FROM jimsapi_runs r
WHERE r.thread_id = ANY (of_threads) AND r.finished_at IS NULL;
DELETE FROM jimsapi_runs r WHERE r.thread_id = ANY (of_threads) AND r.finished_at IS NULL;
DELETE FROM jimsapi_runs r WHERE r.thread_id = ANY (of_threads) AND r.finished_at IS NOT NULL;
DELETE FROM thread_events e WHERE e.thread_id = ANY (of_threads);
DELETE FROM jimsapi_threads f WHERE f.thread_id = ANY (of_threads);
DELETE FROM jimsapi_feedback f WHERE f.thread_id = ANY (of_threads);
PERFORM jimsapi_forget_letters_8(of_threads);
PERFORM jimsapi_forget_7(of_threads);
DELETE FROM jimsapi_thread_usage f WHERE f.thread_id = ANY (of_threads);
DELETE FROM threads t WHERE t.thread_id = ANY (of_threads);
IF of_thread IS NULL THEN
    -- In the order of the key, as runs that end lock them.
    PERFORM u.day FROM jimsapi_contact_usage u WHERE u.contact_id = of_contact
    ORDER BY u.day, u.model, u.caller
    FOR UPDATE;
    DELETE FROM jimsapi_contact_usage u WHERE u.contact_id = of_contact;
END IF;
PERFORM jimsapi_tell_1(closed, closed_owners, mine);
END
$body$;


CREATE OR REPLACE FUNCTION jimsapi_expire_6(
    after uuid, older_than interval, at_once int, OUT expired int, OUT last uuid
)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    cutoff timestamp;
    of_threads uuid[];
BEGIN
cutoff := clock_timestamp()::timestamp - older_than;
of_threads := ARRAY(
    SELECT t.thread_id FROM threads t WHERE t.thread_id > after ORDER BY t.thread_id LIMIT at_once
);
IF cardinality(of_threads) = at_once THEN
    last := of_threads[at_once];
END IF;
of_threads := ARRAY(
    SELECT f.thread FROM unnest(of_threads) f (thread)
    WHERE (
        SELECT e.created_at FROM thread_events e WHERE e.thread_id = f.thread
        ORDER BY e.created_at DESC, e.event_id DESC
        LIMIT 1
    ) < cutoff
);
PERFORM pg_advisory_xact_lock(l.key) FROM (
    SELECT DISTINCT uuid_hash_extended(f.thread, 3) AS key FROM unnest(of_threads) f (thread) ORDER BY key
) l;
-- A message may have arrived before this call got the lock.
of_threads := ARRAY(
    SELECT f.thread FROM unnest(of_threads) f (thread)
    WHERE (
        SELECT e.created_at FROM thread_events e WHERE e.thread_id = f.thread
        ORDER BY e.created_at DESC, e.event_id DESC
        LIMIT 1
    ) < cutoff
    AND NOT EXISTS (SELECT FROM jimsapi_runs r WHERE r.thread_id = f.thread AND r.finished_at IS NULL)
);
expired := cardinality(of_threads);
IF expired > 0 THEN
    DELETE FROM jimsapi_runs r WHERE r.thread_id = ANY (of_threads) AND r.finished_at IS NOT NULL;
    DELETE FROM thread_events e WHERE e.thread_id = ANY (of_threads);
    DELETE FROM jimsapi_threads f WHERE f.thread_id = ANY (of_threads);
    DELETE FROM jimsapi_feedback f WHERE f.thread_id = ANY (of_threads);
    PERFORM jimsapi_forget_letters_8(of_threads);
    PERFORM jimsapi_forget_7(of_threads);
    DELETE FROM jimsapi_thread_usage f WHERE f.thread_id = ANY (of_threads);
    DELETE FROM threads t WHERE t.thread_id = ANY (of_threads);
END IF;
END
$body$;
