// Schemathesis reads the OpenAPI document of the admin API and asks whatever it allows and whatever it doesn't: no answer may be one that
// the document doesn't know, be an error of the server, or take what is malformed.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run, world } from '../harness.mjs';

const DIRECTORY = fileURLToPath(new URL('../schemathesis', import.meta.url));
const PYTHON = path.join(DIRECTORY, '.venv/bin/python');
// Without the collector of garbage: where it runs while Python 3.11 compiles, the compiler gives up (SystemError: AST constructor recursion
// depth mismatch).
const PROGRAM = 'import gc; gc.disable(); from schemathesis.cli import schemathesis; schemathesis(prog_name="schemathesis")';
const TOKEN = 'the-token-of-the-operators';
// What it has to have met, so that "nothing found" means something.
const MET = [
  'GET /v1/accounts 200', 'GET /v1/accounts 400', 'GET /v1/accounts/{id} 200', 'GET /v1/accounts/{id} 404',
  'POST /v1/accounts 201', 'POST /v1/accounts 400', 'POST /v1/accounts 415', 'POST /v1/accounts 422', 'POST /v1/accounts/{id}/refresh 200',
  'POST /v1/accounts/{id}/refresh 409', 'POST /v1/accounts/{id}/revoke 200', 'POST /v1/accounts/{id}/signin-link 201',
  'DELETE /v1/accounts/{id} 204', 'GET /v1/audit 200', 'GET /v1/audit 400', 'GET /v1/clients 200', 'GET /v1/config 200', 'POST /v1/explain 200', 'POST /v1/explain 400',
  'PUT /v1/explain 405',
];

test('schemathesis finds nothing wrong with the admin API', { timeout: 300_000 }, async (t) => {
  const users = Array.from({ length: 12 }, (_, index) => `user${index}`);
  const w = await world(t, { log: 'warn', env: { BEARERD_ADMIN__TOKEN: TOKEN } });
  await w.importGrants(users);
  const server = await w.serve();

  const started = Date.now();
  const report = path.join(w.directory, 'report.har');
  const done = await run(PYTHON, ['-c', PROGRAM,
    '--config-file', path.join(DIRECTORY, 'schemathesis.toml'), '--no-color', 'run', `${w.adminUrl}/openapi.json`,
    '--header', `Authorization: Bearer ${TOKEN}`, '--max-examples', '40', '--workers', '2', '--continue-on-failure',
    '--report', 'har', '--report-har-path', report,
  ], { cwd: w.directory, timeout: 240_000 });
  assert.equal(done.code, 0, `${done.stdout}\n${done.stderr}`);

  const { log } = JSON.parse(await readFile(report, 'utf8'));
  const met = new Set(log.entries.map(({ request, response }) => {
    const { pathname } = new URL(request.url);
    return `${request.method} ${pathname.replace(/(\/accounts\/)[^/]+/, '$1{id}')} ${response.status}`;
  }));
  assert.deepEqual(MET.filter((one) => !met.has(one)), []);
  assert.equal(server.gone(), false);
  assert.doesNotMatch(server.output().stderr, /panicked|"level":"ERROR"/);
  t.diagnostic(`${log.entries.length} requests, ${met.size} kinds of them and their answers, ${((Date.now() - started) / 1000).toFixed(0)} s`);
});
