-- What version 3 of the schema had instead of what later ones have.

DROP FUNCTION jimsapi_finish_4;
ALTER TABLE jimsapi_runs DROP COLUMN failure;
UPDATE jimsapi_schema SET version = 3, serves_from = 1;

CREATE OR REPLACE FUNCTION jimsapi_finish_2(
    run_ids uuid[], owners uuid[], statuses text[], errors text[],
    event_items int[], event_ids uuid[], event_types text[], event_data json[], event_counts int[], told int[]
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
    array_agg(CASE WHEN d.counts AND d.ending = 'completed' THEN greatest(moment, (
        SELECT e.created_at FROM thread_events e WHERE e.thread_id = d.thread
        ORDER BY e.created_at DESC, e.event_id DESC
        LIMIT 1
    ) + tick) END ORDER BY d.item)
INTO found, counts, is_now, times
FROM (
    SELECT
        i.item, r.thread_id AS thread, i.ending, r.status,
        coalesce(
            r.status = 'running' AND r.owner = i.owner AND array_position(run_ids, i.run_id) = i.item,  -- once a call
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
    status = u.status, finished_at = wall, error = u.error, message_data = NULL, streamed = u.streamed,
    sent = u.sent, sent_at = CASE WHEN u.sent > 0 THEN u.first_at END
FROM unnest(run_ids, statuses, errors, counts, event_counts, times, told)
    u (run_id, status, error, counted, sent, first_at, streamed)
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
