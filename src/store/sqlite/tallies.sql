-- How many accounts of a provider are in a state, kept by the database itself: whoever wants to know reads a few rows, and not a
-- million. Part of every new store; a store that was made without is given it when it is opened.

CREATE TABLE tallies (
  provider TEXT NOT NULL,
  state TEXT NOT NULL,
  accounts INTEGER NOT NULL,
  PRIMARY KEY (provider, state)
) STRICT, WITHOUT ROWID;
INSERT INTO tallies SELECT provider, state, count(*) FROM grants WHERE alias IS NOT NULL GROUP BY provider, state;
DROP INDEX IF EXISTS grants_by_state;

-- A row of grants begins without an alias and is never deleted: an update is all that can change a tally.
CREATE TRIGGER grants_tallied AFTER UPDATE OF alias, status, parked ON grants
WHEN old.alias IS NULL <> new.alias IS NULL OR old.state <> new.state
BEGIN
  UPDATE tallies SET accounts = accounts - 1
    WHERE old.alias IS NOT NULL AND provider = old.provider AND state = old.state;
  INSERT INTO tallies SELECT new.provider, new.state, 1 WHERE new.alias IS NOT NULL
    ON CONFLICT (provider, state) DO UPDATE SET accounts = accounts + 1;
END;
