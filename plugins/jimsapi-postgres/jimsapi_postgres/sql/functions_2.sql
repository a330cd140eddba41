-- The functions that servers of version 2 call while they run together with newer ones.

CREATE OR REPLACE FUNCTION jimsapi_accept_alike_2(
    run_ids uuid[], contacts text[], message_ids uuid[], message_types text[], message_data json[],
    new_threads uuid[], new_events uuid[], callers uuid[],
    by_owner uuid, new_config json, now_here timestamp, age float8, queue_limit int, of_events int, of_bytes bigint
)
RETURNS TABLE (item int, part int, verdict text, id uuid, at timestamp, kind text, data json, first_at timestamp)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
BEGIN
RETURN QUERY
SELECT a.item, a.part, a.verdict, a.id, a.at, a.kind, a.data, a.first_at
FROM jimsapi_accept_alike_3(
    run_ids, contacts, message_ids, message_types, message_data, new_threads, new_events, callers,
    by_owner, new_config, now_here, age, queue_limit, of_events, of_bytes, false
) a;
END
$body$;
