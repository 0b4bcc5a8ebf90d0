-- An index of what was released has nothing to say about what arrives: one page less to write for each object.
DROP INDEX instance_released;
CREATE INDEX instance_released ON instance (proven, released_at) WHERE state = 'released';
PRAGMA user_version = 9;
