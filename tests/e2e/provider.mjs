// A certified OpenID provider (npm oidc-provider) in this process: rotates refresh tokens strictly (or as it is told), revokes
// the whole grant when a used one comes back, and writes down everything that its token endpoint was asked. It can be out of
// order in several ways.

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import http from 'node:http';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';

// oidc-provider prefers a newer Node.js and says so on import; the suite is run on 20 as well.
const warn = process.emitWarning;
const { warn: consoleWarn, info: consoleInfo } = console;
console.warn = () => {};
console.info = () => {};
process.emitWarning = () => {};
const { default: Provider } = await import('oidc-provider');
process.emitWarning = warn;
Object.assign(console, { warn: consoleWarn, info: consoleInfo });

export const USERS = {
  alice: { name: 'Alice Adams', preferred_username: 'alice@contoso.example' },
  bob: { name: 'Bob Baker', preferred_username: 'bob@contoso.example' },
  carol: { name: 'Carol Clark', preferred_username: 'carol@contoso.example' },
};
// Those, and `user1`, `user2` and so on, as many as a test likes.
const userOf = (id) => USERS[id]
  ?? (/^user\d+$/.test(id) ? { name: id, preferred_username: `${id}@contoso.example` } : undefined);

// What the provider does with refresh tokens, and the configuration's word for it.
export const ROTATIONS = {
  // A new one each time; a used one that comes back ends the grant.
  strict: 'strict',
  // The same one each time.
  same: 'tolerant',
  // The same one, and it is not said again: a reply to a refresh has no refresh token.
  silent: 'tolerant',
  // As strict, but the token before the current one is taken for ten seconds more.
  grace: 'grace:10s',
};
const GRACE_MILLIS = 10_000;

export const SCOPES = ['User.Read', 'Mail.Read'];
// A second redirect URI of the client: grants that bearerd has not made (see grant.mjs).
export const OTHER_REDIRECT = 'http://127.0.0.1:9/callback';
export const TENANT = '11111111-2222-4333-8444-555555555555';

// Starts the provider on 127.0.0.1. `redirectUris`: of the one client, `bearerd`. `accessTokenSeconds`: an access token's life,
// or a function of the account that says it. `rotation`: one of ROTATIONS.
export async function startProvider({ port = 0, redirectUris = [], accessTokenSeconds = 3600, rotation = 'strict' } = {}) {
  const server = http.createServer();
  const listen = (on) => new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(on, '127.0.0.1', () => { server.off('error', reject); resolve(); });
  });
  await listen(port);
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const clientSecret = randomBytes(32).toString('base64url');

  // It forgets nothing before `verify` has said so.
  const memory = createMemoryAdapter(60);
  const adapter = rotation === 'grace' ? withGrace(memory) : memory;
  const provider = new Provider(issuer, {
    adapter,
    jwks: { keys: [signingKey()] },
    clients: [{
      client_id: 'bearerd',
      client_secret: clientSecret,
      client_name: 'bearerd',
      redirect_uris: [...redirectUris, OTHER_REDIRECT],
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_post',
    }],
    scopes: ['openid', 'offline_access', 'profile', ...SCOPES],
    claims: { openid: ['sub', 'oid', 'tid'], profile: ['name', 'preferred_username'] },
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    rotateRefreshToken: rotation === 'strict' || rotation === 'grace',
    ttl: {
      AccessToken: (_ctx, token) => (typeof accessTokenSeconds === 'function' ? accessTokenSeconds(token.accountId) : accessTokenSeconds),
      AuthorizationCode: 60,
      DeviceCode: 600,
      Grant: 86_400,
      IdToken: 600,
      Interaction: 600,
      RefreshToken: 86_400,
      Session: 3600,
    },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    features: {
      devInteractions: { enabled: false },
      resourceIndicators: { enabled: false },
      revocation: { enabled: true },
      introspection: { enabled: true },
      deviceFlow: {
        enabled: true,
        userCodeInputSource: (ctx, form, _out, error) => {
          ctx.body = page('Enter the code', `${form}${error ? '<p>That code was not accepted.</p>' : ''}
            <button type="submit" form="op.deviceInputForm">Next</button>`);
        },
        userCodeConfirmSource: (ctx, form, client, _device, code) => {
          ctx.body = page(`Is ${code} the code that ${client.clientName} shows?`,
            `${form}<button type="submit" form="op.deviceConfirmForm">Yes</button>`);
        },
        successSource: (ctx) => { ctx.body = page('Done', '<p id="done">You may close this page.</p>'); },
      },
    },
    interactions: { url: (_ctx, interaction) => `/signin/${interaction.uid}` },
    findAccount: (_ctx, id) => userOf(id) && {
      accountId: id,
      claims: () => ({ sub: id, oid: objectId(id), tid: TENANT, ...userOf(id) }),
    },
    renderError: (ctx, out) => { ctx.body = page('Error', `<pre>${out.error}: ${out.error_description}</pre>`); },
  });

  provider.use(async (ctx, next) => {
    await next();
    if (rotation === 'silent' && ctx.oidc?.params?.grant_type === 'refresh_token') delete ctx.body.refresh_token;
  });

  const log = journal(provider);
  const callback = provider.callback();
  let outage = null;
  let outageOf = null;
  let held = null;
  server.on('request', (request, response) => {
    const endpoint = request.url.split('?')[0];
    if (request.method === 'POST') log.record({ type: 'asked', endpoint, outage });
    if (outage && endpoint.startsWith(outageOf)) return outOfOrder(outage, log, response);
    if (held && request.method === 'POST' && endpoint === '/token') {
      const end = response.end.bind(response);
      response.end = (...answer) => { held?.push(() => end(...answer)) ?? end(...answer); return response; };
    }
    if (!request.url.startsWith('/signin/')) return callback(request, response);
    return signin(provider, request, response).catch((error) => {
      response.writeHead(500, { 'content-type': 'text/plain' }).end(`the test's sign-in page failed: ${error.message}`);
    });
  });

  return {
    issuer,
    clientId: 'bearerd',
    clientSecret,
    ...log,

    // Who an access token stands for, or null. Allows a second, as every resource server allows some: a token's life starts
    // later for those who had to wait for it.
    async verify(token) {
      const found = token && await adapter('AccessToken').find(token);
      if (!found) return null;
      const issued = log.issuedAt(token) ?? found.iat * 1000;
      return Date.now() <= issued + (found.exp - found.iat + 1) * 1000 ? { account: found.accountId, issued } : null;
    },

    // Makes every access token of `account` worthless; its refresh token lives on.
    async revokeAccessTokens(account) {
      const tokens = log.accessTokens(account);
      for (const token of tokens) await adapter('AccessToken').destroy(token);
      return tokens.length;
    },

    // Whether a refresh token would be accepted, without using it.
    async accepts(refreshToken) {
      const found = await adapter('RefreshToken').find(refreshToken);
      return Boolean(found && !found.consumed && await adapter('Grant').find(found.grantId));
    },

    // Is out of order from now on, in one of these ways: a status (with a page of HTML), 'refuses' connections, 'hangs', answers
    // 'garbage'. `of`: paths that start so. `null` ends the outage.
    async setOutage(kind, of = '/') {
      const listens = outage !== 'refuses';
      outage = kind;
      outageOf = of;
      if (kind === 'refuses' && listens) await new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); });
      if (kind !== 'refuses' && !listens) await listen(new URL(issuer).port);
      // Whoever is still waiting for an answer won't get one.
      if (kind === null) server.closeAllConnections();
    },

    // From now on the token endpoint does its work and says nothing, until somebody releases it.
    holdAnswers() { held = []; },
    releaseAnswers() { const answers = held ?? []; held = null; for (const answer of answers) answer(); },

    stop: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
  };
}

// An answer that is none.
function outOfOrder(kind, log, response) {
  if (typeof kind === 'number') return response.writeHead(kind, { 'content-type': 'text/html' }).end('<h1>out of order</h1>');
  if (kind === 'hangs') return undefined;
  const answers = [
    () => response.socket.end('no HTTP at all\r\n\r\n'),
    () => response.writeHead(200, { 'content-type': 'application/json' }).end('{"access_token":"ey'),
    () => response.writeHead(200, { 'content-type': 'application/json' }).end('[]'),
    () => { response.writeHead(200, { 'content-type': 'application/json', 'content-length': 4096 }); response.write('{'); response.socket.end(); },
  ];
  return answers[log.count({ outage: kind }) % answers.length]();
}

// The newest token that was used is taken as if it were not, for a while: whoever lost the answer may ask again.
function withGrace(memory) {
  const used = new Map();
  return (model) => {
    const adapter = memory(model);
    if (model !== 'RefreshToken') return adapter;
    const { find, consume } = { find: adapter.find.bind(adapter), consume: adapter.consume.bind(adapter) };
    adapter.consume = async (id) => {
      const { grantId, rotations = 0 } = await find(id);
      const newest = used.get(grantId);
      if (!newest || newest.rotations < rotations) used.set(grantId, { rotations, at: Date.now() });
      return consume(id);
    };
    adapter.find = async (id) => {
      const token = await find(id);
      const newest = used.get(token?.grantId);
      const again = token?.consumed && newest?.rotations === (token.rotations ?? 0) && Date.now() - newest.at < GRACE_MILLIS;
      return again ? { ...token, consumed: undefined } : token;
    };
    return adapter;
  };
}

// What the token endpoint was asked and what it answered, and every secret that went through it.
function journal(provider) {
  const entries = [];
  const secrets = new Map();
  const tokens = new Map();
  const listeners = new Set();
  const remember = (kind, value) => { if (value) secrets.set(value, kind); };

  const record = (said) => {
    const entry = { at: Date.now(), ...said };
    entries.push(entry);
    for (const listener of listeners) listener(entry);
  };
  const take = (ctx) => {
    const parameters = ctx.oidc?.params ?? {};
    remember('client secret', parameters.client_secret);
    remember('authorization code', parameters.code);
    remember('code verifier', parameters.code_verifier);
    remember('refresh token', parameters.refresh_token);
    remember('device code', parameters.device_code);
    return { grantType: shortName(parameters.grant_type), account: accountOf(ctx), scope: parameters.scope };
  };

  provider.on('grant.success', (ctx) => {
    const asked = take(ctx);
    const { access_token: accessToken, refresh_token: refreshToken, id_token: idToken } = ctx.body;
    remember('access token', accessToken);
    remember('refresh token', refreshToken);
    remember('identity token', idToken);
    const issued = Date.now();
    tokens.set(accessToken, { account: asked.account, issued });
    record({ type: 'success', ...asked, issued, expires: issued + ctx.body.expires_in * 1000, presented: ctx.oidc.params.refresh_token, refreshToken });
  });
  provider.on('grant.error', (ctx, error) => {
    record({ type: 'error', ...take(ctx), presented: ctx.oidc?.params?.refresh_token, error: error.error, detail: error.error_detail });
  });
  provider.on('grant.revoked', (ctx) => record({ type: 'revoked', account: accountOf(ctx) }));
  provider.on('server_error', (_ctx, error) => record({ type: 'server_error', error: error.stack }));

  const select = (filter) => entries.filter((entry) => Object.entries(filter).every(([key, value]) => entry[key] === value));
  return {
    record,
    entries,
    secrets,
    count: (filter) => select(filter).length,
    select,
    issuedAt: (token) => tokens.get(token)?.issued,
    accessTokens: (account) => [...tokens].filter(([, held]) => held.account === account).map(([token]) => token),
    // Resolves at the next entry that `matches`.
    next: (matches) => new Promise((resolve) => {
      const listener = (entry) => {
        if (!matches(entry)) return;
        listeners.delete(listener);
        resolve(entry);
      };
      listeners.add(listener);
    }),
  };
}

// The provider's own sign-in page: a button for each user. Consent is given with the sign-in.
async function signin(provider, request, response) {
  const details = await provider.interactionDetails(request, response);
  if (request.method !== 'POST') {
    const buttons = Object.keys(USERS).map((user) => `<button name="user" value="${user}">Sign in as ${user}</button>`);
    response.writeHead(200, { 'content-type': 'text/html' });
    return response.end(page('Contoso', `<form method="post">${buttons.join(' ')}</form>`));
  }
  const body = [];
  for await (const chunk of request) body.push(chunk);
  const accountId = new URLSearchParams(Buffer.concat(body).toString()).get('user');
  const grant = new provider.Grant({ accountId, clientId: details.params.client_id });
  grant.addOIDCScope(details.params.scope);
  const result = { login: { accountId }, consent: { grantId: await grant.save() } };
  return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

const accountOf = (ctx) => ctx.oidc?.entities?.Account?.accountId
  ?? ctx.oidc?.entities?.RefreshToken?.accountId ?? ctx.oidc?.entities?.Grant?.accountId;

const shortName = (grantType) => grantType?.split(':').pop();

function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: randomBytes(8).toString('hex') };
}

// A stable GUID for a user.
function objectId(user) {
  const hex = createHash('sha256').update(user).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

const page = (title, content) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${content}</html>`;
