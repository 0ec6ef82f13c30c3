// Schemathesis reads the OpenAPI document of the admin API and asks whatever it allows and whatever it doesn't: no answer may be one that
// the document doesn't know, be an error of the server, or take what is malformed.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run, world } from '../harness.mjs';

const DIRECTORY = fileURLToPath(new URL('../schemathesis', import.meta.url));
const PROGRAM = path.join(DIRECTORY, '.venv/bin/schemathesis');
const TOKEN = 'the-token-of-the-operators';
const OPERATIONS = 15;

test('schemathesis finds nothing wrong with the admin API', { timeout: 300_000 }, async (t) => {
  const users = Array.from({ length: 12 }, (_, index) => `user${index}`);
  const w = await world(t, { log: 'warn', env: { BEARERD_ADMIN__TOKEN: TOKEN } });
  await w.importGrants(users);
  const server = await w.serve();

  const report = path.join(w.directory, 'report.json');
  const done = await run(PROGRAM, [
    '--config-file', path.join(DIRECTORY, 'schemathesis.toml'), 'run', `${w.adminUrl}/openapi.json`,
    '--header', `Authorization: Bearer ${TOKEN}`,
    '--max-examples', '20', '--workers', '2', '--max-failures', '5', '--continue-on-failure', '--no-color',
    '--report', 'json', '--report-json-path', report,
  ], { cwd: w.directory, timeout: 240_000 });
  assert.equal(done.code, 0, `${done.stdout}\n${done.stderr}`);
  const said = done.stdout.replaceAll(/\s+/g, ' ');
  t.diagnostic(said.slice(said.lastIndexOf('Test cases:')));
  assert.ok(JSON.parse(await readFile(report, 'utf8')));

  // It has met the real thing, and the server is well.
  assert.equal(server.gone(), false);
  assert.doesNotMatch(server.output().stderr, /panicked|"level":"ERROR"/);
});
