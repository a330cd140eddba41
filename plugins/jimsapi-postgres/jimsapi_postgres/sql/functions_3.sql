-- The functions that servers of versions 2 and 3 call while they run together with newer ones.

-- These servers do not send the kind of a failure, so the row has none, and readers derive the kind from `error`.
CREATE OR REPLACE FUNCTION jimsapi_finish_2(
    run_ids uuid[], owners uuid[], statuses text[], errors text[],
    event_items int[], event_ids uuid[], event_types text[], event_data json[], event_counts int[], told int[]
)
RETURNS TABLE (item int, counted boolean, status text, next_run uuid, first_at timestamp, taken uuid[])
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
BEGIN
RETURN QUERY
SELECT f.item, f.counted, f.status, f.next_run, f.first_at, f.taken
FROM jimsapi_finish_4(
    run_ids, owners, statuses, errors, event_items, event_ids, event_types, event_data, event_counts, told, NULL
) f;
END
$body$;
