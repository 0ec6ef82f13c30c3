// The provider alone, before anything is built on it: it rotates strictly, and kills the grant when a used token comes back.

import assert from 'node:assert/strict';
import test from 'node:test';
import { deviceRequest, obtainGrant, tokenRequest } from '../grant.mjs';
import { cookieJar, follow } from '../pages.mjs';
import { startProvider } from '../provider.mjs';

test('the provider: code flow, strict rotation, a reused token kills the grant', async (t) => {
  const provider = await startProvider({ accessTokenSeconds: 5 });
  t.after(() => provider.stop());
  const refresh = (token) => tokenRequest(provider, { grant_type: 'refresh_token', refresh_token: token });

  const first = await obtainGrant(provider, 'alice');
  const claims = JSON.parse(Buffer.from(first.id_token.split('.')[1], 'base64url'));
  assert.equal(claims.sub, 'alice');
  assert.equal(claims.preferred_username, 'alice@contoso.example');
  assert.match(claims.oid, /^[0-9a-f-]{36}$/);
  assert.equal(first.expires_in, 5);
  assert.equal((await provider.verify(first.access_token)).account, 'alice');
  assert.equal(await provider.verify('nonsense'), null);

  const second = await refresh(first.refresh_token);
  assert.equal(second.status, 200);
  assert.notEqual(second.body.refresh_token, first.refresh_token);
  assert.equal(await provider.accepts(first.refresh_token), false);
  assert.equal(await provider.accepts(second.body.refresh_token), true);

  const reuse = await refresh(first.refresh_token);
  assert.equal(reuse.status, 400);
  assert.equal(reuse.body.error, 'invalid_grant');
  assert.equal((await refresh(second.body.refresh_token)).status, 400, 'the whole family is dead');

  assert.equal(provider.count({ type: 'success', grantType: 'authorization_code', account: 'alice' }), 1);
  assert.equal(provider.count({ type: 'success', grantType: 'refresh_token', account: 'alice' }), 1);
  assert.equal(provider.count({ type: 'error', grantType: 'refresh_token' }), 2);
  assert.equal(provider.count({ type: 'revoked', account: 'alice' }), 1);
  t.diagnostic('1 sign-in, 1 rotation, 2 refused refreshes, 1 revoked grant');
});

test('the provider: device flow, and access tokens that are revoked', async (t) => {
  const provider = await startProvider();
  t.after(() => provider.stop());
  const start = await deviceRequest(provider, { scope: 'openid profile offline_access User.Read' });
  assert.equal(start.status, 200, JSON.stringify(start.body));
  const poll = () => tokenRequest(provider, {
    grant_type: 'urn:ietf:params:oauth:grant-type:device_code', device_code: start.body.device_code,
  });
  assert.equal((await poll()).body.error, 'authorization_pending');

  const last = await follow(cookieJar(), start.body.verification_uri_complete, ['', '', 'bob']);
  assert.match(last.text, /id="done"/);
  const done = await poll();
  assert.equal(done.status, 200);
  assert.equal((await provider.verify(done.body.access_token)).account, 'bob');
  assert.equal(await provider.revokeAccessTokens('bob'), 1);
  assert.equal(await provider.verify(done.body.access_token), null);
  assert.equal(await provider.accepts(done.body.refresh_token), true);
  t.diagnostic('1 pending poll, 1 grant, 1 revoked access token, the refresh token lives');
});
