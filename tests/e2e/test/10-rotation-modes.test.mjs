// Providers that forgive: one that gives the same refresh token each time, one that doesn't even say it again, one that takes the
// previous token for ten seconds more. Tokens of two seconds under load, `kill -9` at any moment, a lost answer: nothing is lost.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { crashes, POINTS } from '../crash.mjs';
import { within, world } from '../harness.mjs';
import { killAndRestart, startLoad } from '../load.mjs';

// Between two kills, and after the last one.
const BETWEEN_KILLS_MILLIS = 3000;
const TOKEN_SECONDS = 2;
const USERS = ['user1', 'user2', 'user3'];
const MODES = { same: 'the same refresh token each time', silent: 'replies without a refresh token', grace: 'ten seconds of grace' };

test('providers that forgive', { concurrency: 3, timeout: 240_000 }, async (t) => {
  await Promise.all(Object.entries(MODES).map(([rotation, what]) => t.test(`${what}: requests all the time, 2 times kill -9`, async (t) => {
    const { provider, upstream, ...w } = await world(t, { rotation, accounts: USERS, accessTokenSeconds: TOKEN_SECONDS });
    let server = await w.serve();
    await w.importGrants(USERS);
    const load = startLoad(t, w, { users: USERS, workers: 6, seconds: 120, pause: 20 });
    const refreshed = (entry) => entry.type === 'success' && entry.grantType === 'refresh_token';

    // At any moment.
    await sleep(BETWEEN_KILLS_MILLIS);
    server = await killAndRestart(t, w, load, server);
    // The provider has done its work, and the answer never comes.
    await sleep(BETWEEN_KILLS_MILLIS);
    provider.holdAnswers();
    await within(5 * TOKEN_SECONDS, 'a refresh', provider.next(refreshed));
    await killAndRestart(t, w, load, server, () => provider.releaseAnswers());
    await sleep(BETWEEN_KILLS_MILLIS);
    await load.stop();

    const successes = provider.select({ type: 'success', grantType: 'refresh_token' });
    const presented = new Set(successes.map((entry) => entry.presented));
    t.diagnostic(`${load.answered} requests answered, ${load.failures.length} failed, ${load.cutOff} cut off by a kill; ${successes.length} refreshes `
      + `with ${presented.size} tokens, ${provider.count({ type: 'error' })} refused`);
    assert.deepEqual(load.failures.slice(0, 5), []);
    assert.equal(load.downs.length, 2);
    for (const user of USERS) assert.ok(successes.filter(({ account }) => account === user).length > 1, `${user}: ${successes.length} refreshes in all`);
    if (rotation !== 'grace') assert.equal(presented.size, USERS.length, 'one refresh token each');
    assert.equal(provider.count({ type: 'error' }), 0);
    assert.equal(provider.count({ type: 'revoked' }), 0);
    for (const user of USERS) {
      assert.equal((await w.account(user)).status, 'active');
      assert.equal((await w.ask(user)).status, 200);
    }
    assert.ok(upstream.requests.every((request) => request.account !== null), 'the API refused none');
  })));
});

for (const rotation of ['same', 'grace']) {
  test(`${MODES[rotation]}: a crash at each point loses nothing`, { concurrency: 3, timeout: 240_000 }, async (t) => {
    const rows = [];
    await Promise.all(Object.keys(POINTS).map((point) => t.test(`${rotation}, a crash at ${point}: ${POINTS[point].where}`, async (t) => {
      rows.push(await crashes(t, { point, rotation, waiting: 2, ageing: 0, command: 1 }));
    })));
    const sum = (what) => rows.reduce((total, row) => total + row[what], 0);
    t.diagnostic(`${rows.length} points, ${sum('rounds')} rounds, ${sum('lived')} lived; the provider saw ${sum('refreshes')} refreshes, ${sum('refused')} refused`);
  });
}
