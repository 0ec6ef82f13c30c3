-- What finds accounts without reading all of them: their names in URLs and logs, and those few that are not active. Part of every new
-- store; a store that was made without is given it when it is opened. An older program leaves account_id empty: it is filled likewise.

ALTER TABLE grants ADD COLUMN account_id TEXT; -- `AccountKey::id`
CREATE UNIQUE INDEX grants_by_account_id ON grants (account_id);
-- Costs a refresh nothing: what is active is not in it.
CREATE INDEX grants_not_active ON grants (state, alias) WHERE alias IS NOT NULL AND state <> 'active';
