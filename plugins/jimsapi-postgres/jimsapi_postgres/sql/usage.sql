-- The functions that add up usage, as jimsapi/threads/usage.py does. Others call them after they have stored events.

-- A figure of usage: an integer from 0 on, else 0.
CREATE OR REPLACE FUNCTION jimsapi_count_of(figure json) RETURNS bigint IMMUTABLE
LANGUAGE sql AS $body$
SELECT CASE WHEN json_typeof(figure) = 'number' AND figure::text ~ '^[0-9]+$'
    THEN least(figure::text::numeric, 1000000000000)::bigint ELSE 0 END
$body$;


-- What events `model.usage` say, one row each, as usage_by_model in jimsapi/threads/usage.py reads it.
CREATE OR REPLACE FUNCTION jimsapi_usage_of(bodies json[])
RETURNS TABLE (item bigint, model text, input bigint, output bigint, cached bigint, cost float8) IMMUTABLE
LANGUAGE sql AS $body$
SELECT
    b.item,
    CASE WHEN json_typeof(b.data -> 'model') = 'string' THEN left(b.data ->> 'model', 128) ELSE '' END,
    jimsapi_count_of(b.data -> 'input_tokens'),
    jimsapi_count_of(b.data -> 'output_tokens'),
    jimsapi_count_of(b.data -> 'cached_tokens'),
    CASE WHEN json_typeof(b.data -> 'cost') = 'number'
        THEN greatest(least((b.data ->> 'cost')::numeric, 1000000000), 0)::float8 ELSE 0 END
FROM (
    SELECT i.item, CASE WHEN json_typeof(i.data) = 'object' THEN i.data ELSE '{}' END AS data
    FROM unnest(bodies) WITH ORDINALITY i (data, item)
) b
$body$;


-- Add events `model.usage`, one item each, to the totals of their threads (not null), contacts and callers. If `contacts` is
-- null, they are those of the threads. Threads must be locked. Rows are locked in the order of their keys.
CREATE OR REPLACE FUNCTION jimsapi_count_usage(of_threads uuid[], contacts text[], callers uuid[], bodies json[])
RETURNS void
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    today CONSTANT date := clock_timestamp()::timestamp::date;
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
IF contacts IS NULL THEN
    contacts := ARRAY(
        SELECT (
            SELECT t.contact_id FROM threads t WHERE t.thread_id BETWEEN f.thread AND f.thread
            ORDER BY t.thread_id
            LIMIT 1
        )
        FROM unnest(of_threads) WITH ORDINALITY f (thread, item)
        ORDER BY f.item
    );
END IF;
INSERT INTO jimsapi_thread_usage AS t (thread_id, model, calls, input, output, cached, cost)
SELECT of_threads[u.item], u.model, count(*), sum(u.input), sum(u.output), sum(u.cached), sum(u.cost)
FROM jimsapi_usage_of(bodies) u
WHERE of_threads[u.item] IS NOT NULL
GROUP BY 1, 2
ORDER BY of_threads[u.item], u.model COLLATE "C"
ON CONFLICT (thread_id, model) DO UPDATE SET
    calls = t.calls + excluded.calls, input = t.input + excluded.input, output = t.output + excluded.output,
    cached = t.cached + excluded.cached, cost = t.cost + excluded.cost;

-- An index entry has less than 2704 bytes. Threads of other JIMS programs may have longer contacts.
INSERT INTO jimsapi_contact_usage AS t (contact_id, day, model, caller, calls, input, output, cached, cost)
SELECT contacts[u.item], today, u.model, coalesce(callers[u.item], nobody), count(*), sum(u.input), sum(u.output), sum(u.cached), sum(u.cost)
FROM jimsapi_usage_of(bodies) u
WHERE octet_length(contacts[u.item]) <= 2000
GROUP BY 1, 3, 4
ORDER BY contacts[u.item] COLLATE "C", u.model COLLATE "C", coalesce(callers[u.item], nobody)
ON CONFLICT (contact_id, day, model, caller) DO UPDATE SET
    calls = t.calls + excluded.calls, input = t.input + excluded.input, output = t.output + excluded.output,
    cached = t.cached + excluded.cached, cost = t.cost + excluded.cost;

INSERT INTO jimsapi_caller_usage AS t (caller, day, model, calls, input, output, cached, cost)
SELECT coalesce(callers[u.item], nobody), today, u.model, count(*), sum(u.input), sum(u.output), sum(u.cached), sum(u.cost)
FROM jimsapi_usage_of(bodies) u
GROUP BY 1, 3
ORDER BY coalesce(callers[u.item], nobody), u.model COLLATE "C"
ON CONFLICT (caller, day, model) DO UPDATE SET
    calls = t.calls + excluded.calls, input = t.input + excluded.input, output = t.output + excluded.output,
    cached = t.cached + excluded.cached, cost = t.cost + excluded.cost;
END
$body$;


-- Add what a run outside of threads has used. It is noted among the idempotency keys, so that it counts once.
CREATE OR REPLACE FUNCTION jimsapi_add_usage(run uuid, contact text, by_caller uuid, bodies json[]) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
INSERT INTO jimsapi_idempotency (key, body, run_id, used_at) VALUES (run, run, run, clock_timestamp())
ON CONFLICT DO NOTHING;
IF FOUND THEN
    PERFORM jimsapi_count_usage(
        array_fill(NULL::uuid, ARRAY[cardinality(bodies)]), array_fill(contact, ARRAY[cardinality(bodies)]),
        array_fill(by_caller, ARRAY[cardinality(bodies)]), bodies
    );
END IF;
END
$body$;
