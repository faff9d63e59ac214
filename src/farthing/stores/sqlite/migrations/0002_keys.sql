-- Virtual keys. Of a key's text only the SHA-256 is here.

CREATE TABLE keys (
    id                TEXT PRIMARY KEY,
    hash              TEXT NOT NULL,
    tags              TEXT NOT NULL,    -- [[name, value], …]
    admin             INTEGER NOT NULL,
    deny_status       INTEGER,
    label             TEXT,
    budgets           TEXT NOT NULL,    -- [name, …]
    parent            TEXT,
    created_ms        INTEGER NOT NULL,
    expires_ms        INTEGER,
    revoked_ms        INTEGER,
    previous_hash     TEXT,             -- good until previous_until_ms, after a rotation
    previous_until_ms INTEGER,
    version           INTEGER NOT NULL  -- the version of all keys together at which this one last changed
) WITHOUT ROWID, STRICT;

CREATE INDEX keys_changed ON keys (version);

INSERT INTO meta VALUES ('keys_version', 0);
