// A provider that kills the grant when a refresh token is used twice; tokens of five seconds; requests all the time; and
// `kill -9` three times. No request to a living proxy fails, and the grant lives at the end.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { world } from '../harness.mjs';

const SECONDS = Number(process.env.BEARERD_E2E_SECONDS ?? 60);
const TOKEN_SECONDS = 5;
const CONCURRENT = 16;
const KILLS = 3;
const LIVES = Math.min(10, Math.floor(SECONDS / TOKEN_SECONDS) - 1);

test(`strict rotation: ${SECONDS} s of requests, ${KILLS} times kill -9`, { timeout: SECONDS * 1000 + 120_000 }, async (t) => {
  const { provider, upstream, ...w } = await world(t, { accessTokenSeconds: TOKEN_SECONDS });
  let server = await w.serve();
  await w.signIn('alice');

  // When no server lived: from just before a kill until the next one is ready.
  const downs = [];
  const tally = { answered: 0, cutOff: 0 };
  const failures = [];
  let newest = 0;
  const end = Date.now() + SECONDS * 1000;
  const agent = new http.Agent({ keepAlive: true, maxSockets: CONCURRENT });
  t.after(() => agent.destroy());

  const worker = async (number) => {
    for (let turn = 0; Date.now() < end; turn += 1) {
      const from = Date.now();
      try {
        const answer = await get(agent, `${w.url}/v1.0/me/messages?worker=${number}&turn=${turn}`, w.basic('alice'));
        if (answer.status !== 200 || JSON.parse(answer.body).account !== 'alice') {
          failures.push({ after: from - (end - SECONDS * 1000), ...answer });
        } else {
          tally.answered += 1;
          newest = Math.max(newest, JSON.parse(answer.body).tokenIssued);
        }
      } catch (error) {
        const to = Date.now();
        // A request that a kill cut off, or that found nobody, says nothing about a living proxy.
        if (downs.some((down) => from <= down.to && to >= down.from)) tally.cutOff += 1;
        else failures.push({ after: from - (end - SECONDS * 1000), error: error.message });
      }
      await sleep(10);
    }
  };

  const killer = async () => {
    for (let kill = 1; kill <= KILLS; kill += 1) {
      await sleep(Math.max(0, end - SECONDS * 1000 * (1 - kill / (KILLS + 1)) - Date.now()));
      // Outside the protocol's window: a refresh is complete, and a later request was answered with its token.
      const refresh = await provider.next((entry) => entry.type === 'success' && entry.grantType === 'refresh_token');
      const issued = refresh.issued;
      while (newest < issued) await sleep(5);
      const down = { from: Date.now(), to: Infinity };
      downs.push(down);
      await server.kill();
      server = await w.serve();
      down.to = Date.now();
      t.diagnostic(`kill ${kill}: ready again after ${server.startMillis} ms`);
    }
  };

  await Promise.all([...Array.from({ length: CONCURRENT }, (_, number) => worker(number)), killer()]);

  const refreshes = provider.count({ type: 'success', grantType: 'refresh_token' });
  t.diagnostic(`${tally.answered} requests answered, ${failures.length} failed, ${tally.cutOff} cut off by a kill; `
    + `${refreshes} refreshes, ${provider.count({ type: 'error' })} refused, ${provider.count({ type: 'revoked' })} grants revoked`);
  assert.deepEqual(failures.slice(0, 5), []);
  assert.equal(downs.length, KILLS);
  assert.ok(refreshes >= LIVES, `${refreshes} refreshes`);
  assert.equal(provider.count({ type: 'error' }), 0);
  assert.equal(provider.count({ type: 'revoked' }), 0);
  const presented = provider.select({ grantType: 'refresh_token' }).map((entry) => entry.presented);
  assert.equal(new Set(presented).size, presented.length, 'no refresh token was presented twice');
  assert.equal((await w.account('alice')).status, 'active');
  assert.ok(upstream.requests.every((request) => request.account === 'alice'), 'the API refused none');
});

function get(agent, url, authorization) {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { agent, headers: { authorization } }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => { body += chunk; });
      response.on('end', () => resolve({ status: response.statusCode, body }));
      response.on('error', reject);
    });
    request.setTimeout(30_000, () => request.destroy(new Error('no answer within 30 s')));
    request.on('error', reject);
  });
}
