-- What scanners ask us to commit to.
CREATE TABLE promise (
    id               INTEGER PRIMARY KEY,
    transaction_uid  TEXT NOT NULL,
    address          TEXT NOT NULL,
    calling_ae_title TEXT NOT NULL,
    called_ae_title  TEXT NOT NULL,
    asked_at         REAL NOT NULL,
    deadline         REAL NOT NULL,
    decided_at       REAL,
    reported         INTEGER NOT NULL DEFAULT 0,
    attempts         INTEGER NOT NULL DEFAULT 0,
    next_attempt_at  REAL NOT NULL DEFAULT 0,
    reason           TEXT NOT NULL DEFAULT '',
    UNIQUE (transaction_uid, calling_ae_title, address)
);
CREATE INDEX promise_open ON promise (reported, id);
CREATE TABLE promise_item (
    promise          INTEGER NOT NULL REFERENCES promise (id) ON DELETE CASCADE,
    number           INTEGER NOT NULL,
    sop_class_uid    TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    outcome          INTEGER NOT NULL,
    PRIMARY KEY (promise, number)
) WITHOUT ROWID;
PRAGMA user_version = 5;
