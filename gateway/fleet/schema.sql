-- What the fleet monitor remembers over a restart. The broker's retained messages are the truth about the present;
-- this holds what they do not: history, who acknowledged what, and boxes that the broker forgot. Times are seconds since
-- 1970 by the monitor's clock.

CREATE TABLE box (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    heard_at REAL NOT NULL,
    presence TEXT NOT NULL,            -- online, stale, offline
    since REAL NOT NULL,
    since_exact INTEGER NOT NULL,
    goodbye_reason TEXT,               -- NULL: it has not said goodbye
    session TEXT NOT NULL,             -- of the goodbye, or of the newest connection
    versions TEXT NOT NULL,            -- that it has run, newest last, separated by blanks
    version_at REAL NOT NULL,
    update_status TEXT NOT NULL,       -- how the last installation went, empty: none was heard of
    update_at REAL NOT NULL,
    health BLOB NOT NULL,              -- the newest health message, as it came; empty: none
    UNIQUE (tenant, name)
);

CREATE TABLE sample (
    box INTEGER NOT NULL,
    at REAL NOT NULL,
    status TEXT NOT NULL,
    oldest_age_s REAL,
    objects REAL,
    disk_pct REAL,
    clock_offset_ms REAL,
    temp_c REAL
);
CREATE INDEX sample_of_box ON sample (box, at);

CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    box INTEGER NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    words TEXT NOT NULL
);
CREATE INDEX event_of_box ON event (box, id);

CREATE TABLE alarm (
    id INTEGER PRIMARY KEY,
    box INTEGER NOT NULL,
    code TEXT NOT NULL,
    since TEXT NOT NULL,               -- in the box's words; with the code it names the occurrence
    severity TEXT NOT NULL,
    components TEXT NOT NULL,
    raised_at REAL NOT NULL,
    cleared_at REAL,                   -- NULL: it holds
    acknowledged_by TEXT NOT NULL,     -- empty: nobody has seen it
    acknowledged_at REAL NOT NULL,
    UNIQUE (box, code, since)
);
CREATE INDEX alarm_of_box ON alarm (box, raised_at);

PRAGMA user_version = 1;
