-- A database that version 1 of the schema made: a thread of Ann's with an answered run, one that failed, one at work and
-- one that waits, and a thread of Bob's whose run was cancelled.
BEGIN TRANSACTION;
CREATE TABLE jimsapi_owners (owner CHAR(32) NOT NULL PRIMARY KEY, beat_at DATETIME NOT NULL) WITHOUT ROWID;
CREATE TABLE jimsapi_runs (
        run_id CHAR(32) NOT NULL PRIMARY KEY,
        thread_id CHAR(32) NOT NULL,
        seq INTEGER NOT NULL,
        owner CHAR(32) NOT NULL,
        status VARCHAR(16) NOT NULL,
        created_new_thread INTEGER NOT NULL,
        message TEXT,
        accepted_at DATETIME NOT NULL,
        started_at DATETIME,
        finished_at DATETIME,
        error TEXT
    ) WITHOUT ROWID
    ;
INSERT INTO "jimsapi_runs" VALUES('01a213b077017cef850df0dfb2ee45cf','01a213b077017cef850df0f1cee3450f',1,'0193a0000000700080000000000000df','completed',1,NULL,'2026-11-25 17:11:01.633282','2026-11-25 17:11:01.633282','2026-11-25 17:11:01.634241',NULL);
INSERT INTO "jimsapi_runs" VALUES('01a213b077027718950b103ee1a2750f','01a213b077017cef850df0f1cee3450f',1,'0193a0000000700080000000000000df','failed',0,NULL,'2026-11-25 17:11:01.634956','2026-11-25 17:11:01.634956','2026-11-25 17:11:01.635627','ValueError: no');
INSERT INTO "jimsapi_runs" VALUES('01a213b07704786b82db0bf654c7d6ff','01a213b07704786b82db0bfeae9c67ef',1,'0193a0000000700080000000000000df','cancelled',1,NULL,'2026-11-25 17:11:01.636125','2026-11-25 17:11:01.636125','2026-11-25 17:11:01.636731',NULL);
INSERT INTO "jimsapi_runs" VALUES('01a213b0770577a0982ec52dcae350df','01a213b077017cef850df0f1cee3450f',1,'0193a0000000700080000000000000df','running',0,NULL,'2026-11-25 17:11:01.637148','2026-11-25 17:11:01.637148',NULL,NULL);
INSERT INTO "jimsapi_runs" VALUES('01a213b07709729e9d6cd61c63e8f70f','01a213b077017cef850df0f1cee3450f',2,'0193a0000000700080000000000000df','queued',0,'["01a213b07709729e9d6cd61f742150af","comm.user_message",{"role":"user","content":"five"}]','2026-11-25 17:11:01.641167',NULL,NULL,NULL);
CREATE TABLE jimsapi_schema (version INTEGER NOT NULL);
INSERT INTO "jimsapi_schema" VALUES(1);
CREATE TABLE thread_events (
        thread_id CHAR(32) NOT NULL,
        event_id CHAR(32) NOT NULL,
        created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
        event_type VARCHAR(255) NOT NULL,
        event_domain VARCHAR(255),
        event_name VARCHAR(255),
        event_data TEXT,
        PRIMARY KEY (thread_id, event_id)
    );
INSERT INTO "thread_events" VALUES('01a213b077017cef850df0f1cee3450f','01a213b077017cef850df1015cac432f','2026-11-25 17:11:01.633282','jims.lifecycle.thread_created',NULL,NULL,'{}');
INSERT INTO "thread_events" VALUES('01a213b077017cef850df0f1cee3450f','01a213b077017cef850df0e9b71bdd7f','2026-11-25 17:11:01.633283','comm.user_message',NULL,NULL,'{"role":"user","content":"one"}');
INSERT INTO "thread_events" VALUES('01a213b077017cef850df0f1cee3450f','01a213b077027718950b103c9863004f','2026-11-25 17:11:01.634241','comm.assistant_message',NULL,NULL,'{"role":"assistant","content":"to one"}');
INSERT INTO "thread_events" VALUES('01a213b077017cef850df0f1cee3450f','01a213b077027718950b104d7344fe7f','2026-11-25 17:11:01.634956','comm.user_message',NULL,NULL,'{"role":"user","content":"two"}');
INSERT INTO "thread_events" VALUES('01a213b07704786b82db0bfeae9c67ef','01a213b07704786b82db0c077991a11f','2026-11-25 17:11:01.636125','jims.lifecycle.thread_created',NULL,NULL,'{}');
INSERT INTO "thread_events" VALUES('01a213b07704786b82db0bfeae9c67ef','01a213b07704786b82db0bfb38122b5f','2026-11-25 17:11:01.636126','comm.user_message',NULL,NULL,'{"role":"user","content":"three"}');
INSERT INTO "thread_events" VALUES('01a213b077017cef850df0f1cee3450f','01a213b0770577a0982ec530b3b3daef','2026-11-25 17:11:01.637148','comm.user_message',NULL,NULL,'{"role":"user","content":"four"}');
CREATE TABLE threads (
        thread_id CHAR(32) NOT NULL PRIMARY KEY,
        contact_id VARCHAR,
        external_id VARCHAR,
        created_at DATETIME NOT NULL,
        thread_config TEXT NOT NULL
    );
INSERT INTO "threads" VALUES('01a213b077017cef850df0f1cee3450f','ann',NULL,'2026-11-25 17:11:01.633339','{"interface":"api"}');
INSERT INTO "threads" VALUES('01a213b07704786b82db0bfeae9c67ef','bob',NULL,'2026-11-25 17:11:01.636139','{"interface":"api"}');
CREATE INDEX jimsapi_threads_contact ON threads (contact_id, created_at, thread_id);
CREATE INDEX jimsapi_threads_external ON threads (external_id, created_at) WHERE external_id IS NOT NULL;
CREATE INDEX jimsapi_events_order ON thread_events (thread_id, created_at, event_id);
CREATE INDEX jimsapi_events_comm ON thread_events (thread_id, created_at, event_id)
    WHERE substr(event_type, 1, 5) = 'comm.'
    ;
CREATE INDEX jimsapi_events_state ON thread_events (thread_id, event_type, created_at, event_id)
    WHERE substr(event_type, 1, 10) = 'state.set.'
    ;
CREATE UNIQUE INDEX jimsapi_runs_running ON jimsapi_runs (thread_id) WHERE status = 'running';
CREATE INDEX jimsapi_runs_open ON jimsapi_runs (thread_id, seq) WHERE finished_at IS NULL;
CREATE INDEX jimsapi_runs_thread ON jimsapi_runs (thread_id);
CREATE INDEX jimsapi_runs_finished ON jimsapi_runs (finished_at) WHERE finished_at IS NOT NULL;
COMMIT;
