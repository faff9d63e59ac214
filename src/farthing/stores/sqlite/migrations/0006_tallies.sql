-- What metrics count of rows that were rolled up, so that a counter never goes back.

CREATE TABLE tallies (
    kind         TEXT NOT NULL,
    provider     TEXT NOT NULL,
    model        TEXT NOT NULL,
    ending       TEXT NOT NULL,
    usage_source TEXT NOT NULL,
    calls        INTEGER NOT NULL,
    priced       INTEGER NOT NULL,
    cost_nano    INTEGER NOT NULL,
    overrun      INTEGER NOT NULL,
    milliseconds INTEGER NOT NULL,
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
    output_image INTEGER NOT NULL,
    PRIMARY KEY (kind, provider, model, ending, usage_source)
) WITHOUT ROWID, STRICT;

-- The largest number of a row that is counted there.
INSERT INTO meta VALUES ('tallied_seq', 0);
