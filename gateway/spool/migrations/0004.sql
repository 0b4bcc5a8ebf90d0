-- What keeping needs: when and on what evidence an instance was released, how far the scrub is, and how many deliveries
-- each destination was to get.
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

INSERT INTO counter
SELECT 'required:' || destination, sum(n) FROM (
    SELECT destination, count(*) AS n FROM delivery GROUP BY destination
    UNION ALL SELECT substr(name, 9), value FROM counter WHERE name LIKE 'retired:%'
) GROUP BY destination;
PRAGMA user_version = 4;
