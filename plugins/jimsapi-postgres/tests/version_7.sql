-- What version 7 of the schema had instead of what later ones have.

DROP FUNCTION jimsapi_keep_8, jimsapi_call_8, jimsapi_forget_letters_8;
DROP FUNCTION jimsapi_recover_8, jimsapi_adopt_8, jimsapi_may_restart_8;
DROP TABLE jimsapi_outbox, jimsapi_sinks, jimsapi_dead_letters, jimsapi_webhooks;
ALTER TABLE jimsapi_runs DROP COLUMN restarts;
UPDATE jimsapi_schema SET version = 7, serves_from = 1;

CREATE OR REPLACE FUNCTION jimsapi_accept_5(
    run_ids uuid[], owners uuid[], contacts text[], actings text[],
    message_ids uuid[], message_types text[], message_data json[],
    greets boolean[], queue_limits int[], context_events int[], context_bytes bigint[],
    new_threads uuid[], new_events uuid[], new_externals text[], new_configs json[], new_times timestamp[],
    selector_items int[], selector_kinds int[], selector_threads uuid[], selector_externals text[], selector_ages float8[],
    callers uuid[], in_background boolean[], webhooks text[], besides json[]
)
RETURNS TABLE (item int, part int, verdict text, id uuid, at timestamp, kind text, data json, first_at timestamp)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    tick CONSTANT interval := interval '1 microsecond';
    created CONSTANT text := 'jims.lifecycle.thread_created';
    moment timestamp;
    wall timestamptz;
    verdicts text[];
    found uuid[];
    times timestamp[];
    seqs bigint[];
    wants_latest CONSTANT int[] := ARRAY(
        SELECT s.item FROM unnest(selector_items, selector_kinds) s (item, kind) WHERE s.kind = 2
    );
BEGIN
-- Concurrent first messages of a contact create one thread.
PERFORM pg_advisory_xact_lock(l.key) FROM (
    SELECT DISTINCT k.key FROM (
        SELECT hashtextextended(contacts[n.item], 1) FROM unnest(new_threads) WITH ORDINALITY n (id, item)
        WHERE n.id IS NOT NULL
        UNION ALL
        SELECT hashtextextended(n.external, 2) FROM unnest(new_externals) n (external) WHERE n.external IS NOT NULL
    ) k (key)
    ORDER BY k.key
) l;

moment := clock_timestamp()::timestamp;
SELECT
    array_agg(m.thread_id ORDER BY i.item),
    array_agg(
        CASE
            WHEN (SELECT true FROM jimsapi_runs r WHERE r.run_id = i.run_id) THEN 'known'
            WHEN m.item IS NULL THEN 'missing'
            WHEN m.kind = 4 THEN 'new'
            WHEN m.kind <> 2 AND m.contact_id IS DISTINCT FROM coalesce(i.acting, m.contact_id) THEN 'refused'
            ELSE 'into'
        END
        ORDER BY i.item
    )
INTO found, verdicts
FROM unnest(run_ids, actings) WITH ORDINALITY i (run_id, acting, item)
LEFT JOIN (
    SELECT DISTINCT ON (s.item) s.item, s.kind, t.thread_id, t.contact_id
    FROM unnest(selector_items, selector_kinds, selector_threads, selector_externals, selector_ages)
        WITH ORDINALITY s (item, kind, thread_id, external_id, age, position)
    CROSS JOIN LATERAL (
        (
            SELECT t.thread_id, t.contact_id FROM threads t
            WHERE s.kind = 1 AND t.thread_id BETWEEN s.thread_id AND s.thread_id
            ORDER BY t.thread_id
            LIMIT 1
        )
        UNION ALL
        SELECT t.thread_id, t.contact_id
        FROM (
            SELECT t.thread_id, t.contact_id, t.created_at FROM threads t
            WHERE s.kind = 2 AND t.contact_id = contacts[s.item]
            ORDER BY t.created_at DESC, t.thread_id DESC
            LIMIT 1
        ) t
        WHERE s.age IS NULL OR coalesce(
            (
                SELECT e.created_at >= moment - s.age * interval '1 second' FROM thread_events e
                WHERE e.thread_id = t.thread_id
                ORDER BY e.created_at DESC, e.event_id DESC
                LIMIT 1
            ),
            -- Another JIMS program has created the thread, in its local time, but not its first event yet.
            t.created_at >= new_times[s.item] - s.age * interval '1 second'
        )
        UNION ALL
        (
            -- The newest: other JIMS programs do not keep external ids unique.
            SELECT t.thread_id, t.contact_id FROM threads t
            WHERE s.kind = 3 AND t.external_id = s.external_id
            ORDER BY t.created_at DESC
            LIMIT 1
        )
        UNION ALL
        SELECT NULL, NULL WHERE s.kind = 4
    ) t
    ORDER BY s.item, s.position
) m ON m.item = i.item;

PERFORM pg_advisory_xact_lock(l.key) FROM (
    SELECT DISTINCT uuid_hash_extended(f.thread, 3) AS key FROM unnest(found, verdicts) f (thread, verdict)
    WHERE f.verdict = 'into'
    ORDER BY key
) l;

-- Messages for a thread that this call creates, or that was deleted meanwhile, are retried in a later call, but not
-- messages that each require a new thread.
wall := clock_timestamp();
moment := wall::timestamp;
SELECT
    array_agg(d.verdict ORDER BY d.item),
    array_agg(
        CASE WHEN d.verdict = 'running' THEN greatest(moment, d.newest + tick) ELSE moment END ORDER BY d.item
    ),
    array_agg(d.seq ORDER BY d.item),
    array_agg(CASE WHEN d.verdict IN ('created', 'greeted') THEN new_threads[d.item] ELSE d.thread END ORDER BY d.item)
INTO verdicts, times, seqs, found
FROM (
    SELECT
        r.item, r.thread,
        coalesce(r.last, 0) + r.rank AS seq,
        CASE
            WHEN r.verdict = 'new' THEN
                CASE WHEN r.made_before THEN 'again' WHEN greets[r.item] THEN 'greeted' ELSE 'created' END
            WHEN r.verdict <> 'into' THEN r.verdict
            WHEN r.there IS NULL THEN 'again'
            -- Perhaps by an earlier call with this run, which was not committed when this call looked for the run.
            WHEN r.taken THEN CASE
                WHEN (SELECT true FROM jimsapi_runs o WHERE o.run_id = run_ids[r.item]) THEN 'known' ELSE 'taken'
            END
            WHEN r.waiting + r.rank - 1 > queue_limits[r.item] THEN 'full'  -- the oldest open run does not wait
            WHEN r.waiting + r.rank = 1 THEN 'running'
            ELSE 'queued'
        END AS verdict,
        CASE WHEN r.verdict = 'into' AND r.waiting + r.rank = 1 THEN (
            SELECT e.created_at FROM thread_events e WHERE e.thread_id = r.thread
            ORDER BY e.created_at DESC, e.event_id DESC
            LIMIT 1
        ) END AS newest
    FROM (
        SELECT
            b.*,
            row_number() OVER (PARTITION BY b.thread, b.verdict, b.there, b.taken ORDER BY b.item) AS rank,
            count(*) FILTER (WHERE b.verdict = 'new') OVER made_for > 1 AND b.item = ANY (wants_latest)
            OR count(b.external) FILTER (WHERE b.verdict = 'new')
                OVER (PARTITION BY b.external ORDER BY b.item ROWS UNBOUNDED PRECEDING) > 1 AS made_before
        FROM (
            SELECT
                i.item, i.thread, i.verdict, i.contact, i.external,
                CASE WHEN i.verdict = 'into' THEN (
                    SELECT true FROM threads t WHERE t.thread_id BETWEEN i.thread AND i.thread
                    ORDER BY t.thread_id
                    LIMIT 1
                ) END AS there,
                CASE WHEN i.verdict = 'into' THEN (
                    SELECT true FROM thread_events e
                    WHERE e.thread_id = i.thread AND e.event_id BETWEEN i.message_id AND i.message_id
                    ORDER BY e.event_id
                    LIMIT 1
                ) END AS taken,
                coalesce(q.waiting, 0) AS waiting, q.last
            FROM unnest(found, verdicts, message_ids, contacts, new_externals)
                WITH ORDINALITY i (thread, verdict, message_id, contact, external, item)
            LEFT JOIN LATERAL (
                SELECT count(*) AS waiting, max(r.seq) AS last FROM jimsapi_runs r
                WHERE r.thread_id = i.thread AND r.finished_at IS NULL
            ) q ON i.verdict = 'into'
        ) b
        WINDOW made_for AS (PARTITION BY b.contact ORDER BY b.item ROWS UNBOUNDED PRECEDING)
    ) r
) d;

INSERT INTO threads (thread_id, contact_id, external_id, created_at, thread_config)
SELECT
    n.thread, contacts[n.item], new_externals[n.item],
    -- Local time goes back in autumn, and Latest finds the newest thread by it.
    greatest(new_times[n.item], (
        SELECT t.created_at FROM threads t WHERE t.contact_id = contacts[n.item]
        ORDER BY t.created_at DESC, t.thread_id DESC
        LIMIT 1
    ) + tick) + (row_number() OVER (PARTITION BY contacts[n.item] ORDER BY n.item) - 1) * tick,
    new_configs[n.item]::jsonb
FROM unnest(found, verdicts) WITH ORDINALITY n (thread, verdict, item)
WHERE n.verdict IN ('created', 'greeted');

INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
SELECT n.thread, new_events[n.item], times[n.item], created, '{}'::json
FROM unnest(found, verdicts) WITH ORDINALITY n (thread, verdict, item)
WHERE n.verdict IN ('created', 'greeted')
UNION ALL
SELECT
    n.thread, message_ids[n.item],
    times[n.item]
        + (CASE WHEN n.verdict = 'created' THEN 1 ELSE 0 END + coalesce(json_array_length(n.beside), 0)) * tick,
    message_types[n.item], message_data[n.item]
FROM unnest(found, verdicts, besides) WITH ORDINALITY n (thread, verdict, beside, item)
WHERE n.verdict IN ('created', 'running');

IF besides IS NOT NULL THEN
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    SELECT
        n.thread, jimsapi_id_beside_5(message_ids[n.item], b.position),
        times[n.item] + (b.position - CASE WHEN n.verdict = 'created' THEN 0 ELSE 1 END) * tick,
        b.event ->> 'type', b.event -> 'data'
    FROM unnest(found, verdicts, besides) WITH ORDINALITY n (thread, verdict, beside, item)
    CROSS JOIN LATERAL json_array_elements(n.beside) WITH ORDINALITY b (event, position)
    WHERE n.verdict IN ('created', 'running');
END IF;

INSERT INTO jimsapi_runs (
    run_id, thread_id, seq, owner, status, created_new_thread, message_id, message_type, message_data, beside,
    accepted_at, started_at, caller, background, webhook_url
)
SELECT
    run_ids[n.item], n.thread, seqs[n.item], owners[n.item],
    CASE WHEN n.verdict IN ('greeted', 'queued') THEN 'queued' ELSE 'running' END,
    n.verdict IN ('created', 'greeted'),
    message_ids[n.item], message_types[n.item],
    CASE WHEN n.verdict IN ('greeted', 'queued') THEN message_data[n.item] END,
    CASE WHEN n.verdict IN ('greeted', 'queued') THEN besides[n.item] END,
    wall, CASE WHEN n.verdict IN ('created', 'running') THEN wall END,
    callers[n.item], in_background[n.item], webhooks[n.item]
FROM unnest(found, verdicts) WITH ORDINALITY n (thread, verdict, item)
WHERE n.verdict IN ('created', 'greeted', 'queued', 'running');

RETURN QUERY
SELECT
    n.item::int, 0, n.verdict,
    CASE WHEN n.verdict = 'full' THEN (
        SELECT r.run_id FROM jimsapi_runs r WHERE r.thread_id = n.thread AND r.finished_at IS NULL
        ORDER BY r.seq
        LIMIT 1
    ) ELSE n.thread END,
    t.created_at, t.contact_id, t.thread_config, times[n.item]
FROM unnest(found, verdicts) WITH ORDINALITY n (thread, verdict, item)
LEFT JOIN LATERAL (
    SELECT t.created_at, t.contact_id::text, t.thread_config::json FROM threads t
    WHERE t.thread_id BETWEEN n.thread AND n.thread
    ORDER BY t.thread_id
    LIMIT 1
) t ON n.verdict IN ('created', 'greeted', 'queued', 'running');

IF 'running' = ANY (verdicts) THEN
    RETURN QUERY
    SELECT c.item, c.part, NULL::text, c.event_id, c.created_at, c.event_type, c.event_data, NULL::timestamp
    FROM jimsapi_context_1(
        (
            SELECT array_agg(CASE WHEN n.verdict = 'running' THEN n.thread END ORDER BY n.item)
            FROM unnest(found, verdicts) WITH ORDINALITY n (thread, verdict, item)
        ),
        context_events, context_bytes
    ) c;
END IF;
END
$body$;

CREATE OR REPLACE FUNCTION jimsapi_accept_alike_3(
    run_ids uuid[], contacts text[], message_ids uuid[], message_types text[], message_data json[],
    new_threads uuid[], new_events uuid[], callers uuid[],
    by_owner uuid, new_config json, now_here timestamp, age float8, queue_limit int, of_events int, of_bytes bigint,
    only_new boolean
)
RETURNS TABLE (item int, part int, verdict text, id uuid, at timestamp, kind text, data json, first_at timestamp)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    tick CONSTANT interval := interval '1 microsecond';
    wall timestamptz;
    moment timestamp;
    stored jsonb;
    size int;
    items int[];
BEGIN
PERFORM pg_advisory_xact_lock(l.key) FROM (
    SELECT hashtextextended(c.contact, 1) AS key FROM unnest(contacts) c (contact) ORDER BY key
) l;

-- If a run was accepted before, its contact has a thread.
wall := clock_timestamp();
IF NOT EXISTS (
    SELECT FROM unnest(contacts) c (contact)
    WHERE (
        SELECT true FROM threads t WHERE t.contact_id = c.contact ORDER BY t.created_at DESC, t.thread_id DESC LIMIT 1
    )
) THEN
    moment := wall::timestamp;
    stored := new_config::jsonb;
    INSERT INTO threads (thread_id, contact_id, created_at, thread_config)
    SELECT n.thread, n.contact, now_here, stored FROM unnest(new_threads, contacts) n (thread, contact);

    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    SELECT n.thread, n.event, moment, 'jims.lifecycle.thread_created', '{}'::json
    FROM unnest(new_threads, new_events) n (thread, event)
    UNION ALL
    SELECT n.thread, n.event, moment + tick, n.type, n.data
    FROM unnest(new_threads, message_ids, message_types, message_data) n (thread, event, type, data);

    INSERT INTO jimsapi_runs (
        run_id, thread_id, seq, owner, status, created_new_thread, message_id, message_type, accepted_at, started_at, caller
    )
    SELECT n.run, n.thread, 1, by_owner, 'running', true, n.message, n.type, wall, wall, n.caller
    FROM unnest(run_ids, new_threads, message_ids, message_types, callers) n (run, thread, message, type, caller);

    RETURN QUERY SELECT 0, 0, 'created', NULL::uuid, NULL::timestamp, NULL::text, stored::json, moment;
    RETURN;
ELSIF only_new THEN
    RETURN;
END IF;

size := cardinality(run_ids);
items := ARRAY(SELECT n FROM generate_series(1, size) n);
RETURN QUERY
SELECT a.item, a.part, a.verdict, a.id, a.at, a.kind, a.data, a.first_at
FROM jimsapi_accept_5(
    run_ids, array_fill(by_owner, ARRAY[size]), contacts, array_fill(NULL::text, ARRAY[size]),
    message_ids, message_types, message_data,
    array_fill(false, ARRAY[size]), array_fill(queue_limit, ARRAY[size]),
    array_fill(of_events, ARRAY[size]), array_fill(of_bytes, ARRAY[size]),
    new_threads, new_events, array_fill(NULL::text, ARRAY[size]), array_fill(new_config, ARRAY[size]),
    array_fill(now_here, ARRAY[size]),
    items || items, array_fill(2, ARRAY[size]) || array_fill(4, ARRAY[size]),
    NULL, NULL, array_fill(age, ARRAY[size]) || array_fill(NULL::float8, ARRAY[size]),
    callers, array_fill(false, ARRAY[size]), NULL, NULL
) a;
END
$body$;

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

    IF 'model.usage' = ANY (event_types) THEN
        PERFORM jimsapi_count_usage_7(
            array_agg(found[e.item] ORDER BY e.position), NULL,
            array_agg(
                (SELECT r.caller FROM jimsapi_runs r WHERE r.run_id = run_ids[e.item] LIMIT 1) ORDER BY e.position
            ),
            array_agg(e.data ORDER BY e.position)
        )
        FROM unnest(event_items, event_types, event_data) WITH ORDINALITY e (item, kind, data, position)
        WHERE e.kind = 'model.usage' AND counts[e.item] AND times[e.item] IS NOT NULL
        HAVING count(*) > 0;
    END IF;
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
    IF 'model.usage' = ANY (event_types) THEN
        PERFORM jimsapi_count_usage_7(
            array_agg(mine.thread_id), NULL, array_agg(mine.caller), array_agg(e.data ORDER BY e.position)
        )
        FROM unnest(event_types, event_data) WITH ORDINALITY e (kind, data, position)
        WHERE e.kind = 'model.usage';
    END IF;
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

CREATE OR REPLACE FUNCTION jimsapi_append_7(
    of_thread uuid, acting text, event_ids uuid[], event_types text[], event_data json[], of_run uuid,
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
    IF 'model.usage' = ANY (event_types) THEN
        PERFORM jimsapi_count_usage_7(
            array_agg(of_thread), NULL,
            array_agg((SELECT r.caller FROM jimsapi_runs r WHERE r.run_id = of_run LIMIT 1)),
            array_agg(e.data ORDER BY e.position)
        )
        FROM unnest(event_types, event_data) WITH ORDINALITY e (kind, data, position)
        WHERE e.kind = 'model.usage';
    END IF;
END IF;
END
$body$;

CREATE OR REPLACE FUNCTION jimsapi_recover_2(me uuid, silence interval, at_once int, background_too boolean) RETURNS int
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    tick CONSTANT interval := interval '1 microsecond';
    before CONSTANT timestamptz := jimsapi_dead_before_2(silence);
    of_runs uuid[];
    of_threads uuid[];
    ended uuid[];
    ended_owners uuid[];
BEGIN
SELECT array_agg(d.run_id), array_agg(DISTINCT d.thread_id) INTO of_runs, of_threads
FROM (
    SELECT r.run_id, r.thread_id FROM jimsapi_runs r
    WHERE r.finished_at IS NULL AND r.owner <> me
        AND coalesce((SELECT o.beat_at FROM jimsapi_owners o WHERE o.owner = r.owner), r.accepted_at) < before
        AND (background_too OR NOT (r.background AND r.status = 'queued'))
    ORDER BY r.thread_id, r.seq
    LIMIT at_once
) d;
IF of_runs IS NULL THEN
    DELETE FROM jimsapi_owners o
    WHERE o.beat_at < before - interval '1 day' AND o.owner <> me
        AND NOT EXISTS (SELECT FROM jimsapi_runs r WHERE r.finished_at IS NULL AND r.owner = o.owner);
    RETURN 0;
END IF;

PERFORM pg_advisory_xact_lock(l.key) FROM (
    SELECT DISTINCT uuid_hash_extended(f.thread, 3) AS key FROM unnest(of_threads) f (thread) ORDER BY key
) l;

INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
SELECT
    w.thread_id, w.event_id,
    greatest(clock_timestamp()::timestamp, (
        SELECT e.created_at FROM thread_events e WHERE e.thread_id = w.thread_id
        ORDER BY e.created_at DESC, e.event_id DESC
        LIMIT 1
    ) + tick) + (w.rank - 1) * tick,
    w.type, w.data
FROM (
    SELECT
        r.thread_id, b.*, row_number() OVER (PARTITION BY r.thread_id ORDER BY r.seq, b.position) AS rank
    FROM jimsapi_runs r
    CROSS JOIN LATERAL (
        SELECT jimsapi_id_beside_5(r.message_id, b.position) AS event_id, b.event ->> 'type' AS type,
            b.event -> 'data' AS data, b.position
        FROM json_array_elements(r.beside) WITH ORDINALITY b (event, position)
        UNION ALL
        SELECT r.message_id, r.message_type::text, r.message_data, 256
    ) b
    WHERE r.run_id = ANY (of_runs) AND r.status = 'queued'
) w
ORDER BY w.thread_id, w.rank
ON CONFLICT DO NOTHING;

WITH ending AS (
    UPDATE jimsapi_runs r SET status = 'interrupted', finished_at = clock_timestamp(), message_data = NULL, beside = NULL
    WHERE r.run_id = ANY (of_runs) AND r.finished_at IS NULL
    RETURNING r.run_id, r.owner
)
SELECT array_agg(e.run_id), array_agg(e.owner) INTO ended, ended_owners FROM ending e;

-- A process that was only suspended is notified that its runs have ended. So is the calling process, since tasks in it may
-- wait for these runs.
PERFORM jimsapi_tell_1(ended || array_agg(n.run_id), ended_owners || array_agg(n.owner), '{}')
FROM unnest(of_threads) i (thread)
CROSS JOIN LATERAL (
    SELECT r.run_id, r.owner, r.status FROM jimsapi_runs r WHERE r.thread_id = i.thread AND r.finished_at IS NULL
    ORDER BY r.seq
    LIMIT 1
) n
WHERE n.status = 'queued';
RETURN coalesce(cardinality(ended), 0);
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

CREATE OR REPLACE FUNCTION jimsapi_fork_6(
    of_thread uuid, of_parent uuid, acting text, of_event uuid, before boolean, external boolean, now_here timestamp,
    OUT verdict text
)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    tick CONSTANT interval := interval '1 microsecond';
    contact text;
    edge timestamp;
    last_at timestamp;
    last_event uuid;
BEGIN
SELECT t.contact_id INTO contact FROM threads t
WHERE t.thread_id BETWEEN of_parent AND of_parent
ORDER BY t.thread_id
LIMIT 1;
IF FOUND AND contact IS NOT NULL THEN
    PERFORM pg_advisory_xact_lock(hashtextextended(contact, 1));
END IF;
-- Nobody deletes the parent while its events are copied.
PERFORM pg_advisory_xact_lock(uuid_hash_extended(of_parent, 3));
IF (
    SELECT true FROM threads t WHERE t.thread_id BETWEEN of_thread AND of_thread ORDER BY t.thread_id LIMIT 1
) THEN
    verdict := 'known';
    RETURN;
END IF;
SELECT t.contact_id INTO contact FROM threads t
WHERE t.thread_id BETWEEN of_parent AND of_parent
ORDER BY t.thread_id
LIMIT 1;
IF NOT FOUND OR (acting IS NOT NULL AND contact IS DISTINCT FROM acting) THEN
    verdict := 'missing';
    RETURN;
END IF;

IF of_event IS NULL THEN
    SELECT e.created_at, e.event_id INTO last_at, last_event FROM thread_events e
    WHERE e.thread_id = of_parent
    ORDER BY e.created_at DESC, e.event_id DESC
    LIMIT 1;
ELSE
    SELECT e.created_at INTO edge FROM thread_events e
    WHERE e.thread_id = of_parent AND e.event_id BETWEEN of_event AND of_event
    ORDER BY e.event_id
    LIMIT 1;
    IF before THEN
        SELECT e.created_at, e.event_id INTO last_at, last_event FROM thread_events e
        WHERE e.thread_id = of_parent AND (e.created_at, e.event_id) < (edge, of_event)
        ORDER BY e.created_at DESC, e.event_id DESC
        LIMIT 1;
    ELSIF edge IS NOT NULL THEN
        last_at := edge;
        last_event := of_event;
    END IF;
END IF;
IF last_event IS NULL THEN
    verdict := 'no event';
    RETURN;
END IF;

INSERT INTO threads (thread_id, contact_id, external_id, created_at, thread_config)
SELECT
    of_thread, t.contact_id, CASE WHEN external THEN t.external_id END,
    greatest(now_here, (
        SELECT n.created_at FROM threads n WHERE n.contact_id = contact
        ORDER BY n.created_at DESC, n.thread_id DESC
        LIMIT 1
    ) + tick),
    t.thread_config
FROM threads t
WHERE t.thread_id = of_parent;
INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_domain, event_name, event_data)
SELECT of_thread, e.event_id, e.created_at, e.event_type, e.event_domain, e.event_name, e.event_data
FROM thread_events e
WHERE e.thread_id = of_parent AND (e.created_at, e.event_id) <= (last_at, last_event)
ORDER BY e.created_at, e.event_id;
INSERT INTO jimsapi_threads (thread_id, metadata, parent_id, parent_event_id)
SELECT
    of_thread, coalesce((SELECT f.metadata FROM jimsapi_threads f WHERE f.thread_id = of_parent), '{}'),
    of_parent, last_event;
verdict := 'made';
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
    PERFORM jimsapi_forget_7(of_threads);
    DELETE FROM jimsapi_thread_usage f WHERE f.thread_id = ANY (of_threads);
    DELETE FROM threads t WHERE t.thread_id = ANY (of_threads);
END IF;
END
$body$;

CREATE OR REPLACE FUNCTION jimsapi_end_1(
    run_ids uuid[], of_owner uuid, when_running text, when_queued text, mine uuid[]
)
RETURNS TABLE (run_id uuid, counted boolean, status text, next_run uuid)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    of_threads uuid[];
    ended uuid[];
    ended_owners uuid[];
    followers uuid[];
    follower_owners uuid[];
BEGIN
SELECT array_agg(DISTINCT r.thread_id) INTO of_threads FROM jimsapi_runs r WHERE r.run_id = ANY (run_ids);
PERFORM pg_advisory_xact_lock(l.key) FROM (
    SELECT DISTINCT uuid_hash_extended(f.thread, 3) AS key FROM unnest(of_threads) f (thread) ORDER BY key
) l;

WITH ending AS (
    UPDATE jimsapi_runs r
    SET status = CASE WHEN r.status = 'running' THEN when_running ELSE when_queued END,
        finished_at = clock_timestamp(), message_data = NULL, beside = NULL
    WHERE r.run_id = ANY (run_ids) AND r.finished_at IS NULL AND r.owner = coalesce(of_owner, r.owner)
    RETURNING r.run_id, r.owner
)
SELECT array_agg(e.run_id), array_agg(e.owner) INTO ended, ended_owners FROM ending e;

SELECT array_agg(n.run_id), array_agg(n.owner) INTO followers, follower_owners
FROM unnest(of_threads) i (thread)
CROSS JOIN LATERAL (
    SELECT r.run_id, r.owner, r.status FROM jimsapi_runs r WHERE r.thread_id = i.thread AND r.finished_at IS NULL
    ORDER BY r.seq
    LIMIT 1
) n
WHERE n.status = 'queued';

IF ended IS NOT NULL THEN
    PERFORM jimsapi_tell_1(ended || followers, ended_owners || follower_owners, mine);
END IF;

RETURN QUERY
SELECT i.run_id, coalesce(i.run_id = ANY (ended), false), r.status, (
    SELECT n.run_id FROM jimsapi_runs n
    WHERE n.thread_id = r.thread_id AND n.run_id = ANY (followers) AND n.finished_at IS NULL
    LIMIT 1
)
FROM unnest(run_ids) WITH ORDINALITY i (run_id, position)
LEFT JOIN LATERAL (
    SELECT r.thread_id, r.status::text FROM jimsapi_runs r WHERE r.run_id = i.run_id LIMIT 1
) r ON true
ORDER BY i.position;
END
$body$;


CREATE OR REPLACE FUNCTION jimsapi_adopt_5(me uuid, of_adoption uuid, silence interval, at_once int)
RETURNS TABLE (
    run_id uuid, thread_id uuid, contact_id text, message_id uuid, message_type text, message_data json,
    caller uuid, webhook_url text, beside json
)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    before CONSTANT timestamptz := jimsapi_dead_before_2(silence);
    of_runs uuid[];
    of_owners uuid[];
    of_threads uuid[];
BEGIN
SELECT array_agg(d.run_id), array_agg(d.owner), array_agg(DISTINCT d.thread_id) INTO of_runs, of_owners, of_threads
FROM (
    SELECT r.run_id, r.owner, r.thread_id FROM jimsapi_runs r
    WHERE r.finished_at IS NULL AND r.owner <> me AND r.background AND r.status = 'queued'
        AND coalesce((SELECT o.beat_at FROM jimsapi_owners o WHERE o.owner = r.owner), r.accepted_at) < before
    ORDER BY r.thread_id, r.seq
    LIMIT at_once
) d;

IF of_runs IS NOT NULL THEN
    -- A call that starts a run, or takes it over, holds this lock.
    PERFORM pg_advisory_xact_lock(l.key) FROM (
        SELECT DISTINCT uuid_hash_extended(f.thread, 3) AS key FROM unnest(of_threads) f (thread) ORDER BY key
    ) l;
    UPDATE jimsapi_runs r SET owner = me, adoption = of_adoption
    FROM unnest(of_runs, of_owners) d (run_id, owner)
    WHERE r.run_id = ANY (of_runs) AND r.run_id = d.run_id AND r.owner = d.owner
        AND r.finished_at IS NULL AND r.status = 'queued';
END IF;

RETURN QUERY
SELECT
    r.run_id, r.thread_id,
    (
        SELECT t.contact_id::text FROM threads t WHERE t.thread_id BETWEEN r.thread_id AND r.thread_id
        ORDER BY t.thread_id
        LIMIT 1
    ),
    r.message_id, r.message_type::text, r.message_data, r.caller, r.webhook_url, r.beside
FROM jimsapi_runs r
WHERE r.finished_at IS NULL AND r.owner = me AND r.adoption = of_adoption AND r.status = 'queued'
ORDER BY r.thread_id, r.seq;
END
$body$;
