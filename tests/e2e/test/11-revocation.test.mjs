// What an operator ends here ends at the provider too (RFC 7009), and here at once even if the provider can't be told.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, world } from '../harness.mjs';

const told = (provider) => provider.count({ type: 'asked', endpoint: '/token/revocation' });

test('accounts revoke: the provider revokes the refresh token that is current', async (t) => {
  const { provider, ...w } = await world(t);
  await w.serve();
  await w.signIn('alice');
  await w.signIn('bob');
  assert.equal((await w.cli(['accounts', 'refresh', 'alice'])).code, 0);
  const [{ refreshToken }] = provider.select({ type: 'success', grantType: 'refresh_token', account: 'alice' });
  assert.equal(await provider.accepts(refreshToken), true);

  const revoked = await w.cli(['accounts', 'revoke', 'alice']);
  assert.equal(revoked.code, 0, revoked.stderr);
  await eventually('the provider is told', 10, () => provider.count({ type: 'revoked', account: 'alice' }) > 0);
  assert.ok(told(provider) >= 1);
  assert.equal(await provider.accepts(refreshToken), false);
  await eventually('the revocation is in force here', 5, async () => (await w.ask('alice')).error === 'signin_required');
  assert.equal((await w.account('alice')).status, 'revoked');

  // Only that grant, and only that one of hers.
  assert.equal((await w.ask('bob')).status, 200);
  assert.match((await w.signIn('alice')).text, /signed in/i);
  assert.equal((await w.ask('alice')).status, 200);
  assert.equal((await w.cli(['accounts', 'refresh', 'alice'])).code, 0);
  assert.equal(provider.count({ type: 'revoked' }), 1);
  assert.equal(provider.count({ type: 'error' }), 0);
  t.diagnostic(`${told(provider)} revocation at the provider, ${provider.count({ type: 'revoked' })} grant gone`);
});

test('accounts revoke: in force here, even if the provider can\'t be told', async (t) => {
  const { provider, ...w } = await world(t);
  await w.serve();
  for (const outage of ['refuses', 503, 'hangs', 'garbage']) {
    await w.signIn('alice');
    assert.equal((await w.ask('alice')).status, 200);
    // The rest of the provider answers, or the command would not start.
    await provider.setOutage(outage, outage === 'refuses' ? '/' : '/token');
    const started = Date.now();
    const revoked = await w.cli(['accounts', 'revoke', 'alice'], { timeout: 40_000 });
    assert.equal(revoked.signal, null, `${outage}: it ends by itself`);
    await eventually(`${outage}: the revocation is in force here`, 5, async () => (await w.ask('alice')).error === 'signin_required');
    assert.equal((await w.account('alice')).status, 'revoked', `${outage}: ${revoked.stdout}${revoked.stderr}`);
    t.diagnostic(`${outage}: exit code ${revoked.code} after ${((Date.now() - started) / 1000).toFixed(1)} s`);
    await provider.setOutage(null);
  }
  assert.ok(told(provider) >= 2, `asked ${told(provider)} times in the outages that a request reaches`);
});
