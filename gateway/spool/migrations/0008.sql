-- Evidence is asked for by the UID that the archive knows.
ALTER TABLE delivery ADD COLUMN sent_as TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 8;
