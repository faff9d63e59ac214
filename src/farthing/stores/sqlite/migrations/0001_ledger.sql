-- The ledger, first version. Times are milliseconds since the epoch, money is nano-dollars.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

INSERT INTO meta VALUES ('catalogue_version', 0), ('last_seen_ms', 0), ('next_seq', 1);

-- One counter: one unit of one account. Balances are a projection of entries and live holds.
CREATE TABLE counters (
    key     TEXT PRIMARY KEY,
    settled INTEGER NOT NULL CHECK (settled >= 0),
    held    INTEGER NOT NULL CHECK (held >= 0),
    suspect INTEGER NOT NULL CHECK (suspect >= 0),
    ends_ms INTEGER
) WITHOUT ROWID, STRICT;

-- The counters that a hold is posted on, stored once for all holds on the same accounts:
-- [[key, unit, release, ends_ms], …]
CREATE TABLE shapes (
    id   INTEGER PRIMARY KEY,
    body TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE holds (
    no           INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    owner        TEXT NOT NULL,
    state        TEXT NOT NULL,
    x            INTEGER NOT NULL,
    x_want       INTEGER NOT NULL,
    x_floor      INTEGER NOT NULL,
    placed_ms    INTEGER NOT NULL,
    deadline_ms  INTEGER NOT NULL,
    changed_ms   INTEGER NOT NULL,
    automatic    INTEGER NOT NULL,
    outcome      TEXT,              -- what the call itself said, where a correction followed (else its entry says it):
                                    -- [amounts, usage, cost, ending, source, model, note]
    entry        INTEGER,           -- its latest entry (an index on entries would cost every settle)
    shape        INTEGER NOT NULL REFERENCES shapes,
    model        TEXT,
    provider     TEXT,
    dialect      TEXT,
    tags         TEXT NOT NULL,     -- [[name, value], …]
    budgets      TEXT NOT NULL,     -- [title, …]
    input_tokens INTEGER NOT NULL,
    choices      INTEGER NOT NULL,
    price        TEXT,              -- [base, slope, den]
    price_version TEXT,
    bound        TEXT NOT NULL,
    asked_model  TEXT,
    loans        TEXT               -- [[unit, taker, donor, above, amount, most, why], …]; NULL: none
) STRICT;

CREATE INDEX holds_open ON holds (owner, deadline_ms) WHERE state = 'held';
CREATE INDEX holds_suspect ON holds (changed_ms) WHERE state = 'suspect';

-- Immutable. Whose call it was (model, tags, budgets) is said by its hold.
CREATE TABLE entries (
    seq          INTEGER PRIMARY KEY,
    id           TEXT,              -- NULL: the same as hold_id
    hold_id      TEXT NOT NULL REFERENCES holds (id),
    kind         TEXT NOT NULL,
    at_ms        INTEGER NOT NULL,
    started_ms   INTEGER NOT NULL,
    cost_nano    INTEGER,
    ending       TEXT NOT NULL,
    usage_source TEXT NOT NULL,
    suspect      INTEGER NOT NULL,
    resolves_suspect INTEGER NOT NULL,
    model        TEXT,              -- the model that answered, where it is not the one that was asked
    note         TEXT,
    overrun      TEXT,              -- [[unit, amount], …]
    posted       TEXT NOT NULL,     -- [[unit, amount], …]: added to the settled amount of each counter of the shape
    transfers    TEXT,              -- [[unit, donor, taker, amount, why], …]: borrowed and used; NULL: nothing
    input        INTEGER NOT NULL,
    cached       INTEGER NOT NULL,
    cache_write  INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    input_audio  INTEGER NOT NULL,
    cached_audio INTEGER NOT NULL,
    input_image  INTEGER NOT NULL,
    output       INTEGER NOT NULL,
    reasoning    INTEGER NOT NULL,
    output_audio INTEGER NOT NULL,
    output_image INTEGER NOT NULL
) STRICT;

CREATE INDEX entries_at ON entries (at_ms);

CREATE TABLE budgets (
    no     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE,
    terms  TEXT NOT NULL,
    frozen INTEGER NOT NULL
) STRICT;

CREATE TABLE grants (
    no       INTEGER PRIMARY KEY,
    budget   TEXT NOT NULL,
    unit     TEXT NOT NULL,
    amount   INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    until_ms INTEGER,
    scope    TEXT NOT NULL,         -- [[name, value], …]
    reason   TEXT,
    who      TEXT
) STRICT;

-- Denied calls leave no other row.
CREATE TABLE denials (
    hour_ms  INTEGER NOT NULL,
    budget   TEXT NOT NULL,
    unit     TEXT NOT NULL,
    model    TEXT NOT NULL,
    provider TEXT NOT NULL,
    tags     TEXT NOT NULL,
    shadow   INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    PRIMARY KEY (hour_ms, budget, unit, model, provider, tags, shadow)
) WITHOUT ROWID, STRICT;
