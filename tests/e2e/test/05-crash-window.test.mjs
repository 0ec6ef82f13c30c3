// The process dies inside the refresh protocol, between the presentation of a refresh token and the durable answer. After a
// restart what lives is served, the last resort is tried once, and then the state says what is known.

import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually, FAULTY_BINARY, world } from '../harness.mjs';

const TOKEN_SECONDS = 10;

for (const [point, where, rotated] of [
  ['fp03', 'after the claim, before the request', false],
  ['fp05', 'the request is written, no reply was read', true],
  ['fp06', 'the reply is read, nothing is stored', true],
]) {
  test(`a crash at ${point}: ${where}`, async (t) => {
    const { provider, upstream, ...w } = await world(t, { accessTokenSeconds: TOKEN_SECONDS });
    const ask = async () => {
      const answer = await fetch(`${w.url}/v1.0/me`, { headers: { authorization: w.basic('alice') } });
      return { status: answer.status, error: answer.headers.get('bearerd-error'), signin: answer.headers.get('bearerd-signin-url'), body: await answer.json() };
    };
    const refreshes = (type) => provider.count({ type, grantType: 'refresh_token' });

    // fp05 is the provider's to make: it has rotated and says nothing when the process is killed.
    const held = point === 'fp05';
    const doomed = await w.serve(held ? {} : {
      binary: FAULTY_BINARY,
      env: { BEARERD_FAULT_POINT: `${point}:once:${path.join(w.directory, 'marker')}` },
    });
    await w.signIn('alice');
    if (held) provider.holdAnswers();
    await eventually('the process dies at its fault point', TOKEN_SECONDS + 10, async () => {
      if (held && refreshes('success') === 1) await doomed.kill();
      if (!doomed.gone()) await ask().catch(() => {});
      return doomed.gone();
    });
    provider.releaseAnswers();
    assert.equal(refreshes('error'), 0);
    assert.equal(refreshes('success'), rotated ? 1 : 0);
    const before = refreshes('success');

    // What lives is served, with the token from before the crash.
    await w.serve();
    const alive = await ask();
    assert.equal(alive.status, 200, JSON.stringify(alive));
    assert.equal(upstream.requests.at(-1).account, 'alice');
    const during = (await w.account('alice')).status;

    // Then the token ends, and the last resort decides.
    const last = await eventually('the outcome is known', 60, async () => {
      await sleep(400);
      const answer = await ask();
      if (rotated) return answer.error === 'signin_required' && answer;
      return refreshes('success') > before && answer.status === 200 && answer;
    });
    await ask();
    await ask();
    const { status } = await w.account('alice');
    if (rotated) {
      assert.equal(last.status, 403);
      assert.equal(last.body.error.code, 'bearerd.signin_required');
      assert.equal(status, 'reauth');
      assert.equal(refreshes('success'), 1);
      assert.equal(refreshes('error'), 1, 'the last resort, once');
      // A sign-in link mends it.
      assert.match((await w.signIn('alice')).text, /signed in/i);
      assert.equal((await ask()).status, 200);
    } else {
      assert.equal(status, 'active');
      assert.equal(refreshes('error'), 0);
      assert.equal(provider.count({ type: 'revoked' }), 0);
    }
    t.diagnostic(`right after the restart: ${alive.status}, account ${during}; at the end: account ${status}; `
      + `${refreshes('success')} refreshes, ${refreshes('error')} refused`);
  });
}
