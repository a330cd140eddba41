-- What SQLAlchemy makes of the models of jims-core 0.6.2 on PostgreSQL.
CREATE TABLE thread_events (
    thread_id UUID NOT NULL,
    event_id UUID NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL,
    event_type VARCHAR(255) NOT NULL,
    event_domain VARCHAR(255),
    event_name VARCHAR(255),
    event_data JSON,
    PRIMARY KEY (thread_id, event_id)
);
CREATE TABLE threads (
    thread_id UUID NOT NULL,
    contact_id VARCHAR,
    external_id VARCHAR,
    created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    thread_config JSONB NOT NULL,
    PRIMARY KEY (thread_id)
);
CREATE INDEX ix_threads_contact_id ON threads (contact_id);
CREATE INDEX ix_threads_external_id ON threads (external_id);
