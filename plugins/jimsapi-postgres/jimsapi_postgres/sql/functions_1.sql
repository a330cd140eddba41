-- The functions that servers of version 1 call while they run together with newer ones.

CREATE OR REPLACE FUNCTION jimsapi_accept_1(
    run_ids uuid[], owners uuid[], contacts text[], actings text[],
    message_ids uuid[], message_types text[], message_data json[],
    greets boolean[], queue_limits int[], context_events int[], context_bytes bigint[],
    new_threads uuid[], new_events uuid[], new_externals text[], new_configs json[], new_times timestamp[],
    selector_items int[], selector_kinds int[], selector_threads uuid[], selector_externals text[], selector_ages float8[]
)
RETURNS TABLE (item int, part int, verdict text, id uuid, at timestamp, kind text, data json, first_at timestamp)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
BEGIN
RETURN QUERY
SELECT a.item, a.part, a.verdict, a.id, a.at, a.kind, a.data, a.first_at
FROM jimsapi_accept_2(
    run_ids, owners, contacts, actings, message_ids, message_types, message_data, greets, queue_limits,
    context_events, context_bytes, new_threads, new_events, new_externals, new_configs, new_times,
    selector_items, selector_kinds, selector_threads, selector_externals, selector_ages,
    NULL, array_fill(false, ARRAY[cardinality(run_ids)]), NULL
) a;
END
$body$;


CREATE OR REPLACE FUNCTION jimsapi_finish_1(
    run_ids uuid[], owners uuid[], statuses text[], errors text[],
    event_items int[], event_ids uuid[], event_types text[], event_data json[]
)
RETURNS TABLE (item int, counted boolean, status text, next_run uuid, first_at timestamp, taken uuid[])
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
BEGIN
RETURN QUERY
SELECT f.item, f.counted, f.status, f.next_run, f.first_at, f.taken
FROM jimsapi_finish_2(
    run_ids, owners, statuses, errors, event_items, event_ids, event_types, event_data,
    ARRAY(
        SELECT (SELECT count(*)::int FROM unnest(event_items) e (item) WHERE e.item = i.item)
        FROM unnest(run_ids) WITH ORDINALITY i (run_id, item)
        ORDER BY i.item
    ),
    NULL
) f;
END
$body$;


-- These servers do not take over runs: they interrupt queued background runs like all others.
CREATE OR REPLACE FUNCTION jimsapi_recover_1(me uuid, silence interval, at_once int) RETURNS int
LANGUAGE plpgsql AS $body$
BEGIN
RETURN jimsapi_recover_2(me, silence, at_once, true);
END
$body$;


CREATE OR REPLACE FUNCTION jimsapi_delete_1(of_thread uuid, of_contact text, acting text, mine uuid[]) RETURNS uuid[]
LANGUAGE plpgsql AS $body$
BEGIN
RETURN (
    SELECT CASE WHEN of_thread IS NULL OR d.thread_count > 0 THEN d.closed END
    FROM jimsapi_delete_2(of_thread, of_contact, acting, mine, 2147483647) d
);
END
$body$;
