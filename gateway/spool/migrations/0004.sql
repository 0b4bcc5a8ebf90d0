ALTER TABLE delivery ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN missed INTEGER NOT NULL DEFAULT 0;
CREATE TABLE commitment (
    transaction_uid TEXT NOT NULL,
    seq             INTEGER NOT NULL REFERENCES instance (seq) ON DELETE CASCADE,
    destination     TEXT NOT NULL,
    PRIMARY KEY (transaction_uid, seq)
) WITHOUT ROWID;
CREATE INDEX commitment_delivery ON commitment (seq, destination);
PRAGMA user_version = 4;
