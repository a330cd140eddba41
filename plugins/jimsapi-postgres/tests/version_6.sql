-- What version 6 of the schema had instead of what later ones have.

DROP FUNCTION jimsapi_append_7, jimsapi_add_usage_7, jimsapi_count_usage_7, jimsapi_usage_of_7, jimsapi_count_of_7;
DROP TABLE jimsapi_thread_usage, jimsapi_contact_usage, jimsapi_caller_usage;
DROP FUNCTION jimsapi_forget_7, jimsapi_index_7, jimsapi_find_7;
DROP TABLE jimsapi_search, jimsapi_search_threads;
DROP INDEX jimsapi_threads_parent, jimsapi_events_asked;
UPDATE jimsapi_schema SET version = 6, serves_from = 1;

CREATE OR REPLACE FUNCTION jimsapi_finish_4(
    run_ids uuid[], owners uuid[], statuses text[], errors text[],
    event_items int[], event_ids uuid[], event_types text[], event_data json[], event_counts int[], told int[],
    failures text[]
)
RETURNS TABLE (item int, counted boolean, status text, next_run uuid, first_at timestamp, taken uuid[])
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    tick CONSTANT interval := interval '1 microsecond';
    moment timestamp;
    wall timestamptz;
    found uuid[];
    counts boolean[];
    is_now text[];
    times timestamp[];
    clashes uuid[];
    clash_items int[];
    followers uuid[];
    follower_owners uuid[];
BEGIN
PERFORM pg_advisory_xact_lock(l.key) FROM (
    SELECT uuid_hash_extended(r.thread_id, 3) AS key
    FROM unnest(run_ids) i (run_id)
    CROSS JOIN LATERAL (SELECT r.thread_id FROM jimsapi_runs r WHERE r.run_id = i.run_id LIMIT 1) r
    ORDER BY key
) l;

wall := clock_timestamp();
moment := wall::timestamp;
SELECT
    array_agg(d.thread ORDER BY d.item),
    array_agg(d.counts ORDER BY d.item),
    array_agg(CASE WHEN d.counts THEN d.ending ELSE d.status END ORDER BY d.item),
    array_agg(CASE WHEN d.counts THEN greatest(moment, (
        SELECT e.created_at FROM thread_events e WHERE e.thread_id = d.thread
        ORDER BY e.created_at DESC, e.event_id DESC
        LIMIT 1
    ) + tick) END ORDER BY d.item)
INTO found, counts, is_now, times
FROM (
    SELECT
        i.item, r.thread_id AS thread, i.ending, r.status,
        coalesce(
            r.status = 'running' AND r.owner = i.owner AND array_position(run_ids, i.run_id) = i.item,  -- once in a call
            false
        ) AS counts
    FROM unnest(run_ids, owners, statuses) WITH ORDINALITY i (run_id, owner, ending, item)
    LEFT JOIN LATERAL (
        SELECT r.thread_id, r.status::text, r.owner FROM jimsapi_runs r WHERE r.run_id = i.run_id LIMIT 1
    ) r ON true
) d;

IF cardinality(event_ids) > 0 THEN
    SELECT array_agg(e.id), array_agg(e.item) INTO clashes, clash_items
    FROM unnest(event_items, event_ids) e (item, id)
    WHERE times[e.item] IS NOT NULL
        AND (
            SELECT true FROM thread_events t WHERE t.thread_id = found[e.item] AND t.event_id BETWEEN e.id AND e.id
            ORDER BY t.event_id
            LIMIT 1
        );
    IF clashes IS NOT NULL THEN
        SELECT array_agg(n.counted AND n.item <> ALL (clash_items) ORDER BY n.item) INTO counts
        FROM unnest(counts) WITH ORDINALITY n (counted, item);
    END IF;

    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    SELECT
        found[e.item], e.id,
        times[e.item] + (row_number() OVER (PARTITION BY e.item ORDER BY e.position) - 1) * tick,
        e.kind, e.data
    FROM unnest(event_items, event_ids, event_types, event_data) WITH ORDINALITY e (item, id, kind, data, position)
    WHERE counts[e.item] AND times[e.item] IS NOT NULL;
END IF;

UPDATE jimsapi_runs r
SET
    status = u.status, finished_at = wall, error = u.error, failure = u.failure, message_data = NULL, beside = NULL,
    streamed = u.streamed, sent = u.sent, sent_at = CASE WHEN u.sent > 0 THEN u.first_at END
FROM unnest(run_ids, statuses, errors, counts, event_counts, times, told, failures)
    u (run_id, status, error, counted, sent, first_at, streamed, failure)
WHERE r.run_id = ANY (run_ids) AND r.run_id = u.run_id AND u.counted;

SELECT array_agg(n.run_id ORDER BY i.item), array_agg(n.owner ORDER BY i.item) INTO followers, follower_owners
FROM unnest(found) WITH ORDINALITY i (thread, item)
LEFT JOIN LATERAL (
    SELECT r.run_id, r.owner, r.status FROM jimsapi_runs r WHERE r.thread_id = i.thread AND r.finished_at IS NULL
    ORDER BY r.seq
    LIMIT 1
) n ON n.status = 'queued';

IF cardinality(array_remove(followers, NULL)) > 0 THEN
    PERFORM jimsapi_tell_1(array_agg(f.run), array_agg(f.owner), owners)
    FROM unnest(followers, follower_owners, counts) f (run, owner, counted)
    WHERE f.counted AND f.owner <> ALL (owners)
    HAVING count(*) > 0;
END IF;

RETURN QUERY
SELECT
    i.item::int, i.counted, i.status, i.follower, i.first_at,
    CASE WHEN clashes IS NOT NULL THEN (
        SELECT array_agg(c.id) FROM unnest(clash_items, clashes) c (item, id) WHERE c.item = i.item
    ) END
FROM unnest(counts, is_now, followers, times) WITH ORDINALITY i (counted, status, follower, first_at, item);
END
$body$;


CREATE OR REPLACE FUNCTION jimsapi_start_1(
    run uuid, by_owner uuid, event_ids uuid[], event_types text[], event_data json[],
    context_events int, context_bytes bigint
)
RETURNS TABLE (part int, verdict text, id uuid, at timestamp, kind text, data json, taken uuid[])
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    tick CONSTANT interval := interval '1 microsecond';
    mine jimsapi_runs%ROWTYPE;
    verdict text;
    wall timestamptz;
    first_at timestamp;
    clashes uuid[];
    entering uuid[] := event_ids;
    entering_types text[] := event_types;
    entering_data json[] := event_data;
    beside_ids uuid[] := '{}';
BEGIN
SELECT r.* INTO mine FROM jimsapi_runs r WHERE r.run_id = run;
IF FOUND THEN
    PERFORM pg_advisory_xact_lock(uuid_hash_extended(mine.thread_id, 3));
    SELECT r.* INTO mine FROM jimsapi_runs r WHERE r.run_id = run;
END IF;
IF mine.beside IS NOT NULL THEN
    beside_ids := ARRAY(
        SELECT jimsapi_id_beside_5(mine.message_id, n) FROM generate_series(1, json_array_length(mine.beside)) n ORDER BY n
    );
END IF;
IF mine.owner IS DISTINCT FROM by_owner OR mine.status NOT IN ('queued', 'running') THEN
    verdict := 'closed';
ELSIF mine.status = 'running' THEN
    verdict := 'known';
    IF NOT mine.continues THEN
        entering := entering || beside_ids || mine.message_id;
    END IF;
ELSIF (
    SELECT r.run_id FROM jimsapi_runs r WHERE r.thread_id = mine.thread_id AND r.finished_at IS NULL
    ORDER BY r.seq
    LIMIT 1
) <> run THEN
    verdict := 'waits';
ELSE
    IF NOT (mine.continues AND coalesce((
        SELECT true FROM thread_events t
        WHERE t.thread_id = mine.thread_id AND t.event_id BETWEEN mine.message_id AND mine.message_id
        ORDER BY t.event_id
        LIMIT 1
    ), false)) THEN
        entering := entering || beside_ids || mine.message_id;
        entering_types := entering_types || ARRAY(
            SELECT b.event ->> 'type' FROM json_array_elements(mine.beside) WITH ORDINALITY b (event, position)
            ORDER BY b.position
        ) || mine.message_type::text;
        entering_data := entering_data || ARRAY(
            SELECT b.event -> 'data' FROM json_array_elements(mine.beside) WITH ORDINALITY b (event, position)
            ORDER BY b.position
        ) || mine.message_data;
    END IF;
    SELECT array_agg(e.id) INTO clashes FROM unnest(entering) e (id)
    WHERE (
        SELECT true FROM thread_events t WHERE t.thread_id = mine.thread_id AND t.event_id BETWEEN e.id AND e.id
        ORDER BY t.event_id
        LIMIT 1
    );
    verdict := CASE WHEN clashes IS NULL THEN 'started' ELSE 'taken' END;
END IF;

IF verdict = 'started' THEN
    wall := clock_timestamp();
    SELECT greatest(wall::timestamp, (
        SELECT e.created_at FROM thread_events e WHERE e.thread_id = mine.thread_id
        ORDER BY e.created_at DESC, e.event_id DESC
        LIMIT 1
    ) + tick) INTO first_at;
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    SELECT mine.thread_id, e.id, first_at + (e.position - 1) * tick, e.kind, e.data
    FROM unnest(entering, entering_types, entering_data) WITH ORDINALITY e (id, kind, data, position);
    UPDATE jimsapi_runs r SET status = 'running', started_at = wall, message_data = NULL WHERE r.run_id = run;
END IF;

RETURN QUERY SELECT 0, verdict, mine.message_id, NULL::timestamp, NULL::text, NULL::json, clashes;
IF verdict IN ('started', 'known') THEN
    RETURN QUERY
    SELECT c.part, NULL::text, c.event_id, c.created_at, c.event_type, c.event_data, NULL::uuid[]
    FROM jimsapi_context_1(ARRAY[mine.thread_id], ARRAY[context_events], ARRAY[context_bytes]) c;
    -- The added rows may be outside the context, so they are read by their ids.
    RETURN QUERY
    SELECT i.part, NULL::text, e.event_id, e.created_at, e.event_type::text, e.event_data::json, NULL::uuid[]
    FROM (
        SELECT 5 AS part, n.id, n.position FROM unnest(entering) WITH ORDINALITY n (id, position)
        UNION ALL
        SELECT 6, n.id, n.position FROM unnest(beside_ids || mine.message_id) WITH ORDINALITY n (id, position)
        WHERE mine.continues
    ) i
    CROSS JOIN LATERAL (
        SELECT t.event_id, t.created_at, t.event_type, t.event_data FROM thread_events t
        WHERE t.thread_id = mine.thread_id AND t.event_id BETWEEN i.id AND i.id
        ORDER BY t.event_id
        LIMIT 1
    ) e
    ORDER BY i.position;
END IF;
END
$body$;


CREATE OR REPLACE FUNCTION jimsapi_append_5(
    of_thread uuid, acting text, event_ids uuid[], event_types text[], event_data json[],
    OUT verdict text, OUT first_at timestamp, OUT taken uuid[]
)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    tick CONSTANT interval := interval '1 microsecond';
BEGIN
PERFORM pg_advisory_xact_lock(uuid_hash_extended(of_thread, 3));
IF (
    SELECT t.contact_id IS DISTINCT FROM coalesce(acting, t.contact_id) FROM threads t
    WHERE t.thread_id BETWEEN of_thread AND of_thread
    ORDER BY t.thread_id
    LIMIT 1
) IS DISTINCT FROM false THEN
    verdict := 'missing';
    RETURN;
END IF;
taken := ARRAY(
    SELECT e.id FROM unnest(event_ids) e (id)
    WHERE (
        SELECT true FROM thread_events t WHERE t.thread_id = of_thread AND t.event_id BETWEEN e.id AND e.id
        ORDER BY t.event_id
        LIMIT 1
    )
);
IF cardinality(taken) = cardinality(event_ids) THEN
    verdict := 'known';
ELSIF cardinality(taken) > 0 THEN
    verdict := 'taken';
ELSE
    verdict := 'stored';
    SELECT greatest(clock_timestamp()::timestamp, (
        SELECT e.created_at FROM thread_events e WHERE e.thread_id = of_thread
        ORDER BY e.created_at DESC, e.event_id DESC
        LIMIT 1
    ) + tick) INTO first_at;
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    SELECT of_thread, e.id, first_at + (e.position - 1) * tick, e.kind, e.data
    FROM unnest(event_ids, event_types, event_data) WITH ORDINALITY e (id, kind, data, position);
END IF;
END
$body$;


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
    DELETE FROM threads t WHERE t.thread_id = ANY (of_threads);
END IF;
END
$body$;
