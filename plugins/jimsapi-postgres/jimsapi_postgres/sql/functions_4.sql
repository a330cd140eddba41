-- The functions that servers of versions 2 to 4 call while they run together with newer ones. Their messages have no events
-- beside them.

CREATE OR REPLACE FUNCTION jimsapi_accept_2(
    run_ids uuid[], owners uuid[], contacts text[], actings text[],
    message_ids uuid[], message_types text[], message_data json[],
    greets boolean[], queue_limits int[], context_events int[], context_bytes bigint[],
    new_threads uuid[], new_events uuid[], new_externals text[], new_configs json[], new_times timestamp[],
    selector_items int[], selector_kinds int[], selector_threads uuid[], selector_externals text[], selector_ages float8[],
    callers uuid[], in_background boolean[], webhooks text[]
)
RETURNS TABLE (item int, part int, verdict text, id uuid, at timestamp, kind text, data json, first_at timestamp)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
BEGIN
RETURN QUERY
SELECT a.item, a.part, a.verdict, a.id, a.at, a.kind, a.data, a.first_at
FROM jimsapi_accept_5(
    run_ids, owners, contacts, actings, message_ids, message_types, message_data, greets, queue_limits,
    context_events, context_bytes, new_threads, new_events, new_externals, new_configs, new_times,
    selector_items, selector_kinds, selector_threads, selector_externals, selector_ages,
    callers, in_background, webhooks, NULL
) a;
END
$body$;


CREATE OR REPLACE FUNCTION jimsapi_accept_with_keys_2(
    keys uuid[], bodies uuid[], keep interval,
    run_ids uuid[], owners uuid[], contacts text[], actings text[],
    message_ids uuid[], message_types text[], message_data json[],
    greets boolean[], queue_limits int[], context_events int[], context_bytes bigint[],
    new_threads uuid[], new_events uuid[], new_externals text[], new_configs json[], new_times timestamp[],
    selector_items int[], selector_kinds int[], selector_threads uuid[], selector_externals text[], selector_ages float8[],
    callers uuid[], in_background boolean[], webhooks text[]
)
RETURNS TABLE (item int, part int, verdict text, id uuid, at timestamp, kind text, data json, first_at timestamp)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
BEGIN
RETURN QUERY
SELECT a.item, a.part, a.verdict, a.id, a.at, a.kind, a.data, a.first_at
FROM jimsapi_accept_with_keys_5(
    keys, bodies, keep,
    run_ids, owners, contacts, actings, message_ids, message_types, message_data, greets, queue_limits,
    context_events, context_bytes, new_threads, new_events, new_externals, new_configs, new_times,
    selector_items, selector_kinds, selector_threads, selector_externals, selector_ages,
    callers, in_background, webhooks, NULL
) a;
END
$body$;


CREATE OR REPLACE FUNCTION jimsapi_adopt_2(me uuid, of_adoption uuid, silence interval, at_once int)
RETURNS TABLE (
    run_id uuid, thread_id uuid, contact_id text, message_id uuid, message_type text, message_data json,
    caller uuid, webhook_url text
)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
BEGIN
RETURN QUERY
SELECT a.run_id, a.thread_id, a.contact_id, a.message_id, a.message_type, a.message_data, a.caller, a.webhook_url
FROM jimsapi_adopt_5(me, of_adoption, silence, at_once) a;
END
$body$;
