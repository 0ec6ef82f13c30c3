// Microsoft's own library as the referee: what MSAL for Python accepts from the simulated Entra ID is Entra-shaped.
//
// MSAL speaks https only, so a TLS proxy with a certificate of a test CA stands in front of the sandbox.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BINARY, freePorts, launch, run } from '../harness.mjs';
import { recordSandbox } from '../recorder.mjs';
import { certificates, openssl, subject } from '../tls.mjs';

const PYTHON = fileURLToPath(new URL('../.venv/bin/python', import.meta.url));
const FLOWS = fileURLToPath(new URL('../msal/flows.py', import.meta.url));
const EXPECTED = [
  'client credentials, secret',
  'client credentials, certificate (PS256, x5t#S256)',
  'client credentials, the same assertion again',
  'client credentials, certificate (RS256, x5t)',
  'client credentials, federated token',
  'the refusal of a wrong secret',
  'authorization code with PKCE',
  'silent refresh',
  'a claims challenge after a revocation',
  'a step-up by signing in again',
  'the refusal of a revoked refresh token',
  'a token for the application itself',
  'on behalf of',
  'a token of its user at the proxy',
  'device code',
  'managed identity, App Service',
  'managed identity, IMDS',
];

test('MSAL for Python accepts the simulated Entra ID in every flow', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'bearerd-msal-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const file = (name) => path.join(directory, name);
  const identity = await certificates(directory);
  await openssl(directory, 'req', '-x509', ...subject('bearerd'), '-keyout', 'client.key', '-out', 'client.pem');

  const [port, , , , tlsPort] = await freePorts(5);
  const [entra, graph] = [port + 2, port + 3].map((at) => `http://127.0.0.1:${at}`);
  const origin = `https://localhost:${tlsPort}`;
  await listenWithTls(t, tlsPort, port + 2, identity);
  const arguments_ = ['--port-base', `${port}`, '--entra-origin', origin, '--client-certificate', file('client.pem')];
  const sandbox = launch(BINARY, ['sandbox', ...arguments_], { cwd: directory, env: { SSL_CERT_FILE: file('ca.pem') } });
  t.after(() => sandbox.stop());
  await sandbox.ready(`http://127.0.0.1:${port + 1}/readyz`);
  const said = await printed(sandbox, /client_id = "([^"]+)"[^]*secret = "([^"]+)"/);
  const [, tenant] = await printed(sandbox, /tenant = "([^"]+)"/);
  const fingerprint = await openssl(directory, 'x509', '-in', 'client.pem', '-noout', '-fingerprint', '-sha1');

  const started = Date.now();
  const flows = await run(PYTHON, [FLOWS], {
    cwd: directory,
    timeout: 60_000,
    env: {
      PATH: process.env.PATH,
      HOME: directory,
      NO_PROXY: '127.0.0.1,localhost',
      REQUESTS_CA_BUNDLE: file('ca.pem'),
      AUTHORITY: `${origin}/${tenant}`,
      SANDBOX: entra,
      GRAPH: graph,
      PROXY: `http://127.0.0.1:${port}`,
      CLIENT_ID: said[1],
      CLIENT_SECRET: said[2],
      KEY: file('client.key'),
      CERTIFICATE: file('client.pem'),
      THUMBPRINT: fingerprint.split('=')[1].replaceAll(':', '').trim(),
      IDENTITY_HEADER_VALUE: 'sandbox-identity-header',
    },
  });
  assert.equal(flows.code, 0, `${flows.stdout}\n${flows.stderr}`);
  await recordSandbox(graph);
  const accepted = flows.stdout.trim().split('\n').map((line) => line.replace(/^accepted: /, ''));
  assert.deepEqual(accepted, EXPECTED);
  t.diagnostic(`MSAL ran ${accepted.length} flows in ${((Date.now() - started) / 1000).toFixed(1)} s: ${accepted.join('; ')}`);

  // MSAL has no say in this: the sandbox saw each kind of credential.
  const seen = await (await fetch(`${entra}/_sandbox/requests`)).json();
  const credentials = new Set(seen.filter(({ outcome }) => outcome === '200').map(({ client_auth: auth }) => auth));
  assert.deepEqual([...credentials].sort(), ['Assertion', 'Federated', 'SecretPost']);
  const algorithms = seen.filter(({ client_auth: auth }) => auth === 'Assertion').map(({ client_assertion: shown }) => shown.header.alg);
  assert.deepEqual(algorithms, ['PS256', 'PS256', 'RS256']);
});

// Ends TLS and passes everything on.
async function listenWithTls(t, port, to, identity) {
  const server = https.createServer(identity, (request, response) => {
    const { method, url, headers } = request;
    const onward = http.request({ host: '127.0.0.1', port: to, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.rawHeaders);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  t.after(() => new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  }));
}

// What the sandbox prints at its start.
async function printed(sandbox, pattern) {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const found = pattern.exec(sandbox.output().stdout);
    if (found) return found;
    await new Promise((resolve) => { setTimeout(resolve, 25); });
  }
  return assert.fail(`not printed: ${pattern}\n${sandbox.output().stdout}`);
}
