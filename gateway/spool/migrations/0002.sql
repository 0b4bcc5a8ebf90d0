-- What routing decided besides the destination itself.
ALTER TABLE delivery ADD COLUMN recipe TEXT NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN quiet_s REAL NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN instead TEXT NOT NULL DEFAULT '';
DROP INDEX instance_study;
CREATE INDEX instance_study ON instance (study_uid, received_at);
PRAGMA user_version = 2;
