// A configuration that is replaced twenty times, and a process that is replaced ten times, while 500 requests a second come: none fails, no
// refresh token is presented twice, and every client that is told to come back over another connection does.

import assert from 'node:assert/strict';
import { readFile, rename, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { test } from 'node:test';
import { eventually, get, launch, world, BINARY } from '../harness.mjs';
import { startStream } from '../load.mjs';

const RATE = Number(process.env.BEARERD_E2E_RATE ?? 500);
const RELOADS = 20;
const RESTARTS = 10;
const USERS = ['alice', 'bob', 'user1', 'user2'];

test(`${RELOADS} reloads and ${RESTARTS} rolling restarts under ${RATE} requests a second`, { timeout: 240_000 }, async (t) => {
  const w = await world(t, { accessTokenSeconds: 8, accounts: USERS, log: 'info' });
  const usual = (await readFile(w.config, 'utf8'))
    .replace('[server]\n', '[server]\nshare_port = true\nlimits = { drain_delay = "1s" }\n');
  await writeFile(w.config, usual);
  // Something of everything that can be replaced.
  const other = (number) => usual
    .replace('allowed_hosts = []', `allowed_hosts = ["name-${number}.example"]`)
    .replace('[providers.idp]\n', `[providers.idp]\nidle_limit = "${40 + number}d"\n`)
    .replace('[upstreams.graph]\n', `[upstreams.graph]\ntimeout = "${50 + number}s"\n`)
    .replace('[[clients]]\n', `[[clients]]\nlimits = { concurrent = ${1000 + number} }\n`);

  let server = await w.serve();
  await w.importGrants(USERS);
  const stream = startStream(t, w, { users: USERS, rate: RATE });

  const reloaded = async (outcome) => {
    const { body } = await get(`${w.adminUrl}/metrics`);
    return Number(new RegExp(`config_reloads_total{outcome="${outcome}"} (\\d+)`).exec(body)?.[1] ?? 0);
  };
  const ways = {
    async api() {
      const { status, body } = await post(`${w.adminUrl}/v1/reload`);
      assert.equal(status, 200, body);
      assert.equal(JSON.parse(body).outcome, 'applied', body);
    },
    async sighup() { process.kill(server.pid, 'SIGHUP'); },
    async file() {},
  };
  for (let number = 1; number <= RELOADS; number += 1) {
    const way = number % 7 === 0 ? 'file' : number % 2 === 0 ? 'api' : 'sighup';
    // Renamed over, so that nobody reads a half.
    await writeFile(`${w.config}.new`, other(number));
    await rename(`${w.config}.new`, w.config);
    await ways[way]();
    await eventually(`reload ${number}, by ${way}`, 15, async () => await reloaded('applied') === number);
  }
  await writeFile(w.config, other(RELOADS).replace('[admin]', '[admin]\nlisten = 7'));
  const refused = await post(`${w.adminUrl}/v1/reload`);
  assert.equal(refused.status, 422, refused.body);
  await writeFile(w.config, other(RELOADS));
  const toReloads = { sent: stream.sent, failed: stream.failures.length };

  for (let number = 1; number <= RESTARTS; number += 1) {
    const before = server;
    server = launch(BINARY, ['serve', '--config', w.config], { cwd: w.directory });
    const after = server;
    t.after(() => after.stop());
    await eventually('the next process serves', 30, () => {
      assert.ok(!after.gone(), after.output().stderr);
      return after.output().stderr.includes('bearerd serves');
    });
    process.kill(before.pid, 'SIGTERM');
    const { code } = await before.ends(`process ${number} ends`, 40);
    assert.equal(code, 0, before.output().stderr.slice(-2000));
    assert.doesNotMatch(before.output().stderr, /connections were cut off|work was still under way/);
  }
  await stream.stop();

  const refreshes = w.provider.count({ type: 'success', grantType: 'refresh_token' });
  t.diagnostic(`${stream.answered} requests answered in ${stream.seconds.toFixed(0)} s, ${stream.failures.length} failed `
    + `(${toReloads.failed} of the first ${toReloads.sent}, among reloads); the slowest took ${stream.slowest} ms; ${refreshes} refreshes`);
  assert.deepEqual(stream.failures.slice(0, 5), []);
  assert.equal(stream.answered, stream.sent);
  assert.ok(stream.sent >= RATE * stream.seconds * 0.9, `${stream.sent} requests in ${stream.seconds} s`);
  assert.equal(w.provider.count({ type: 'error' }), 0);
  assert.equal(w.provider.count({ type: 'revoked' }), 0);
  const presented = w.provider.select({ grantType: 'refresh_token' }).map((entry) => entry.presented);
  assert.equal(new Set(presented).size, presented.length, 'no refresh token was presented twice');
  assert.ok(refreshes >= USERS.length * 2, `${refreshes} refreshes`);
});

test('a second signal ends it at once', { timeout: 60_000 }, async (t) => {
  let arrived;
  const arrives = new Promise((resolve) => { arrived = resolve; });
  // Nobody gets an answer there.
  const slow = http.createServer(() => arrived());
  await new Promise((resolve) => slow.listen(0, '127.0.0.1', resolve));
  t.after(() => { slow.close(); slow.closeAllConnections(); });
  const w = await world(t, { api: `http://127.0.0.1:${slow.address().port}`, accounts: ['alice'] });
  const server = await w.serve();
  await w.importGrants(['alice']);
  const answer = w.ask('alice').catch((error) => error);
  await arrives;
  process.kill(server.pid, 'SIGTERM');
  await eventually('readiness has gone', 10, async () => (await get(`${w.adminUrl}/readyz`)).status === 503);
  assert.ok(!server.gone());
  process.kill(server.pid, 'SIGTERM');
  const { code } = await server.ends('it ends', 10);
  assert.equal(code, 0);
  assert.ok(await answer instanceof Error, 'the request was cut off');
});

test('a port that another program has is named at the start', { timeout: 60_000 }, async (t) => {
  const w = await world(t, {});
  const squatter = http.createServer();
  const { port } = new URL(w.url);
  await new Promise((resolve) => squatter.listen(port, '127.0.0.1', resolve));
  t.after(() => squatter.close());
  const usual = await readFile(w.config, 'utf8');
  for (const share of ['', 'share_port = true\n']) {
    await writeFile(w.config, usual.replace('[server]\n', `[server]\n${share}`));
    const { code, stderr } = await w.cli(['serve']);
    assert.equal(code, 1);
    assert.match(stderr, new RegExp(`server.listen: can't listen on 127.0.0.1:${port}: Address already in use`));
  }
});

function post(url) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method: 'POST', agent: false }, (response) => {
      let body = '';
      response.on('data', (chunk) => { body += chunk; });
      response.on('end', () => resolve({ status: response.statusCode, body }));
    });
    request.on('error', reject);
    request.end();
  });
}
