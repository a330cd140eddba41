-- The indexes of JIMS, created only if this package creates the tables.

CREATE INDEX IF NOT EXISTS ix_threads_contact_id ON threads (contact_id);
CREATE INDEX IF NOT EXISTS ix_threads_external_id ON threads (external_id);
