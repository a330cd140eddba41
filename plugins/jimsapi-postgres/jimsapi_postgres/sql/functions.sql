-- The functions that the server calls, each in one round trip, and those that these call. Servers of two versions may run
-- at the same time: a function whose parameters or results change gets another name.
--
-- A function acquires its locks first, and all functions in the same order: idempotency keys, then contacts and external
-- ids, then threads, each sorted. Its later statements see what others committed while it waited (READ COMMITTED).
--
-- A plan may be made while the tables are empty, and is reused. So only one index fits each lookup: rows are fetched by
-- scalar subqueries and laterals, in the order of that index (sorting is disabled), and a key is looked up as BETWEEN key
-- AND key ORDER BY key, which an index with the column in a later position cannot serve.
--
-- The rules are those of jimsapi/threads/transitions.py; the comment of a function names the Python functions.

-- The events that contexts start with, one item for each thread that is not null. Parts: 1 the newest events of any type,
-- newest first; 2 older comm.* events; 3 older states; 4 a row if the thread has more events. Reading stops when the
-- stored size of the events exceeds `of_bytes`. If `of_events` is null, part 1 is the whole thread.
CREATE OR REPLACE FUNCTION jimsapi_context(of_threads uuid[], of_events int[], of_bytes bigint[])
RETURNS TABLE (item int, part int, event_id uuid, created_at timestamp, event_type text, event_data json)
LANGUAGE plpgsql STABLE AS $body$
#variable_conflict use_column
BEGIN
RETURN QUERY
SELECT a.item::int, 1, e.event_id, e.created_at, e.event_type, e.event_data
FROM unnest(of_threads, of_events) WITH ORDINALITY a (thread, events, item)
CROSS JOIN LATERAL (
    SELECT t.event_id, t.created_at, t.event_type::text, t.event_data::json FROM thread_events t
    WHERE t.thread_id = a.thread
    ORDER BY t.created_at DESC, t.event_id DESC
) e
WHERE a.thread IS NOT NULL AND a.events IS NULL;

RETURN QUERY
SELECT a.item::int, c.part, c.event_id, c.created_at, c.event_type, c.event_data
FROM unnest(of_threads, of_events, of_bytes) WITH ORDINALITY a (thread, events, bytes, item)
CROSS JOIN LATERAL (
    WITH RECURSIVE newest AS MATERIALIZED (
        SELECT
            e.event_id, e.created_at, e.event_type, e.event_data, e.position,
            e.position <= 2 * a.events AND e.weight - e.size <= a.bytes AS kept
        FROM (
            SELECT n.*, row_number() OVER w AS position, sum(n.size) OVER w AS weight
            FROM (
                SELECT
                    t.event_id, t.created_at, t.event_type::text, t.event_data::json,
                    coalesce(pg_column_size(t.event_data) - 4, 0) AS size
                FROM thread_events t
                WHERE t.thread_id = a.thread
                ORDER BY t.created_at DESC, t.event_id DESC
                LIMIT 2 * a.events + 1
            ) n
            WINDOW w AS (ORDER BY n.created_at DESC, n.event_id DESC ROWS UNBOUNDED PRECEDING)
        ) e
    ),
    -- The oldest event of the window, if the thread has events before it.
    edge AS MATERIALIZED (
        SELECT n.created_at, n.event_id, h.held, greatest(a.events - h.comms, 0) AS missing
        FROM (
            SELECT
                count(*) FILTER (WHERE kept) AS held,
                count(*) FILTER (WHERE kept AND substr(event_type, 1, 5) = 'comm.') AS comms,
                bool_or(NOT kept) AS cut
            FROM newest
        ) h
        JOIN newest n ON n.position = h.held
        WHERE h.cut
    ),
    older_comm AS MATERIALIZED (
        SELECT o.event_id, o.created_at, o.event_type, o.event_data
        FROM (
            SELECT n.*, sum(n.size) OVER (ORDER BY n.created_at DESC, n.event_id DESC ROWS UNBOUNDED PRECEDING) AS weight
            FROM (
                SELECT
                    t.event_id, t.created_at, t.event_type::text, t.event_data::json,
                    coalesce(pg_column_size(t.event_data) - 4, 0) AS size
                FROM thread_events t
                WHERE t.thread_id = a.thread AND substr(t.event_type, 1, 5) = 'comm.'
                    AND (t.created_at, t.event_id) < ((SELECT g.created_at FROM edge g), (SELECT g.event_id FROM edge g))
                ORDER BY t.created_at DESC, t.event_id DESC
                LIMIT (SELECT g.missing FROM edge g)
            ) n
        ) o
        WHERE o.weight - o.size <= a.bytes
    ),
    -- Each step seeks the next name after the last one, so the cost of a name does not depend on how often it was set.
    names (event_type) AS (
        (
            SELECT t.event_type::text FROM thread_events t
            WHERE t.thread_id = a.thread AND substr(t.event_type, 1, 10) = 'state.set.' AND EXISTS (SELECT FROM edge)
            ORDER BY t.event_type
            LIMIT 1
        )
        UNION ALL
        SELECT following.event_type
        FROM names
        CROSS JOIN LATERAL (
            SELECT t.event_type::text FROM thread_events t
            WHERE t.thread_id = a.thread AND substr(t.event_type, 1, 10) = 'state.set.'
                AND t.event_type > names.event_type
            ORDER BY t.event_type
            LIMIT 1
        ) following
    ),
    older_states AS MATERIALIZED (
        SELECT s.event_id, s.created_at, s.event_type, s.event_data
        FROM names
        CROSS JOIN LATERAL (
            SELECT t.event_id, t.created_at, t.event_type::text, t.event_data::json FROM thread_events t
            WHERE t.thread_id = a.thread AND substr(t.event_type, 1, 10) = 'state.set.'
                AND t.event_type BETWEEN names.event_type AND names.event_type
            ORDER BY t.event_type DESC, t.created_at DESC, t.event_id DESC
            LIMIT 1
        ) s
        JOIN edge g ON (s.created_at, s.event_id) < (g.created_at, g.event_id)
    )
    SELECT 1 AS part, n.event_id, n.created_at, n.event_type, n.event_data FROM newest n WHERE n.kept
    UNION ALL
    SELECT 2, o.event_id, o.created_at, o.event_type, o.event_data FROM older_comm o
    UNION ALL
    SELECT 3, s.event_id, s.created_at, s.event_type, s.event_data FROM older_states s
    UNION ALL
    SELECT 4, NULL, NULL, NULL, NULL FROM edge g
    WHERE EXISTS (
        SELECT FROM thread_events t WHERE t.thread_id = a.thread
        ORDER BY t.created_at, t.event_id
        OFFSET g.held + (SELECT count(*) FROM older_comm) + (SELECT count(*) FROM older_states)
        LIMIT 1
    )
) c
WHERE a.thread IS NOT NULL AND a.events IS NOT NULL;
END
$body$;


-- The identifier of an event beside a message, as `id_beside` in jimsapi/threads/event.py makes it.
CREATE OR REPLACE FUNCTION jimsapi_id_beside(message uuid, number bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $body$
    SELECT (substr(message::text, 1, 33) || lpad(to_hex(number), 2, '0') || 'f')::uuid
$body$;


-- Accept messages, one item each. `besides` has the events beside a message as a JSON array of {type, data}, or null. A
-- selector has the number of its item; its kind is 1 ById, 2 Latest, 3 ByExternalId or
-- 4 New. Part 0 of an item is its result: `verdict` and, if the message was accepted, its thread (`id`, `at`, `kind` =
-- contact, `data` = config) and the time of its first event. If too many messages wait, `id` is the thread's oldest open
-- run. The other parts are the context from jimsapi_context. Follows select_thread, was_active, is_full and
-- accepted_status. A run of nobody is queued, whatever its verdict: in a new thread, it continues the message there.
CREATE OR REPLACE FUNCTION jimsapi_accept(
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
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
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
            WHEN r.waiting + r.rank = 1 AND owners[r.item] <> nobody THEN 'running'
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
        n.thread, jimsapi_id_beside(message_ids[n.item], b.position),
        times[n.item] + (b.position - CASE WHEN n.verdict = 'created' THEN 0 ELSE 1 END) * tick,
        b.event ->> 'type', b.event -> 'data'
    FROM unnest(found, verdicts, besides) WITH ORDINALITY n (thread, verdict, beside, item)
    CROSS JOIN LATERAL json_array_elements(n.beside) WITH ORDINALITY b (event, position)
    WHERE n.verdict IN ('created', 'running');
END IF;

IF EXISTS (SELECT FROM jimsapi_sinks) THEN
    INSERT INTO jimsapi_outbox (thread_id, event_id, run_id)
    SELECT n.thread, e.id, run_ids[n.item]
    FROM unnest(found, verdicts) WITH ORDINALITY n (thread, verdict, item)
    CROSS JOIN LATERAL (
        SELECT new_events[n.item] AS id, 0 AS position WHERE n.verdict IN ('created', 'greeted')
        UNION ALL
        SELECT jimsapi_id_beside(message_ids[n.item], b), b
        FROM generate_series(1, json_array_length(besides[n.item])) b
        WHERE n.verdict IN ('created', 'running')
        UNION ALL
        SELECT message_ids[n.item], 256 WHERE n.verdict IN ('created', 'running')
    ) e
    ORDER BY n.item, e.position;
END IF;

INSERT INTO jimsapi_runs (
    run_id, thread_id, seq, owner, status, created_new_thread, message_id, message_type, message_data, beside,
    accepted_at, started_at, continues, caller, background, webhook_url
)
SELECT
    run_ids[n.item], n.thread, seqs[n.item], owners[n.item],
    CASE WHEN n.waits THEN 'queued' ELSE 'running' END,
    n.verdict IN ('created', 'greeted'),
    message_ids[n.item], message_types[n.item],
    CASE WHEN n.waits THEN message_data[n.item] END,
    CASE WHEN n.waits THEN besides[n.item] END,
    wall, CASE WHEN NOT n.waits THEN wall END,
    n.waits AND n.verdict = 'created', callers[n.item], in_background[n.item], webhooks[n.item]
FROM (
    SELECT i.*, i.verdict IN ('greeted', 'queued') OR owners[i.item] = nobody AS waits
    FROM unnest(found, verdicts) WITH ORDINALITY i (thread, verdict, item)
) n
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
    FROM jimsapi_context(
        (
            SELECT array_agg(CASE WHEN n.verdict = 'running' THEN n.thread END ORDER BY n.item)
            FROM unnest(found, verdicts) WITH ORDINALITY n (thread, verdict, item)
        ),
        context_events, context_bytes
    ) c;
END IF;
END
$body$;


-- Accept messages with the same options, one for each contact, for the contact's newest thread (Latest) or else a new one
-- (New), without a conversation start. If no contact has a thread yet, this function creates all threads, and returns one
-- row with the item 0, the config, and the time of every thread's first event. Otherwise it returns the rows of
-- jimsapi_accept, or nothing if `only_new`: then it has accepted no message and locked no thread.
CREATE OR REPLACE FUNCTION jimsapi_accept_alike(
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

    IF EXISTS (SELECT FROM jimsapi_sinks) THEN
        INSERT INTO jimsapi_outbox (thread_id, event_id, run_id)
        SELECT n.thread, e.id, n.run
        FROM unnest(new_threads, new_events, message_ids, run_ids) WITH ORDINALITY n (thread, event, message, run, item)
        CROSS JOIN LATERAL unnest(ARRAY[n.event, n.message]) WITH ORDINALITY e (id, position)
        ORDER BY n.item, e.position;
    END IF;

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
FROM jimsapi_accept(
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


-- Accept messages that have idempotency keys. Returns the rows of jimsapi_accept; or 'used' with the run (`id`) that
-- answers the message; or 'mismatch'. A message that answers the one of an interrupted run is accepted only if the call has
-- no other: then its verdict is 'known', and the caller reads the run. Otherwise its verdict is 'alone'.
CREATE OR REPLACE FUNCTION jimsapi_accept_with_keys(
    keys uuid[], bodies uuid[], keep interval,
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
    wall timestamptz;
    verdicts text[];
    holders uuid[];
BEGIN
PERFORM pg_advisory_xact_lock(l.key) FROM (
    SELECT DISTINCT uuid_hash_extended(k.key, 4) AS key FROM unnest(keys) k (key) ORDER BY key
) l;

-- The rule of KeyHolder in jimsapi/threads/transitions.py. The status of an ended run never changes.
wall := clock_timestamp();
SELECT
    array_agg(
        CASE
            WHEN (SELECT true FROM jimsapi_runs r WHERE r.run_id = i.run_id) THEN 'known'
            WHEN i.rank > 1 THEN 'again'
            WHEN h.run_id IS NULL OR (h.given_up AND NOT h.continues) THEN 'free'
            WHEN h.body <> i.body THEN 'mismatch'
            WHEN NOT (h.given_up OR h.status = 'interrupted') THEN 'used'
            WHEN cardinality(keys) = 1 THEN 'continued'
            ELSE 'alone'
        END
        ORDER BY i.item
    ),
    array_agg(h.run_id ORDER BY i.item)
INTO verdicts, holders
FROM (
    SELECT n.*, row_number() OVER (PARTITION BY n.key ORDER BY n.item) AS rank
    FROM unnest(run_ids, keys, bodies) WITH ORDINALITY n (run_id, key, body, item)
) i
LEFT JOIN LATERAL (
    SELECT r.run_id, k.body, r.status, r.continues, r.status = 'cancelled' AND r.started_at IS NULL AS given_up
    FROM (SELECT k.body, k.run_id, k.used_at FROM jimsapi_idempotency k WHERE k.key = i.key LIMIT 1) k
    CROSS JOIN LATERAL (SELECT r.* FROM jimsapi_runs r WHERE r.run_id = k.run_id LIMIT 1) r
    WHERE k.used_at >= wall - keep AND (
        SELECT true FROM threads t WHERE t.thread_id BETWEEN r.thread_id AND r.thread_id
        ORDER BY t.thread_id
        LIMIT 1
    )
) h ON true;

IF verdicts[1] = 'continued' THEN
    RETURN QUERY
    SELECT 1, 0, c.verdict, c.id, NULL::timestamp, NULL::text, NULL::json, NULL::timestamp
    FROM jimsapi_continue(
        holders[1], run_ids[1], owners[1], actings[1], message_types[1], message_data[1], queue_limits[1], new_times[1],
        callers[1], in_background[1], webhooks[1],
        replace(besides[1]::text, message_ids[1]::text, (
            SELECT r.message_id::text FROM jimsapi_runs r WHERE r.run_id = holders[1]
        ))::json
    ) c;
ELSIF 'free' = ANY (verdicts) THEN
    -- The other items have no selectors in this call, so they match nothing.
    RETURN QUERY
    SELECT
        a.item, a.part, CASE WHEN a.part > 0 OR n.verdict = 'free' THEN a.verdict ELSE n.verdict END,
        CASE WHEN n.verdict = 'free' THEN a.id ELSE n.holder END,
        a.at, a.kind, a.data, a.first_at
    FROM (
        SELECT
            array_agg(s.item ORDER BY s.position) AS items, array_agg(s.kind ORDER BY s.position) AS kinds,
            array_agg(s.thread ORDER BY s.position) AS threads, array_agg(s.external ORDER BY s.position) AS externals,
            array_agg(s.age ORDER BY s.position) AS ages
        FROM unnest(selector_items, selector_kinds, selector_threads, selector_externals, selector_ages)
            WITH ORDINALITY s (item, kind, thread, external, age, position)
        WHERE verdicts[s.item] = 'free'
    ) f
    CROSS JOIN LATERAL jimsapi_accept(
        run_ids, owners, contacts, actings, message_ids, message_types, message_data, greets, queue_limits,
        context_events, context_bytes, new_threads, new_events, new_externals, new_configs, new_times,
        f.items, f.kinds, f.threads, f.externals, f.ages,
        callers, in_background, webhooks, besides
    ) a
    JOIN unnest(verdicts, holders) WITH ORDINALITY n (verdict, holder, item) ON n.item = a.item;
ELSE
    RETURN QUERY
    SELECT n.item::int, 0, n.verdict, n.holder, NULL::timestamp, NULL::text, NULL::json, NULL::timestamp
    FROM unnest(verdicts, holders) WITH ORDINALITY n (verdict, holder, item);
END IF;

INSERT INTO jimsapi_idempotency (key, body, run_id, used_at)
SELECT n.key, n.body, n.run_id, wall
FROM unnest(keys, bodies, run_ids, verdicts) n (key, body, run_id, verdict)
WHERE n.verdict IN ('free', 'continued') AND (SELECT true FROM jimsapi_runs r WHERE r.run_id = n.run_id)
ON CONFLICT (key) DO UPDATE SET body = excluded.body, run_id = excluded.run_id, used_at = excluded.used_at;
END
$body$;


-- Accept a message that answers the one of an interrupted run. `beside` names that message. The verdicts are those of
-- jimsapi_accept, but 'known' if the message was accepted. Follows may_see, is_full, accepted_status and answer_again.
CREATE OR REPLACE FUNCTION jimsapi_continue(
    interrupted uuid, run uuid, by_owner uuid, acting text, type text, content json, queue_limit int, now_here timestamp,
    by_caller uuid, in_background boolean, webhook text, beside json, OUT verdict text, OUT id uuid
)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    holder jimsapi_runs%ROWTYPE;
    wall timestamptz;
    next_seq bigint;
BEGIN
SELECT r.* INTO holder FROM jimsapi_runs r WHERE r.run_id = interrupted;
PERFORM pg_advisory_xact_lock(uuid_hash_extended(holder.thread_id, 3));
wall := clock_timestamp();
SELECT
    CASE
        WHEN t.thread_id IS NULL THEN 'again'  -- deleted meanwhile, and so is the run that had the key
        WHEN t.contact_id IS DISTINCT FROM coalesce(acting, t.contact_id) THEN 'refused'
        WHEN e.event_id IS NULL THEN 'gone'  -- another program deleted it
        WHEN q.waiting > queue_limit THEN 'full'
        WHEN q.waiting > 0 OR by_owner = '00000000-0000-0000-0000-000000000000' THEN 'queued'
        ELSE 'running'
    END,
    CASE WHEN q.waiting > queue_limit THEN q.oldest END,
    coalesce(q.last, 0) + 1
INTO verdict, id, next_seq
FROM (
    SELECT count(*) AS waiting, (array_agg(r.run_id ORDER BY r.seq))[1] AS oldest, max(r.seq) AS last
    FROM jimsapi_runs r
    WHERE r.thread_id = holder.thread_id AND r.finished_at IS NULL
) q
LEFT JOIN LATERAL (
    SELECT t.thread_id, t.contact_id FROM threads t WHERE t.thread_id BETWEEN holder.thread_id AND holder.thread_id
    ORDER BY t.thread_id
    LIMIT 1
) t ON true
LEFT JOIN LATERAL (
    SELECT e.event_id FROM thread_events e
    WHERE e.thread_id = holder.thread_id AND e.event_id BETWEEN holder.message_id AND holder.message_id
    ORDER BY e.event_id
    LIMIT 1
) e ON true;

IF verdict = 'gone' THEN
    SELECT a.verdict, a.id INTO verdict, id
    FROM jimsapi_accept(
        ARRAY[run], ARRAY[by_owner], ARRAY[NULL]::text[], ARRAY[acting], ARRAY[holder.message_id], ARRAY[type],
        ARRAY[content], ARRAY[false], ARRAY[queue_limit], ARRAY[0], ARRAY[0]::bigint[],
        ARRAY[NULL]::uuid[], ARRAY[NULL]::uuid[], ARRAY[NULL]::text[], ARRAY[NULL]::json[], ARRAY[now_here],
        ARRAY[1], ARRAY[1], ARRAY[holder.thread_id], ARRAY[NULL]::text[], ARRAY[NULL]::float8[],
        ARRAY[by_caller], ARRAY[in_background], ARRAY[webhook], ARRAY[beside]
    ) a
    WHERE a.part = 0;
ELSIF verdict IN ('queued', 'running') THEN
    INSERT INTO jimsapi_runs (
        run_id, thread_id, seq, owner, status, created_new_thread, message_id, message_type, message_data, beside,
        accepted_at, started_at, continues, caller, background, webhook_url
    )
    VALUES (
        run, holder.thread_id, next_seq, by_owner, verdict, false, holder.message_id, type,
        CASE WHEN verdict = 'queued' THEN content END, CASE WHEN verdict = 'queued' THEN beside END,
        wall, CASE WHEN verdict = 'running' THEN wall END, true, by_caller, in_background, webhook
    );
END IF;
IF verdict IN ('queued', 'running') THEN
    verdict := 'known';
END IF;
END
$body$;


-- Notify the owners of runs that these may start or have ended, except the owners of the calling process (`mine`).
CREATE OR REPLACE FUNCTION jimsapi_tell(runs uuid[], owners uuid[], mine uuid[]) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM pg_notify('jimsapi_turn', t.owner || ' ' || t.run)
    FROM unnest(runs, owners) t (run, owner)
    WHERE t.run IS NOT NULL AND t.owner <> ALL (mine);
END
$body$;


-- Adds the webhooks of runs that have ended, those that have one. They are due after `hold`, in which the process that
-- ended a run calls its webhook (`WEBHOOK_HOLD` in jimsapi/threads/outbox.py). A dead process calls none.
CREATE OR REPLACE FUNCTION jimsapi_call(ended uuid[], hold interval) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
INSERT INTO jimsapi_webhooks (run_id, caller, due_at)
SELECT r.run_id, coalesce(r.caller, '00000000-0000-0000-0000-000000000000'), clock_timestamp() + hold
FROM jimsapi_runs r
WHERE r.run_id = ANY (ended) AND r.webhook_url IS NOT NULL
ON CONFLICT DO NOTHING;
END
$body$;


-- Adds events of a thread, which were just stored, to the outbox, if a sink is registered. A transaction adds events to the
-- outbox while it has the lock of their thread, and after it has stored them. So their positions are in the order of the
-- thread, and the transaction has an identifier before it takes a position.
CREATE OR REPLACE FUNCTION jimsapi_keep(of_thread uuid, event_ids uuid[], of_run uuid) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
IF EXISTS (SELECT FROM jimsapi_sinks) THEN
    INSERT INTO jimsapi_outbox (thread_id, event_id, run_id)
    SELECT of_thread, e.id, of_run FROM unnest(event_ids) WITH ORDINALITY e (id, position) ORDER BY e.position;
END IF;
END
$body$;


-- End running runs, one item each. An event has the number of its item; events are in order. `event_counts` has the numbers
-- of events that the runs show, which are those that enter the thread if the run completed. `counted`: this call ended the
-- run. `status`: the run's status now. `first_at`: the time of its first event. `taken`: its events whose ids the thread has.
-- Follows finish_counts, stored_events and is_next.
CREATE OR REPLACE FUNCTION jimsapi_finish(
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
    no_caller CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
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

    IF EXISTS (SELECT FROM jimsapi_sinks) THEN
        INSERT INTO jimsapi_outbox (thread_id, event_id, run_id)
        SELECT found[e.item], e.id, run_ids[e.item]
        FROM unnest(event_items, event_ids) WITH ORDINALITY e (item, id, position)
        WHERE counts[e.item] AND times[e.item] IS NOT NULL
        ORDER BY e.position;
    END IF;

    IF 'model.usage' = ANY (event_types) THEN
        PERFORM jimsapi_count_usage(
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

WITH ended AS (
    UPDATE jimsapi_runs r
    SET
        status = u.status, finished_at = wall, error = u.error, failure = u.failure, message_data = NULL, beside = NULL,
        streamed = u.streamed, sent = u.sent, sent_at = CASE WHEN u.sent > 0 THEN u.first_at END
    FROM unnest(run_ids, statuses, errors, counts, event_counts, times, told, failures)
        u (run_id, status, error, counted, sent, first_at, streamed, failure)
    WHERE r.run_id = ANY (run_ids) AND r.run_id = u.run_id AND u.counted
    RETURNING r.run_id, r.caller, r.webhook_url
)
INSERT INTO jimsapi_webhooks (run_id, caller, due_at)
SELECT e.run_id, coalesce(e.caller, no_caller), wall + interval '60 s' FROM ended e WHERE e.webhook_url IS NOT NULL
ON CONFLICT DO NOTHING;

SELECT array_agg(n.run_id ORDER BY i.item), array_agg(n.owner ORDER BY i.item) INTO followers, follower_owners
FROM unnest(found) WITH ORDINALITY i (thread, item)
LEFT JOIN LATERAL (
    SELECT r.run_id, r.owner, r.status FROM jimsapi_runs r WHERE r.thread_id = i.thread AND r.finished_at IS NULL
    ORDER BY r.seq
    LIMIT 1
) n ON n.status = 'queued';

IF cardinality(array_remove(followers, NULL)) > 0 THEN
    PERFORM jimsapi_tell(array_agg(f.run), array_agg(f.owner), owners)
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


-- Start a queued run: append events, then its message and the events beside it, unless the message was in the thread before
-- the run and still is. Part 0 is the result, 5 the added rows, 6 the rows of a message that was in the thread before, the
-- others the context. Follows judge_start.
CREATE OR REPLACE FUNCTION jimsapi_start(
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
        SELECT jimsapi_id_beside(mine.message_id, n) FROM generate_series(1, json_array_length(mine.beside)) n ORDER BY n
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
    PERFORM jimsapi_keep(mine.thread_id, entering, run);
    IF 'model.usage' = ANY (event_types) THEN
        PERFORM jimsapi_count_usage(
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
    FROM jimsapi_context(ARRAY[mine.thread_id], ARRAY[context_events], ARRAY[context_bytes]) c;
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


-- Append events to a thread outside of a run. Usage among them is that of the caller of the run `of_run`. The verdict is 'missing', 'known' (the thread has all of them already), 'taken'
-- (it has some) or 'stored'. Follows may_see.
CREATE OR REPLACE FUNCTION jimsapi_append(
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
    PERFORM jimsapi_keep(of_thread, event_ids, of_run);
    IF 'model.usage' = ANY (event_types) THEN
        PERFORM jimsapi_count_usage(
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


-- End open runs (of one owner, if given): running ones as `when_running`, queued ones as `when_queued`. Follows
-- cancel_counts and is_next; `heartbeat` passes the statuses from orphan_status.
CREATE OR REPLACE FUNCTION jimsapi_end(
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
IF ended IS NOT NULL THEN
    PERFORM jimsapi_call(ended, CASE WHEN of_owner IS NULL THEN interval '60 s' ELSE interval '0' END);
END IF;

SELECT array_agg(n.run_id), array_agg(n.owner) INTO followers, follower_owners
FROM unnest(of_threads) i (thread)
CROSS JOIN LATERAL (
    SELECT r.run_id, r.owner, r.status FROM jimsapi_runs r WHERE r.thread_id = i.thread AND r.finished_at IS NULL
    ORDER BY r.seq
    LIMIT 1
) n
WHERE n.status = 'queued';

IF ended IS NOT NULL THEN
    PERFORM jimsapi_tell(ended || followers, ended_owners || follower_owners, mine);
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


-- An owner is dead if its last heartbeat is older than this time, or if it never sent one and its run was accepted before.
-- If PostgreSQL started within `silence`, owners could not send heartbeats before: then the limit is one hour.
CREATE OR REPLACE FUNCTION jimsapi_dead_before(silence interval) RETURNS timestamptz
LANGUAGE plpgsql AS $body$
BEGIN
RETURN clock_timestamp() - CASE
    WHEN pg_postmaster_start_time() < clock_timestamp() - silence THEN silence ELSE interval '1 hour'
END;
END
$body$;


-- Whether a run of a dead owner is left for jimsapi_adopt although it has started. Follows may_restart.
CREATE OR REPLACE FUNCTION jimsapi_may_restart(
    in_background boolean, status text, restarts int, max_restarts int, of_thread uuid, message uuid
) RETURNS boolean
LANGUAGE plpgsql AS $body$
BEGIN
RETURN in_background AND status = 'running' AND restarts < max_restarts AND coalesce((
    SELECT true FROM thread_events e
    WHERE e.thread_id = of_thread AND e.event_id BETWEEN message AND message
    ORDER BY e.event_id
    LIMIT 1
), false);
END
$body$;


-- End the open runs of dead owners as interrupted, at most `at_once`. The message of a run that has not started is added to
-- its thread. Background runs that may start again are left for jimsapi_adopt, and so are queued ones unless
-- `background_too`. Follows is_adoptable, interrupted_error and enters_late.
CREATE OR REPLACE FUNCTION jimsapi_recover(
    me uuid, silence interval, at_once int, background_too boolean, max_restarts int
) RETURNS int
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    tick CONSTANT interval := interval '1 microsecond';
    before CONSTANT timestamptz := jimsapi_dead_before(silence);
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
        AND NOT jimsapi_may_restart(r.background, r.status, r.restarts, max_restarts, r.thread_id, r.message_id)
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

WITH entering AS MATERIALIZED (
    SELECT
        r.thread_id, r.run_id, b.*,
        row_number() OVER (PARTITION BY r.thread_id ORDER BY r.seq, b.position) AS rank
    FROM jimsapi_runs r
    CROSS JOIN LATERAL (
        SELECT jimsapi_id_beside(r.message_id, b.position) AS event_id, b.event ->> 'type' AS type,
            b.event -> 'data' AS data, b.position
        FROM json_array_elements(r.beside) WITH ORDINALITY b (event, position)
        UNION ALL
        SELECT r.message_id, r.message_type::text, r.message_data, 256
    ) b
    WHERE r.run_id = ANY (of_runs) AND r.status = 'queued'
),
stored AS (
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    SELECT
        w.thread_id, w.event_id,
        greatest(clock_timestamp()::timestamp, (
            SELECT e.created_at FROM thread_events e WHERE e.thread_id = w.thread_id
            ORDER BY e.created_at DESC, e.event_id DESC
            LIMIT 1
        ) + tick) + (w.rank - 1) * tick,
        w.type, w.data
    FROM entering w
    ORDER BY w.thread_id, w.rank
    ON CONFLICT DO NOTHING
    RETURNING thread_id, event_id
)
INSERT INTO jimsapi_outbox (thread_id, event_id, run_id)
SELECT s.thread_id, s.event_id, w.run_id
FROM stored s JOIN entering w ON w.thread_id = s.thread_id AND w.event_id = s.event_id
WHERE EXISTS (SELECT FROM jimsapi_sinks)
ORDER BY w.thread_id, w.rank;

WITH ending AS (
    UPDATE jimsapi_runs r
    SET status = 'interrupted', finished_at = clock_timestamp(), message_data = NULL, beside = NULL,
        error = CASE WHEN r.restarts > 0 THEN
            'The run was interrupted: it was started ' || r.restarts + 1 || ' times, and its server died each time'
        END
    WHERE r.run_id = ANY (of_runs) AND r.finished_at IS NULL
    RETURNING r.run_id, r.owner
)
SELECT array_agg(e.run_id), array_agg(e.owner) INTO ended, ended_owners FROM ending e;
IF ended IS NOT NULL THEN
    PERFORM jimsapi_call(ended, interval '0');
END IF;

-- A process that was only suspended is notified that its runs have ended. So is the calling process, since tasks in it may
-- wait for these runs.
PERFORM jimsapi_tell(ended || array_agg(n.run_id), ended_owners || array_agg(n.owner), '{}')
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


-- Take over the background runs of dead owners that are queued or may start again, at most `at_once`. Those that have
-- started are queued again. Returns the runs that this call took over, and those of an earlier call with the same
-- `of_adoption` whose result was lost. Follows is_adoptable.
CREATE OR REPLACE FUNCTION jimsapi_adopt(
    me uuid, of_adoption uuid, silence interval, at_once int, max_restarts int
)
RETURNS TABLE (
    run_id uuid, thread_id uuid, contact_id text, message_id uuid, message_type text, message_data json,
    caller uuid, webhook_url text, beside json, restarts int
)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    before CONSTANT timestamptz := jimsapi_dead_before(silence);
    of_runs uuid[];
    of_owners uuid[];
    of_threads uuid[];
BEGIN
SELECT array_agg(d.run_id), array_agg(d.owner), array_agg(DISTINCT d.thread_id) INTO of_runs, of_owners, of_threads
FROM (
    SELECT r.run_id, r.owner, r.thread_id FROM jimsapi_runs r
    WHERE r.finished_at IS NULL AND r.owner <> me AND r.background
        AND (
            r.status = 'queued'
            OR jimsapi_may_restart(r.background, r.status, r.restarts, max_restarts, r.thread_id, r.message_id)
        )
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
    WITH restarted AS (
        UPDATE jimsapi_runs r
        SET owner = me, adoption = of_adoption, status = 'queued', started_at = NULL, continues = true,
            restarts = r.restarts + 1,
            message_data = (
                SELECT e.event_data::json FROM thread_events e
                WHERE e.thread_id = r.thread_id AND e.event_id BETWEEN r.message_id AND r.message_id
                ORDER BY e.event_id
                LIMIT 1
            ),
            beside = (
                SELECT json_agg(json_build_object('type', b.event_type, 'data', b.event_data) ORDER BY b.event_id)
                FROM (
                    SELECT e.event_id, e.event_type, e.event_data FROM thread_events e
                    WHERE e.thread_id = r.thread_id
                        AND e.event_id BETWEEN jimsapi_id_beside(r.message_id, 1) AND jimsapi_id_beside(r.message_id, 255)
                    ORDER BY e.event_id
                ) b
            )
        FROM unnest(of_runs, of_owners) d (run_id, owner)
        WHERE r.run_id = ANY (of_runs) AND r.run_id = d.run_id AND r.owner = d.owner
            AND r.finished_at IS NULL
            AND jimsapi_may_restart(r.background, r.status, r.restarts, max_restarts, r.thread_id, r.message_id)
        RETURNING r.run_id, d.owner
    )
    -- A process that was only suspended is notified that it has lost the run.
    SELECT array_agg(s.run_id), array_agg(s.owner) INTO of_runs, of_owners FROM restarted s;
    PERFORM jimsapi_tell(of_runs, of_owners, '{}');
END IF;

RETURN QUERY
SELECT
    r.run_id, r.thread_id,
    (
        SELECT t.contact_id::text FROM threads t WHERE t.thread_id BETWEEN r.thread_id AND r.thread_id
        ORDER BY t.thread_id
        LIMIT 1
    ),
    r.message_id, r.message_type::text, r.message_data, r.caller, r.webhook_url, r.beside, r.restarts
FROM jimsapi_runs r
WHERE r.finished_at IS NULL AND r.owner = me AND r.adoption = of_adoption AND r.status = 'queued'
ORDER BY r.thread_id, r.seq;
END
$body$;


-- Delete a thread, or the oldest `at_once` threads of a contact, with events and runs. Returns the runs that were open, and
-- the number of threads: 0 if there is no such thread, or if it is not of the contact `acting`. The caller repeats the
-- deletion of a contact until the number is 0: only the call that finds no thread has waited for the forks of the contact.
CREATE OR REPLACE FUNCTION jimsapi_delete(
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
PERFORM jimsapi_forget_letters(of_threads);
PERFORM jimsapi_forget_subscriptions(of_threads);
PERFORM jimsapi_forget_search(of_threads);
DELETE FROM jimsapi_thread_usage f WHERE f.thread_id = ANY (of_threads);
DELETE FROM threads t WHERE t.thread_id = ANY (of_threads);
IF of_thread IS NULL THEN
    -- In the order of the key, as runs that end lock them.
    PERFORM u.day FROM jimsapi_contact_usage u WHERE u.contact_id = of_contact
    ORDER BY u.day, u.model, u.caller
    FOR UPDATE;
    DELETE FROM jimsapi_contact_usage u WHERE u.contact_id = of_contact;
END IF;
PERFORM jimsapi_tell(closed, closed_owners, mine);
END
$body$;


-- Makes a thread that begins as another one does (`ThreadStore.fork`). `before`: the fork ends before `of_event`.
-- `external`: it has the external identifier, too. `now_here` is the local time of the server. Verdicts: `made`, `known`,
-- `missing` (the thread), `no event`.
CREATE OR REPLACE FUNCTION jimsapi_fork(
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
IF EXISTS (SELECT FROM jimsapi_sinks) THEN
    INSERT INTO jimsapi_outbox (thread_id, event_id)
    SELECT of_thread, e.event_id FROM thread_events e WHERE e.thread_id = of_thread ORDER BY e.created_at, e.event_id;
END IF;
INSERT INTO jimsapi_threads (thread_id, metadata, parent_id, parent_event_id)
SELECT
    of_thread, coalesce((SELECT f.metadata FROM jimsapi_threads f WHERE f.thread_id = of_parent), '{}'),
    of_parent, last_event;
verdict := 'made';
END
$body$;


-- Changes what was said of a thread, as `facts.changed` does. `archive` and `new_metadata` are null if they stay.
CREATE OR REPLACE FUNCTION jimsapi_change_thread(
    of_thread uuid, acting text, sets_title boolean, new_title text, archive boolean, new_metadata json
)
RETURNS TABLE (title text, archived_at timestamptz, metadata json, parent_id uuid, parent_event_id uuid)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
BEGIN
PERFORM pg_advisory_xact_lock(uuid_hash_extended(of_thread, 3));
IF (
    SELECT t.contact_id IS DISTINCT FROM coalesce(acting, t.contact_id) FROM threads t
    WHERE t.thread_id BETWEEN of_thread AND of_thread
    ORDER BY t.thread_id
    LIMIT 1
) IS DISTINCT FROM false THEN
    RETURN;
END IF;
RETURN QUERY
INSERT INTO jimsapi_threads AS f (thread_id, title, archived_at, metadata)
VALUES (
    of_thread, new_title, CASE WHEN archive THEN clock_timestamp() END, coalesce(new_metadata, '{}')
)
ON CONFLICT (thread_id) DO UPDATE SET
    title = CASE WHEN sets_title THEN new_title ELSE f.title END,
    archived_at = CASE
        WHEN archive IS NULL THEN f.archived_at
        WHEN archive THEN coalesce(f.archived_at, excluded.archived_at)
    END,
    metadata = coalesce(new_metadata, f.metadata)
RETURNING f.title, f.archived_at, f.metadata, f.parent_id, f.parent_event_id;
END
$body$;


-- Sets or removes (`new_rating` is null) the rating of an event (`ThreadStore.rate`).
CREATE OR REPLACE FUNCTION jimsapi_rate(
    of_thread uuid, acting text, of_event uuid, new_rating int, new_comment text, OUT verdict text
)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
BEGIN
PERFORM pg_advisory_xact_lock(uuid_hash_extended(of_thread, 3));
IF (
    SELECT t.contact_id IS DISTINCT FROM coalesce(acting, t.contact_id) FROM threads t
    WHERE t.thread_id BETWEEN of_thread AND of_thread
    ORDER BY t.thread_id
    LIMIT 1
) IS DISTINCT FROM false THEN
    verdict := 'missing';
ELSIF (
    SELECT true FROM thread_events e WHERE e.thread_id = of_thread AND e.event_id BETWEEN of_event AND of_event
    ORDER BY e.event_id
    LIMIT 1
) IS NULL THEN
    verdict := 'no event';
ELSIF new_rating IS NULL THEN
    DELETE FROM jimsapi_feedback f WHERE f.thread_id = of_thread AND f.event_id = of_event;
    verdict := 'removed';
ELSE
    INSERT INTO jimsapi_feedback AS f (thread_id, event_id, rating, comment, given_at)
    VALUES (of_thread, of_event, new_rating, new_comment, clock_timestamp())
    ON CONFLICT (thread_id, event_id) DO UPDATE SET
        rating = excluded.rating, comment = excluded.comment, given_at = excluded.given_at;
    verdict := 'stored';
END IF;
END
$body$;


-- Deletes those of the next `at_once` threads after the identifier `after` whose newest event is older than `older_than`,
-- and that have no open run. `last` is the last identifier, null if there are no more threads.
CREATE OR REPLACE FUNCTION jimsapi_expire(
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
    PERFORM jimsapi_forget_letters(of_threads);
    PERFORM jimsapi_forget_subscriptions(of_threads);
    PERFORM jimsapi_forget_search(of_threads);
    DELETE FROM jimsapi_thread_usage f WHERE f.thread_id = ANY (of_threads);
    DELETE FROM threads t WHERE t.thread_id = ANY (of_threads);
END IF;
END
$body$;


-- Deletes the dead letters of threads, in the order in which all statements lock dead letters.
CREATE OR REPLACE FUNCTION jimsapi_forget_letters(of_threads uuid[]) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
PERFORM d.number FROM jimsapi_dead_letters d WHERE d.thread_id = ANY (of_threads) ORDER BY d.number FOR UPDATE;
IF FOUND THEN
    DELETE FROM jimsapi_dead_letters d WHERE d.thread_id = ANY (of_threads);
END IF;
END
$body$;


-- Deletes the subscriptions of threads, in the order in which all statements lock subscriptions.
CREATE OR REPLACE FUNCTION jimsapi_forget_subscriptions(of_threads uuid[]) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
PERFORM s.subscription_id FROM jimsapi_subscriptions s WHERE s.thread_id = ANY (of_threads)
ORDER BY s.subscription_id
FOR UPDATE;
IF FOUND THEN
    DELETE FROM jimsapi_subscriptions s WHERE s.thread_id = ANY (of_threads);
END IF;
END
$body$;


-- Removes threads from the index of the search.
CREATE OR REPLACE FUNCTION jimsapi_forget_search(of_threads uuid[]) RETURNS void
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    numbers bigint[];
BEGIN
numbers := ARRAY(SELECT i.number FROM jimsapi_search_threads i WHERE i.thread_id = ANY (of_threads));
IF cardinality(numbers) > 0 THEN
    DELETE FROM jimsapi_search s WHERE s.number = ANY (numbers);
    DELETE FROM jimsapi_search_threads i WHERE i.thread_id = ANY (of_threads);
END IF;
END
$body$;


-- Adds messages to the index of the search, and the titles of `of_threads`. `title_words`, `lasts`: for each thread the
-- words of its title, and the time of its last message that is added now. Threads that do not exist are left out.
CREATE OR REPLACE FUNCTION jimsapi_index(
    of_threads uuid[], titles text[], title_words text[], lasts timestamp[],
    event_threads uuid[], event_ids uuid[], times timestamp[], message_words text[]
)
RETURNS void
LANGUAGE plpgsql SET enable_hashjoin = off SET enable_sort = on AS $body$
#variable_conflict use_column
BEGIN
PERFORM pg_advisory_xact_lock(l.key) FROM (
    SELECT DISTINCT uuid_hash_extended(f.thread, 3) AS key FROM unnest(of_threads) f (thread) ORDER BY key
) l;

INSERT INTO jimsapi_search_threads (thread_id, until)
SELECT t.thread_id, '-infinity' FROM unnest(of_threads) WITH ORDINALITY f (thread, item)
JOIN threads t ON t.thread_id = f.thread
ORDER BY f.item
ON CONFLICT (thread_id) DO NOTHING;

INSERT INTO jimsapi_search (number, at, event_id, words)
SELECT i.number, a.at, a.id, a.words::tsvector
FROM unnest(event_threads, event_ids, times, message_words) a (thread, id, at, words)
JOIN jimsapi_search_threads i ON i.thread_id = a.thread
ON CONFLICT (number, at, event_id) DO NOTHING;

DELETE FROM jimsapi_search s USING unnest(of_threads, titles) f (thread, title), jimsapi_search_threads i
WHERE i.thread_id = f.thread AND i.title IS DISTINCT FROM f.title
    AND s.number = i.number AND s.at = '-infinity' AND s.event_id = '00000000-0000-0000-0000-000000000000';
INSERT INTO jimsapi_search (number, at, event_id, words)
SELECT i.number, '-infinity', '00000000-0000-0000-0000-000000000000', f.words::tsvector
FROM unnest(of_threads, titles, title_words) f (thread, title, words)
JOIN jimsapi_search_threads i ON i.thread_id = f.thread
WHERE f.title IS NOT NULL
ON CONFLICT (number, at, event_id) DO NOTHING;

-- Another program may store an event up to a minute after its time.
UPDATE jimsapi_search_threads i
SET title = f.title, until = greatest(i.until, least(f.last, clock_timestamp()::timestamp - interval '1 minute'))
FROM unnest(of_threads, titles, lasts) f (thread, title, last)
WHERE i.thread_id = f.thread;
END
$body$;


-- Finds the threads with a match, as their numbers, and the time of the newest match of each. The planner must use the
-- index of words.
CREATE OR REPLACE FUNCTION jimsapi_find(query text, before bigint, at_most int)
RETURNS TABLE (number bigint, at timestamp)
LANGUAGE plpgsql
SET enable_bitmapscan = on SET enable_indexscan = off SET enable_indexonlyscan = off SET enable_sort = on
SET work_mem = '32MB' AS $body$
#variable_conflict use_column
BEGIN
RETURN QUERY
SELECT s.number, max(s.at) FROM jimsapi_search s
WHERE s.words @@ query::tsquery AND s.number + 0 < before
GROUP BY s.number
ORDER BY s.number DESC
LIMIT at_most;
END
$body$;
