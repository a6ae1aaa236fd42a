-- What version 2.0.0 makes of a new file, one migration after the other, and rows as it stores them.
CREATE TABLE server_meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE resource (
    nr      INTEGER PRIMARY KEY,
    id      TEXT    NOT NULL UNIQUE,
    name    TEXT    NOT NULL UNIQUE,
    timeout INTEGER NOT NULL
) STRICT;

CREATE TABLE resource_data (
    nr          INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL,
    id_resource TEXT    NOT NULL REFERENCES resource (id),
    selector    TEXT    NOT NULL,
    data        TEXT    NOT NULL,
    UNIQUE (id_resource, selector)
) STRICT;

-- The head row of every resource: its highest token, and its lease when `ticket` is set.
CREATE TABLE resource_lock (
    resource    INTEGER PRIMARY KEY REFERENCES resource (nr),
    token       INTEGER NOT NULL,
    ticket      BLOB,
    seq         INTEGER,
    owner       TEXT,
    ttl         INTEGER,
    attempt     TEXT,
    attempt_ttl INTEGER,
    acquired_at INTEGER
) STRICT;

-- Waiting tickets; `attempt` is the Idempotency-Key.
CREATE TABLE resource_ticket (
    resource    INTEGER NOT NULL REFERENCES resource (nr),
    ticket      BLOB    NOT NULL,
    seq         INTEGER NOT NULL,
    owner       TEXT,
    ttl         INTEGER,
    attempt     TEXT,
    attempt_ttl INTEGER,
    PRIMARY KEY (resource, ticket)
) STRICT, WITHOUT ROWID;

-- Why tickets ended: 0 released, 1 expired, 2 forced off.
CREATE TABLE resource_ended (
    resource INTEGER NOT NULL,
    slot     INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    ticket   BLOB    NOT NULL,
    reason   INTEGER NOT NULL,
    PRIMARY KEY (resource, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE resource_ended_tickets (
    resource INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    entries  BLOB    NOT NULL,
    PRIMARY KEY (resource, n)
) STRICT, WITHOUT ROWID;

INSERT INTO resource_ended_tickets (resource, n, entries)
    SELECT resource, n, CAST(ticket || CASE reason WHEN 0 THEN x'01' WHEN 1 THEN x'02' ELSE x'03' END AS BLOB)
    FROM resource_ended;

DROP TABLE resource_ended;

CREATE TABLE resource_journal (
    n       INTEGER PRIMARY KEY,
    changes BLOB NOT NULL
) STRICT;

ALTER TABLE resource_journal RENAME TO resource_journal_2;

CREATE TABLE resource_journal (
    place   INTEGER PRIMARY KEY,
    n       INTEGER NOT NULL,
    changes BLOB    NOT NULL
) STRICT;

INSERT INTO resource_journal (place, n, changes)
    SELECT n, n, CAST(unhex(printf('%08x', length(changes))) || changes AS BLOB) FROM resource_journal_2;

DROP TABLE resource_journal_2;

PRAGMA user_version = 3;

INSERT INTO server_meta (key, value) VALUES ('floor', '4'), ('journal_done', '0');
INSERT INTO resource (nr, id, name, timeout) VALUES (1, '1', 'printer', 30), (2, '2', 'scanner', 0);
INSERT INTO resource_lock (resource, token, ticket, seq, owner, ttl, attempt, attempt_ttl, acquired_at) VALUES
    (1, 7, x'00000000000000000000000000000011', 1, 'ann', 20, 'k', 20, 1700000000000),
    (2, 8, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO resource_ticket (resource, ticket, seq, owner, ttl, attempt, attempt_ttl) VALUES
    (1, x'00000000000000000000000000000022', 1, NULL, 5, NULL, NULL);
INSERT INTO resource_ended_tickets (resource, n, entries) VALUES (1, 0, x'ffffffffffffffffffffffffffffffff01');

-- A commit that was not settled yet: scanner was granted, somebody waits, a ticket expired.
INSERT INTO resource_journal (place, n, changes) VALUES (1, 1, x'00000031010132010901330100013c0080d095ffbc310144014401000101000100ffffffffffffffffffffffffffffffffffff0301');
