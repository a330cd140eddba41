-- The title, archive time, metadata and parent of a thread (`ThreadFacts`), and the ratings of its events. Threads without
-- any of these have no row.

CREATE TABLE IF NOT EXISTS jimsapi_threads (
    thread_id uuid NOT NULL PRIMARY KEY,
    title text,
    archived_at timestamptz,
    metadata json NOT NULL DEFAULT '{}',
    parent_id uuid,
    parent_event_id uuid
);

CREATE TABLE IF NOT EXISTS jimsapi_feedback (
    thread_id uuid NOT NULL,
    event_id uuid NOT NULL,
    rating smallint NOT NULL,
    comment text,
    given_at timestamptz NOT NULL,
    PRIMARY KEY (thread_id, event_id)
);
