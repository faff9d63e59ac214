-- The largest ratio of billed to counted tokens, in thousandths, and of how many calls it is the largest.
CREATE TABLE ratios (
    model   TEXT NOT NULL,
    dialect TEXT NOT NULL,
    milli   INTEGER NOT NULL,
    calls   INTEGER NOT NULL,
    extra   INTEGER NOT NULL,    -- tokens on top of what was counted, where there was little text
    PRIMARY KEY (model, dialect)
) WITHOUT ROWID, STRICT;

INSERT INTO meta VALUES ('ratios_version', 0);
