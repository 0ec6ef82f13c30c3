// A grant got straight from the provider, as another program would have got it: what `accounts import` reads.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { cookieJar, follow } from './pages.mjs';
import { OTHER_REDIRECT, SCOPES } from './provider.mjs';

// Authorization code flow as `user`; answers the token endpoint's JSON.
export async function obtainGrant(provider, user) {
  const verifier = randomBytes(32).toString('base64url');
  const url = new URL(`${provider.issuer}/auth`);
  url.search = new URLSearchParams({
    client_id: provider.clientId,
    response_type: 'code',
    redirect_uri: OTHER_REDIRECT,
    scope: ['openid', 'profile', 'offline_access', ...SCOPES].join(' '),
    prompt: 'consent',
    state: 's',
    nonce: 'n',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  const last = await follow(cookieJar(), url.href, [user], (location) => location.startsWith(OTHER_REDIRECT));
  const code = new URL(last.url).searchParams.get('code');
  assert.ok(code, last.url);
  const reply = await tokenRequest(provider, {
    grant_type: 'authorization_code', code, redirect_uri: OTHER_REDIRECT, code_verifier: verifier,
  });
  assert.equal(reply.status, 200, JSON.stringify(reply.body));
  return reply.body;
}

// One request to the token endpoint with the client's secret.
export const tokenRequest = (provider, form) => post(`${provider.issuer}/token`, provider, form);

// The start of a device flow.
export const deviceRequest = (provider, form) => post(`${provider.issuer}/device/auth`, provider, form);

async function post(url, provider, form) {
  const credential = { client_id: provider.clientId, client_secret: provider.clientSecret };
  const response = await fetch(url, { method: 'POST', body: new URLSearchParams({ ...credential, ...form }) });
  return { status: response.status, body: await response.json() };
}
