-- Sums of `delivery`, kept by triggers: who asks for the backlog every few seconds must not count a million rows.
CREATE TABLE delivery_sum (
    destination TEXT NOT NULL,
    state       TEXT NOT NULL,
    deliveries  INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    PRIMARY KEY (destination, state)
) WITHOUT ROWID;
CREATE TRIGGER delivery_entered AFTER INSERT ON delivery BEGIN
    INSERT OR IGNORE INTO delivery_sum VALUES (NEW.destination, NEW.state, 0, 0);
    UPDATE delivery_sum
        SET deliveries = deliveries + 1, bytes = bytes + ifnull((SELECT length FROM instance WHERE seq = NEW.seq), 0)
        WHERE destination = NEW.destination AND state = NEW.state;
END;
CREATE TRIGGER delivery_changed AFTER UPDATE OF destination, state ON delivery BEGIN
    INSERT OR IGNORE INTO delivery_sum VALUES (NEW.destination, NEW.state, 0, 0);
    UPDATE delivery_sum
        SET deliveries = deliveries - 1, bytes = bytes - ifnull((SELECT length FROM instance WHERE seq = OLD.seq), 0)
        WHERE destination = OLD.destination AND state = OLD.state;
    UPDATE delivery_sum
        SET deliveries = deliveries + 1, bytes = bytes + ifnull((SELECT length FROM instance WHERE seq = NEW.seq), 0)
        WHERE destination = NEW.destination AND state = NEW.state;
END;
CREATE TRIGGER delivery_left BEFORE DELETE ON delivery BEGIN
    UPDATE delivery_sum
        SET deliveries = deliveries - 1, bytes = bytes - ifnull((SELECT length FROM instance WHERE seq = OLD.seq), 0)
        WHERE destination = OLD.destination AND state = OLD.state;
END;
INSERT INTO delivery_sum
    SELECT destination, delivery.state, count(*), sum(length) FROM delivery JOIN instance USING (seq)
    GROUP BY destination, delivery.state;
PRAGMA user_version = 7;
