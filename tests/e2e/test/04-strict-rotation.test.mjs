// A provider that kills the grant when a refresh token is used twice; tokens of five seconds; requests all the time; and
// `kill -9` three times. No request to a living proxy fails, and the grant lives at the end.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually, within, world } from '../harness.mjs';
import { killAndRestart, startLoad } from '../load.mjs';

const SECONDS = Number(process.env.BEARERD_E2E_SECONDS ?? 60);
const TOKEN_SECONDS = 5;
const CONCURRENT = 16;
const KILLS = 3;
const LIVES = Math.min(10, Math.floor(SECONDS / TOKEN_SECONDS) - 1);

test(`strict rotation: ${SECONDS} s of requests, ${KILLS} times kill -9`, { timeout: SECONDS * 1000 + 120_000 }, async (t) => {
  const { provider, upstream, ...w } = await world(t, { accessTokenSeconds: TOKEN_SECONDS });
  let server = await w.serve();
  await w.signIn('alice');
  const load = startLoad(t, w, { users: ['alice'], workers: CONCURRENT, seconds: SECONDS });

  const killer = async () => {
    for (let kill = 1; kill <= KILLS; kill += 1) {
      await sleep(Math.max(0, load.end - SECONDS * 1000 * (1 - kill / (KILLS + 1)) - Date.now()));
      // Outside the protocol's window: a refresh is complete, and a later request was answered with its token.
      const { issued } = await within(2 * TOKEN_SECONDS, 'a refresh', provider.next((entry) => entry.type === 'success' && entry.grantType === 'refresh_token'));
      await eventually('its token is used', TOKEN_SECONDS, () => load.newest('alice') >= issued, 5);
      server = await killAndRestart(t, w, load, server);
    }
  };
  await Promise.all([load.done, killer()]);

  const refreshes = provider.count({ type: 'success', grantType: 'refresh_token' });
  t.diagnostic(`${load.answered} requests answered, ${load.failures.length} failed, ${load.cutOff} cut off by a kill; `
    + `${refreshes} refreshes, ${provider.count({ type: 'error' })} refused, ${provider.count({ type: 'revoked' })} grants revoked`);
  assert.deepEqual(load.failures.slice(0, 5), []);
  assert.equal(load.downs.length, KILLS);
  assert.ok(refreshes >= LIVES, `${refreshes} refreshes`);
  assert.equal(provider.count({ type: 'error' }), 0);
  assert.equal(provider.count({ type: 'revoked' }), 0);
  const presented = provider.select({ grantType: 'refresh_token' }).map((entry) => entry.presented);
  assert.equal(new Set(presented).size, presented.length, 'no refresh token was presented twice');
  assert.equal((await w.account('alice')).status, 'active');
  assert.ok(upstream.requests.every((request) => request.account === 'alice'), 'the API refused none');
});
