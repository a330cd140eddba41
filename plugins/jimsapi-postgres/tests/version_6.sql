-- What version 6 of the schema had instead of what later ones have.

DROP FUNCTION jimsapi_forget_7, jimsapi_index_7, jimsapi_find_7;
DROP TABLE jimsapi_search, jimsapi_search_threads;
DROP INDEX jimsapi_threads_parent, jimsapi_events_asked;
UPDATE jimsapi_schema SET version = 6, serves_from = 1;

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
ELSE
    of_threads := ARRAY(
        SELECT t.thread_id FROM threads t WHERE t.thread_id = of_thread AND (acting IS NULL OR t.contact_id = acting)
    );
END IF;
thread_count := cardinality(of_threads);
closed := '{}';
IF thread_count = 0 THEN
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
DELETE FROM threads t WHERE t.thread_id = ANY (of_threads);
PERFORM jimsapi_tell_1(closed, closed_owners, mine);
END
$body$;
