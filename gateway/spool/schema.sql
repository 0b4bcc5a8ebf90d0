-- The ledger: what we hold, where it must go, and everything that happened to it.
-- One writing connection, WAL, synchronous=FULL. Order is `seq`, never a clock.

CREATE TABLE instance (
    seq                 INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of acceptance
    object_id           TEXT NOT NULL UNIQUE,               -- our own id; names the file
    shelf               TEXT NOT NULL,                      -- folder under objects/
    sop_class_uid       TEXT NOT NULL,
    sop_instance_uid    TEXT NOT NULL,                      -- as received
    transfer_syntax_uid TEXT NOT NULL,
    sha256              TEXT NOT NULL,                      -- of the data set bytes as received
    length              INTEGER NOT NULL,                   -- bytes of the data set
    study_uid           TEXT NOT NULL,
    series_uid          TEXT NOT NULL,
    modality            TEXT NOT NULL,
    parsable            INTEGER NOT NULL,
    door                TEXT NOT NULL,
    address             TEXT NOT NULL,
    calling_ae_title    TEXT NOT NULL,
    called_ae_title     TEXT NOT NULL,
    listener_port       INTEGER NOT NULL,
    received_at         REAL NOT NULL,                      -- for people only
    state               TEXT NOT NULL,                      -- model/lifecycle.py, Custody
    conflict            INTEGER NOT NULL DEFAULT 0,         -- another instance has this UID with other bytes
    dimse_priority      INTEGER NOT NULL DEFAULT 0,         -- (0000,0700) as the sender said it
    released_at         REAL NOT NULL DEFAULT 0,            -- when the last destination confirmed
    proven              INTEGER NOT NULL DEFAULT 0          -- every destination gave more than its success status
);
CREATE INDEX instance_identity ON instance (sop_instance_uid, sha256);
CREATE INDEX instance_state ON instance (state, seq);
CREATE INDEX instance_released ON instance (proven, released_at) WHERE state = 'released';
CREATE INDEX instance_study ON instance (study_uid, received_at);

CREATE TABLE delivery (
    seq             INTEGER NOT NULL REFERENCES instance (seq) ON DELETE CASCADE,
    destination     TEXT NOT NULL,
    state           TEXT NOT NULL,                          -- model/lifecycle.py, Delivery
    priority        INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at REAL NOT NULL DEFAULT 0,                -- wall clock, of sending or of asking; see rows.due for jumps
    code            INTEGER NOT NULL DEFAULT 0,             -- of the last verdict
    reason          TEXT NOT NULL DEFAULT '',               -- of the last verdict, in words
    recipe          TEXT NOT NULL DEFAULT '',               -- tables to apply before it leaves, names with blanks between
    quiet_s         REAL NOT NULL DEFAULT 0,                -- not before the study has been quiet for so long
    instead         TEXT NOT NULL DEFAULT '',               -- failover group in order of preference, names with blanks
    asked           INTEGER NOT NULL DEFAULT 0,             -- how often evidence was asked for since it was sent
    missed          INTEGER NOT NULL DEFAULT 0,             -- how often the peer took it and did not have it later
    sent_as         TEXT NOT NULL DEFAULT '',               -- SOP Instance UID that a recipe gave it; empty: its own
    PRIMARY KEY (seq, destination)
) WITHOUT ROWID;
CREATE INDEX delivery_due ON delivery (destination, state, priority, seq);

-- Sums of `delivery`, kept by triggers: who asks for the backlog every few seconds must not count a million rows.
CREATE TABLE delivery_sum (
    destination TEXT NOT NULL,
    state       TEXT NOT NULL,                              -- model/lifecycle.py, Delivery
    deliveries  INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,                           -- of their instances' data sets
    PRIMARY KEY (destination, state)
) WITHOUT ROWID;
CREATE TRIGGER delivery_entered AFTER INSERT ON delivery BEGIN
    INSERT OR IGNORE INTO delivery_sum VALUES (NEW.destination, NEW.state, 0, 0);
    UPDATE delivery_sum
        SET deliveries = deliveries + 1, bytes = bytes + ifnull((SELECT length FROM instance WHERE seq = NEW.seq), 0)
        WHERE destination = NEW.destination AND state = NEW.state;
END;
CREATE TRIGGER delivery_changed AFTER UPDATE OF destination, state ON delivery BEGIN
    INSERT OR IGNORE INTO delivery_sum VALUES (NEW.destination, NEW.state, 0, 0);
    UPDATE delivery_sum
        SET deliveries = deliveries - 1, bytes = bytes - ifnull((SELECT length FROM instance WHERE seq = OLD.seq), 0)
        WHERE destination = OLD.destination AND state = OLD.state;
    UPDATE delivery_sum
        SET deliveries = deliveries + 1, bytes = bytes + ifnull((SELECT length FROM instance WHERE seq = NEW.seq), 0)
        WHERE destination = NEW.destination AND state = NEW.state;
END;
CREATE TRIGGER delivery_left BEFORE DELETE ON delivery BEGIN
    UPDATE delivery_sum
        SET deliveries = deliveries - 1, bytes = bytes - ifnull((SELECT length FROM instance WHERE seq = OLD.seq), 0)
        WHERE destination = OLD.destination AND state = OLD.state;
END;

-- What an archive was asked to commit: the transaction outlives the association, and the process.
CREATE TABLE commitment (
    transaction_uid TEXT NOT NULL,
    seq             INTEGER NOT NULL REFERENCES instance (seq) ON DELETE CASCADE,
    destination     TEXT NOT NULL,
    PRIMARY KEY (transaction_uid, seq)
) WITHOUT ROWID;
CREATE INDEX commitment_delivery ON commitment (seq, destination);

-- What scanners ask us to commit to (PS3.4 Annex J), until the report was taken.
CREATE TABLE promise (
    id               INTEGER PRIMARY KEY,
    transaction_uid  TEXT NOT NULL,
    address          TEXT NOT NULL,
    calling_ae_title TEXT NOT NULL,
    called_ae_title  TEXT NOT NULL,                         -- the report comes from whom the scanner called
    asked_at         REAL NOT NULL,
    deadline         REAL NOT NULL,                         -- what is open then has failed
    decided_at       REAL,                                  -- NULL: an item is open
    reported         INTEGER NOT NULL DEFAULT 0,
    attempts         INTEGER NOT NULL DEFAULT 0,            -- reports that were not taken
    next_attempt_at  REAL NOT NULL DEFAULT 0,
    reason           TEXT NOT NULL DEFAULT '',              -- why the last report was not taken
    UNIQUE (transaction_uid, calling_ae_title, address)
);
CREATE INDEX promise_open ON promise (reported, id);
CREATE TABLE promise_item (
    promise          INTEGER NOT NULL REFERENCES promise (id) ON DELETE CASCADE,
    number           INTEGER NOT NULL,
    sop_class_uid    TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    outcome          INTEGER NOT NULL,                      -- -1 open, 0 committed, else Failure Reason (PS3.3 C.14.1.1)
    PRIMARY KEY (promise, number)
) WITHOUT ROWID;

-- The first event of an instance, that it was committed, is its own row: nothing is written here for it.
CREATE TABLE history (
    id          INTEGER PRIMARY KEY,
    seq         INTEGER NOT NULL REFERENCES instance (seq) ON DELETE CASCADE,
    destination TEXT,                                       -- NULL: the instance itself
    event       TEXT NOT NULL,
    state       TEXT NOT NULL,                              -- the state after
    at          REAL NOT NULL,
    detail      TEXT NOT NULL DEFAULT ''
);
CREATE INDEX history_instance ON history (seq, id);

CREATE TABLE counter (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE scrub (                                        -- one row: how far reading everything again has come
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    began_at    REAL NOT NULL,
    finished_at REAL,
    position    INTEGER                                     -- the last seq that was read; NULL between two passes
);

CREATE TABLE study_claim (                                  -- what a scanner said it sent, the latest only
    id               INTEGER PRIMARY KEY,
    study_uid        TEXT NOT NULL,                         -- empty where the scanner did not say and it is not known
    sop_instance_uid TEXT NOT NULL,
    source           TEXT NOT NULL,                         -- who said so, and how
    said_at          REAL NOT NULL,
    UNIQUE (sop_instance_uid, source)
);
CREATE INDEX study_claim_study ON study_claim (study_uid, sop_instance_uid);

CREATE TABLE retired (                                      -- what was here, the latest only
    id               INTEGER PRIMARY KEY,
    study_uid        TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    destinations     TEXT NOT NULL,                         -- all had confirmed it; names with blanks
    received_at      REAL NOT NULL
);
CREATE INDEX retired_study ON retired (study_uid, received_at);
CREATE INDEX retired_instance ON retired (sop_instance_uid);

CREATE TABLE readable_since (version INTEGER NOT NULL);     -- the oldest program version that can use these tables
INSERT INTO readable_since VALUES (9);

PRAGMA user_version = 9;
