-- An index of what was released has nothing to say about what arrives: one page less to write for each object.
DROP INDEX instance_released;
CREATE INDEX instance_released ON instance (proven, released_at) WHERE state = 'released';
-- The oldest program version that can use these tables. A later migration changes it when it does more than add tables,
-- indices, and columns with a default.
CREATE TABLE readable_since (version INTEGER NOT NULL);
INSERT INTO readable_since VALUES (9);
PRAGMA user_version = 9;
