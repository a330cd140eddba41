-- The receivers of runs that plugins notify. Those that are settled have no time at which they are due.

CREATE TABLE IF NOT EXISTS jimsapi_subscriptions (
    run_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    subscription_id uuid NOT NULL,
    thread_id uuid NOT NULL,
    caller uuid,
    data text NOT NULL,
    due_at timestamptz,
    call_at timestamptz,
    notice text,
    calls int NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, kind, name)
);
CREATE UNIQUE INDEX IF NOT EXISTS jimsapi_subscriptions_id ON jimsapi_subscriptions (subscription_id);
CREATE INDEX IF NOT EXISTS jimsapi_subscriptions_due ON jimsapi_subscriptions (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS jimsapi_subscriptions_thread ON jimsapi_subscriptions (thread_id);
