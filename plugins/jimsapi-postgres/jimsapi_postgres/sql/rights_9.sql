-- Roles that may write runs get the same rights on the table that came later, so that servers with such a role go on
-- while the owner of the tables upgrades the database.

DO $body$
DECLARE
    of_role text;
BEGIN
FOR of_role IN
    SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
    FROM pg_class c, aclexplode(c.relacl) a
    WHERE c.oid = 'jimsapi_runs'::regclass AND a.privilege_type = 'INSERT' AND a.grantee <> c.relowner
LOOP
    EXECUTE format(
        'GRANT SELECT, INSERT, UPDATE, DELETE ON jimsapi_subscriptions TO %s',
        of_role
    );
END LOOP;
END
$body$;
