-- Totals of what was used of models. They are sorted as bytes, so that all transactions lock rows in the same order.

CREATE TABLE IF NOT EXISTS jimsapi_thread_usage (
    thread_id uuid NOT NULL,
    model text COLLATE "C" NOT NULL,
    calls bigint NOT NULL,
    input bigint NOT NULL,
    output bigint NOT NULL,
    cached bigint NOT NULL,
    cost float8 NOT NULL,
    PRIMARY KEY (thread_id, model)
);

CREATE TABLE IF NOT EXISTS jimsapi_contact_usage (
    contact_id text COLLATE "C" NOT NULL,
    day date NOT NULL,
    model text COLLATE "C" NOT NULL,
    caller uuid NOT NULL,
    calls bigint NOT NULL,
    input bigint NOT NULL,
    output bigint NOT NULL,
    cached bigint NOT NULL,
    cost float8 NOT NULL,
    PRIMARY KEY (contact_id, day, model, caller)
);

CREATE TABLE IF NOT EXISTS jimsapi_caller_usage (
    caller uuid NOT NULL,
    day date NOT NULL,
    model text COLLATE "C" NOT NULL,
    calls bigint NOT NULL,
    input bigint NOT NULL,
    output bigint NOT NULL,
    cached bigint NOT NULL,
    cost float8 NOT NULL,
    PRIMARY KEY (caller, day, model)
);
