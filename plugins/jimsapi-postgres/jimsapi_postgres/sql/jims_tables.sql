-- The tables of JIMS, as jims-core creates them, if they do not exist.

CREATE TABLE IF NOT EXISTS threads (
    thread_id UUID NOT NULL,
    contact_id VARCHAR,
    external_id VARCHAR,
    created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    thread_config JSONB NOT NULL,
    PRIMARY KEY (thread_id)
);

CREATE TABLE IF NOT EXISTS thread_events (
    thread_id UUID NOT NULL,
    event_id UUID NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL,
    event_type VARCHAR(255) NOT NULL,
    event_domain VARCHAR(255),
    event_name VARCHAR(255),
    event_data JSON,
    PRIMARY KEY (thread_id, event_id)
);
