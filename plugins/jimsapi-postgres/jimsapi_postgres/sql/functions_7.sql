-- The functions that servers of versions 2 to 7 call while they run together with newer ones. These servers start no run
-- again.

CREATE OR REPLACE FUNCTION jimsapi_recover_2(me uuid, silence interval, at_once int, background_too boolean) RETURNS int
LANGUAGE plpgsql AS $body$
BEGIN
RETURN jimsapi_recover_8(me, silence, at_once, background_too, 0);
END
$body$;


CREATE OR REPLACE FUNCTION jimsapi_adopt_5(me uuid, of_adoption uuid, silence interval, at_once int)
RETURNS TABLE (
    run_id uuid, thread_id uuid, contact_id text, message_id uuid, message_type text, message_data json,
    caller uuid, webhook_url text, beside json
)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
BEGIN
RETURN QUERY
SELECT
    a.run_id, a.thread_id, a.contact_id, a.message_id, a.message_type, a.message_data, a.caller, a.webhook_url, a.beside
FROM jimsapi_adopt_8(me, of_adoption, silence, at_once, 0) a;
END
$body$;
