-- What was said of a thread (`ThreadFacts`). Threads of which nothing was said have no row.

CREATE TABLE IF NOT EXISTS jimsapi_threads (
    thread_id uuid NOT NULL PRIMARY KEY,
    title text,
    archived_at timestamptz,
    metadata json NOT NULL DEFAULT '{}',
    parent_id uuid,
    parent_event_id uuid
);
