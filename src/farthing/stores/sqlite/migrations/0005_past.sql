-- What is put away of the past, and which alerts were said.

-- Daily sums of rows that were rolled up. Where a call had no model, provider, tags or budgets, the text is empty or [].
CREATE TABLE sums (
    day_ms           INTEGER NOT NULL,
    model            TEXT NOT NULL,
    provider         TEXT NOT NULL,
    tags             TEXT NOT NULL,    -- [[name, value], …]
    budgets          TEXT NOT NULL,    -- [title, …]
    usd_nano         INTEGER NOT NULL,
    input_tokens     INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    calls            INTEGER NOT NULL,
    suspect          INTEGER NOT NULL,
    unpriced_calls   INTEGER NOT NULL,
    PRIMARY KEY (day_ms, model, provider, tags, budgets)
) WITHOUT ROWID, STRICT;

-- What rows that are gone had added to the settled amounts; less what counters that are gone had settled.
CREATE TABLE snapshot (
    key     TEXT PRIMARY KEY,
    settled INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE alerts (
    key     TEXT PRIMARY KEY,
    at_ms   INTEGER NOT NULL,
    ends_ms INTEGER
) WITHOUT ROWID, STRICT;

CREATE INDEX counters_over ON counters (ends_ms) WHERE ends_ms IS NOT NULL;
CREATE INDEX holds_correctable ON holds (no) WHERE automatic = 1;
CREATE INDEX answers_of ON answers (hold_id);
