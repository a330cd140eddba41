-- A database as the migrations of Vedana leave it at their revision a4ffc429e5ab, with rows: the tables of JIMS, which came
-- in three steps, and a few of its own, which are none of our business.
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE thread_events (
    thread_id UUID NOT NULL,
    event_id UUID NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT CURRENT_TIMESTAMP NOT NULL,
    event_type VARCHAR(255) NOT NULL,
    event_domain VARCHAR(255),
    event_name VARCHAR(255),
    event_data JSON,
    PRIMARY KEY (thread_id, event_id)
);
CREATE TABLE threads (
    thread_id UUID NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    thread_config JSONB NOT NULL,
    PRIMARY KEY (thread_id)
);
CREATE TABLE nodes (
    node_id VARCHAR NOT NULL,
    node_type VARCHAR NOT NULL,
    attributes JSONB,
    PRIMARY KEY (node_id, node_type)
);
CREATE TABLE nodes_meta (
    node_id VARCHAR NOT NULL,
    node_type VARCHAR NOT NULL,
    hash INTEGER,
    create_ts DOUBLE PRECISION,
    update_ts DOUBLE PRECISION,
    process_ts DOUBLE PRECISION,
    delete_ts DOUBLE PRECISION,
    PRIMARY KEY (node_id, node_type)
);
INSERT INTO alembic_version VALUES ('a4ffc429e5ab');
INSERT INTO nodes VALUES ('document:1', 'document', '{"title": "Über uns"}'), ('document:2', 'document', NULL);
INSERT INTO nodes_meta VALUES ('document:1', 'document', -17, 1747999999.25, 1747999999.25, 1747999999.5, NULL);

-- Before threads had a contact.
INSERT INTO threads VALUES ('06800000-0000-7000-8000-000000000001', '2025-05-23 12:52:46.165619', '{"interface": "tui"}');

ALTER TABLE threads ADD COLUMN contact_id VARCHAR;
CREATE INDEX ix_threads_contact_id ON threads (contact_id);

-- Before they had an external id.
INSERT INTO threads VALUES
    ('06800000-0000-7000-8000-000000000002', '2025-11-02 01:30:00', '{"interface": "telegram", "n": 1.0}', 'ann'),
    ('06800000-0000-7000-8000-000000000003', '2025-11-02 01:10:00.000001', '{}', 'Ännchen 😀');

ALTER TABLE threads ADD COLUMN external_id VARCHAR;
CREATE INDEX ix_threads_external_id ON threads (external_id);

INSERT INTO threads VALUES
    ('06800000-0000-7000-8000-000000000004', '2026-05-04 20:40:36.858884', '{"lang": "ж"}', 'ann', 'tg:1001'),
    ('06800000-0000-7000-8000-000000000005', '2026-05-04 20:40:36.858884', '{"deep": [{"a": null}]}', 'eve', 'tg:1002'),
    ('06800000-0000-7000-8000-000000000006', '2026-05-04 20:40:37', '{}', '', NULL);

-- One conversation of everything that a program may have stored. Domain and name are filled here and there.
INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_domain, event_name, event_data)
SELECT
    '06800000-0000-7000-8000-000000000002'::uuid, ('06800000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid,
    timestamp '2025-11-02 01:30:00' + n * interval '1 second', kind, domain, name, data::json
FROM (VALUES
    (1, 'jims.lifecycle.thread_created', NULL, NULL, '{}'),
    (2, 'comm.user_message', 'comm', 'user_message', '{"role": "user", "content": "first"}'),
    (3, 'rag.query_processed', 'rag', NULL, NULL),
    (4, 'comm.assistant_message', NULL, NULL, '{"role": "assistant", "content": "\u0434\u0430 \ud83d\ude00"}'),
    (5, 'comm.user_message', NULL, NULL, '{ "content" :  "second — ё 😀",' || chr(10) || chr(9) || '"role":"user" }'),
    (6, 'rag.documents', NULL, NULL, '{"b": [' || repeat('{"z" : 1.0,  "a":"ж", "z":1e2},' || chr(10), 4000) || 'null]}'),
    (7, 'state.set.mood', 'state', 'set', '{"name":  "mood", "value":1.50}'),
    (8, 'rag.odd', NULL, NULL, '[1, 2,  18446744073709551616]'),
    (9, 'rag.odd', NULL, NULL, '"text with \u0000 in it"'),
    (10, 'rag.odd', NULL, NULL, 'null'),
    (11, 'context.note', NULL, NULL, '{"role": "system", "content": ""}'),
    (12, 'comm.assistant_message_with_buttons', NULL, NULL, '{"role":"assistant","content":"?","buttons":[{"text":"yes"}]}'),
    (13, 'comm.user_message.' || repeat('x', 237), NULL, '', '{"role": "user", "content": "third"}'),
    (14, '', '', NULL, '{}')
) AS events (n, kind, domain, name, data);

-- One whose events are of one moment, but for the first.
INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
SELECT
    '06800000-0000-7000-8000-000000000003', ('06800000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid,
    timestamp '2025-11-02 01:10:00', 'comm.user_message', json_build_object('role', 'user', 'content', n::text)
FROM generate_series(1, 9) n;

-- Long ones, and one without events.
INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
SELECT
    thread_id, gen_random_uuid(), timestamp '2026-05-04 20:41:00' + n * interval '1 minute',
    (ARRAY['comm.user_message', 'rag.step', 'comm.assistant_message'])[1 + n % 3],
    CASE WHEN n % 3 <> 1 THEN json_build_object('role', (ARRAY['user', '', 'assistant'])[1 + n % 3], 'content', n::text) END
FROM threads, generate_series(0, 299) n
WHERE thread_id IN ('06800000-0000-7000-8000-000000000001', '06800000-0000-7000-8000-000000000004');
