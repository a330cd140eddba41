-- The tables of this package. Their names begin with jimsapi_, and migrations only add to them.

-- The indexes are partial, and only one fits each query, so that a query for one thread's open runs reads neither its many
-- ended runs nor the runs of other threads. A query for the runs of an owner reads all open runs. `seq` orders the open
-- runs of one thread. `message_data` is stored only until the message enters the thread.
CREATE TABLE IF NOT EXISTS jimsapi_runs (
    run_id uuid NOT NULL PRIMARY KEY,
    thread_id uuid NOT NULL,
    seq bigint NOT NULL,
    owner uuid NOT NULL,
    status varchar(16) NOT NULL,
    created_new_thread boolean NOT NULL,
    message_id uuid NOT NULL,
    message_type varchar(255) NOT NULL,
    message_data json,
    accepted_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    error text
);
CREATE UNIQUE INDEX IF NOT EXISTS jimsapi_runs_running ON jimsapi_runs (thread_id) WHERE status = 'running';
CREATE INDEX IF NOT EXISTS jimsapi_runs_open ON jimsapi_runs (thread_id, seq) WHERE finished_at IS NULL;
CREATE INDEX IF NOT EXISTS jimsapi_runs_finished ON jimsapi_runs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS jimsapi_runs_thread ON jimsapi_runs (thread_id) WHERE finished_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS jimsapi_owners (
    owner uuid NOT NULL PRIMARY KEY,
    beat_at timestamptz NOT NULL
);
