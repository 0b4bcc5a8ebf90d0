-- How urgent the sender called it.
ALTER TABLE instance ADD COLUMN dimse_priority INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 3;
