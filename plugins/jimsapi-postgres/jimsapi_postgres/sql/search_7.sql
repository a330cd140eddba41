-- The index of the search. It is brought up to date when somebody searches, and not when events are stored. `number` is
-- greater for newer threads of a contact. Events of the thread before `until` are all in the index.

CREATE TABLE IF NOT EXISTS jimsapi_search_threads (
    thread_id uuid NOT NULL PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    until timestamp NOT NULL,
    title text
);

-- A row for each message. The title of a thread has the time -infinity, and an event_id of zeros. `words` also has a word
-- that stands for the contact.
CREATE TABLE IF NOT EXISTS jimsapi_search (
    number bigint NOT NULL,
    at timestamp NOT NULL,
    event_id uuid NOT NULL,
    words tsvector NOT NULL,
    PRIMARY KEY (number, at, event_id)
);

-- Every search follows the writes of its contact at once, so a list of pending rows would make every search slower.
CREATE INDEX IF NOT EXISTS jimsapi_search_words ON jimsapi_search USING gin (words) WITH (fastupdate = off);

CREATE INDEX IF NOT EXISTS jimsapi_threads_parent ON jimsapi_threads (parent_id) WHERE parent_id IS NOT NULL;
