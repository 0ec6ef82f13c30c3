// The wall clock jumps by two hours, forth and back, under a server that works (libfaketime; the monotonic clock stays as it is).
// Who has a token that lives hears nothing of it, no refresh is made because of it, and no grant ends.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually, world } from '../harness.mjs';
import { killAndRestart, startLoad } from '../load.mjs';

const USERS = ['user1', 'user2', 'user3', 'user4'];
const TOKEN_SECONDS = 4;
// The earliest that a refresh ahead of need is made.
const SHORTEST_LIFE_MILLIS = 0.6 * TOKEN_SECONDS * 1000;
const BETWEEN_JUMPS_MILLIS = 5000;
const HOURS = 3600 * 1000;

test('the wall clock jumps', { concurrency: 3, timeout: 120_000 }, async (t) => {
  await Promise.all([
    t.test('two hours forth and back, and back and forth: nobody notices', async (t) => {
      const { provider, upstream, ...w } = await clockWorld(t);
      await w.serve();
      await w.importGrants(USERS);
      const started = Date.now();
      const load = startLoad(t, w, { users: USERS, workers: 8, seconds: 60, pause: 20 });
      for (const hours of [2, 0, -2, 0]) {
        await sleep(BETWEEN_JUMPS_MILLIS);
        await w.jump(hours);
      }
      await sleep(BETWEEN_JUMPS_MILLIS);
      await load.stop();
      const refreshes = provider.count({ type: 'success', grantType: 'refresh_token' });
      const most = USERS.length * (1 + Math.ceil((Date.now() - started) / SHORTEST_LIFE_MILLIS));
      t.diagnostic(`${load.answered} requests answered, ${load.failures.length} failed; ${refreshes} refreshes (${most} at most), ${provider.count({ type: 'error' })} refused`);
      assert.deepEqual(load.failures.slice(0, 5), []);
      assert.ok(refreshes <= most, `${refreshes} refreshes, ${most} at most`);
      assert.ok(upstream.requests.every((request) => request.account !== null), 'the API refused none');
      await w.isWell();
    }),

    t.test('a provider that was down while the clock was two hours ahead: it heals when the clock is back', async (t) => {
      const { provider, ...w } = await clockWorld(t);
      await w.serve();
      await w.importGrants(USERS);
      const ask = () => Promise.all(USERS.map((user) => w.ask(user)));
      assert.ok((await ask()).every((answer) => answer.status === 200));
      await w.jump(2);
      await provider.setOutage(503);
      await eventually('every token has expired', 20, async () => (await ask()).every((answer) => answer.error === 'provider_unavailable'));
      await w.jump(0);
      await provider.setOutage(null);
      const back = Date.now();
      await eventually('every account is served again', 30, async () => (await ask()).every((answer) => answer.status === 200), 200);
      t.diagnostic(`healed after ${Date.now() - back} ms`);
      await w.isWell();
    }),

    t.test('a restart after the clock was set back: tokens from the future are not believed', async (t) => {
      const { provider, ...w } = await clockWorld(t);
      await w.jump(2);
      const server = await w.serve();
      await w.importGrants(USERS);
      const load = startLoad(t, w, { users: USERS, workers: 4, seconds: 60, pause: 50 });
      await eventually('each has a token', 10, () => USERS.every((user) => load.newest(user) > 0));
      await killAndRestart(t, w, load, server, async () => {
        await w.jump(0);
        // By now they have all expired, though the store says otherwise.
        await eventually('the tokens have expired', 20, async () => (await Promise.all(USERS.flatMap((user) => (
          provider.accessTokens(user).map((token) => provider.verify(token))
        )))).every((holder) => holder === null));
      });
      await sleep(BETWEEN_JUMPS_MILLIS);
      await load.stop();
      t.diagnostic(`${load.answered} requests answered, ${load.failures.length} failed; ${provider.count({ type: 'success', grantType: 'refresh_token' })} refreshes`);
      assert.deepEqual(load.failures.slice(0, 5), []);
      await w.isWell();
    }),
  ]);
});

// A world whose server believes the clock that `jump` sets.
async function clockWorld(t) {
  const made = {};
  const w = await world(t, { accounts: USERS, accessTokenSeconds: TOKEN_SECONDS, env: made });
  const file = path.join(w.directory, 'clock');
  Object.assign(made, {
    LD_PRELOAD: libfaketime(), FAKETIME_TIMESTAMP_FILE: file, FAKETIME_NO_CACHE: '1', DONT_FAKE_MONOTONIC: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1',
  });
  const set = async (hours) => {
    await writeFile(`${file}.new`, `${hours < 0 ? '' : '+'}${hours}h\n`);
    await rename(`${file}.new`, file);
  };
  await set(0);
  const { serve } = w;
  let serves = false;
  let believed = 0;
  w.serve = async (...options) => { const server = await serve(...options); serves = true; return server; };
  w.jump = async (hours) => {
    await set(hours);
    believed = hours;
    if (serves) await isBelieved().catch((error) => { if (error.code === 'ERR_ASSERTION') throw error; });
  };
  // Our own errors carry the date.
  const isBelieved = async () => {
    const answer = await w.ask('nobody');
    const ahead = Date.parse(answer.body.error.innerError.date) - Date.now();
    assert.ok(Math.abs(ahead - believed * HOURS) < 10_000, `the server's clock is ${ahead} ms ahead, not ${believed} h`);
  };
  w.isWell = async () => {
    for (const account of JSON.parse((await w.cli(['accounts', 'list', '--format', 'json'])).stdout)) {
      assert.equal(account.status, 'active', JSON.stringify(account));
    }
    assert.equal(w.provider.count({ type: 'error' }), 0);
    assert.equal(w.provider.count({ type: 'revoked' }), 0);
  };
  return w;
}

function libfaketime() {
  const base = '/usr/lib';
  const [found] = readdirSync(base).filter((name) => name.endsWith('-linux-gnu'))
    .map((name) => path.join(base, name, 'faketime/libfaketimeMT.so.1'))
    .filter((file) => readdirSync(path.dirname(path.dirname(file))).includes('faketime'));
  assert.ok(found, 'libfaketime is missing: `make setup` installs it');
  return found;
}
