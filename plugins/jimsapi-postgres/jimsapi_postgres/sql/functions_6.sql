-- The functions that servers of versions 5 and 6 call while they run together with newer ones.

-- These servers do not say whose usage they append.
CREATE OR REPLACE FUNCTION jimsapi_append_5(
    of_thread uuid, acting text, event_ids uuid[], event_types text[], event_data json[],
    OUT verdict text, OUT first_at timestamp, OUT taken uuid[]
)
LANGUAGE plpgsql AS $body$
BEGIN
SELECT a.verdict, a.first_at, a.taken INTO verdict, first_at, taken
FROM jimsapi_append_7(of_thread, acting, event_ids, event_types, event_data, NULL) a;
END
$body$;
