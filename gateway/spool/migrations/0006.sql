-- What keeping needs: when and on what evidence an instance was released, how far the scrub is, what scanners said they
-- sent, what was here before it was retired, and how many deliveries each destination was to get.
ALTER TABLE instance ADD COLUMN released_at REAL NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN proven INTEGER NOT NULL DEFAULT 0;
CREATE INDEX instance_released ON instance (state, proven, released_at);
UPDATE instance SET released_at = ifnull(
    (SELECT max(at) FROM history WHERE history.seq = instance.seq AND event = 'confirmed_by_all'), received_at
) WHERE state = 'released';

CREATE TABLE scrub (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    began_at    REAL NOT NULL,
    finished_at REAL,
    position    INTEGER
);

CREATE TABLE study_claim (
    id               INTEGER PRIMARY KEY,
    study_uid        TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    source           TEXT NOT NULL,
    said_at          REAL NOT NULL,
    UNIQUE (sop_instance_uid, source)
);
CREATE INDEX study_claim_study ON study_claim (study_uid, sop_instance_uid);

CREATE TABLE retired (
    id               INTEGER PRIMARY KEY,
    study_uid        TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    destinations     TEXT NOT NULL,
    received_at      REAL NOT NULL
);
CREATE INDEX retired_study ON retired (study_uid, received_at);
CREATE INDEX retired_instance ON retired (sop_instance_uid);

INSERT INTO counter
SELECT 'required:' || destination, sum(n) FROM (
    SELECT destination, count(*) AS n FROM delivery GROUP BY destination
    UNION ALL SELECT substr(name, 9), value FROM counter WHERE name LIKE 'retired:%'
) GROUP BY destination;
PRAGMA user_version = 6;
