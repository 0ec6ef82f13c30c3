// Starts the real binary on a configuration of its own in a directory of its own, and stops it by process id.
//
// Nothing here waits without a bound, and nothing passes on an exit code alone: output is kept for the tests to read.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { existsSync } from 'node:fs';
import http from 'node:http';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { obtainGrant } from './grant.mjs';
import { cookieJar, follow } from './pages.mjs';
import { ROTATIONS, SCOPES, startProvider } from './provider.mjs';
import { startUpstream } from './upstream.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const BINARY = process.env.BEARERD_BIN ?? path.join(ROOT, 'target/debug/bearerd');
// The same, built with the feature `fault-points`.
export const FAULTY_BINARY = process.env.BEARERD_FAULT_BIN ?? path.join(ROOT, 'target/e2e/bearerd-fault-points');

// A provider, an API and a configuration that joins them. `serve()` starts bearerd on it; everything ends with the test `t`.
// `rotation`: what the provider does with refresh tokens, one of ROTATIONS. `api`: starts the API, told how to know whose a token is; or its
// URL. `tls`: files of a certificate for localhost, which clients then reach the proxy by. `hosts`: further names of the proxy.
export async function world(t, {
  accessTokenSeconds, rotation = 'strict', accounts = ['alice', 'bob'], log = 'info', env = {}, api = startUpstream, tls, hosts = [],
} = {}) {
  const directory = await mkdtemp(path.join(tmpdir(), 'bearerd-e2e-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const [port, adminPort, providerPort] = await freePorts(3);
  const url = tls ? `https://localhost:${port}` : `http://127.0.0.1:${port}`;
  const redirectUris = [`${url}/.bearerd/callback/idp`];
  const provider = await startProvider({ port: providerPort, redirectUris, accessTokenSeconds, rotation });
  t.after(() => provider.stop());
  const upstream = typeof api === 'string' ? { url: api } : await api(provider.verify);
  t.after(() => upstream.stop?.());

  const config = path.join(directory, 'bearerd.toml');
  const store = path.join(directory, 'data');
  const cli = (args, options = {}) => bearerd([...args, '--config', config], { cwd: directory, ...options });

  // `clients new` needs no configuration yet.
  const made = await bearerd(['clients', 'new', 'payroll', '--format', 'json'], { cwd: directory });
  assert.equal(made.code, 0, made.stderr);
  const client = JSON.parse(made.stdout);
  assert.match(client.key_hash, /^sha256:[0-9a-f]{64}$/);

  const secretFile = path.join(directory, 'provider-secret');
  await writeFile(secretFile, `${provider.clientSecret}\n`, { mode: 0o600 });
  await mkdir(store, { mode: 0o700 });
  await writeFile(config, `
[server]
listen = "127.0.0.1:${port}"
public_url = "${url}"
allowed_hosts = ${JSON.stringify(hosts)}
${tls ? `tls = { cert_file = "${tls.cert}", key_file = "${tls.key}" }` : ''}

[admin]
listen = "127.0.0.1:${adminPort}"

[signin]
mode = "invite"
device_code = true

[store]
path = "${store}"
key_file = "${store}/store.key"

[providers.idp]
kind = "oidc"
issuer = "${provider.issuer}"
client_id = "${provider.clientId}"
credentials = [ { secret_file = "${secretFile}" } ]
rotation = "${ROTATIONS[rotation]}"

[upstreams.graph]
url = "${upstream.url}"
provider = "idp"
scopes = ${JSON.stringify(SCOPES)}

[[clients]]
name = "payroll"
key_hash = "${client.key_hash}"
accounts = ${JSON.stringify(accounts)}

[log]
level = "${log}"
format = "json"
`, { mode: 0o600 });

  return {
    directory,
    store,
    config,
    url,
    adminUrl: `http://127.0.0.1:${adminPort}`,
    provider,
    upstream,
    clientKey: client.key,
    cli,
    basic: (alias) => `Basic ${Buffer.from(`${alias}:${client.key}`).toString('base64')}`,

    // Starts the server and waits until it is ready.
    async serve({ binary = BINARY, env: more = {} } = {}) {
      const started = Date.now();
      const server = launch(binary, ['serve', '--config', config], { cwd: directory, env: { ...env, ...more } });
      t.after(() => server.stop());
      await server.ready(`http://127.0.0.1:${adminPort}/readyz`);
      return Object.assign(server, { startMillis: Date.now() - started });
    },

    // A single-use sign-in link, as an operator gets it.
    async link(alias) {
      const made = await cli(['login', '--account', alias, '--link']);
      assert.equal(made.code, 0, made.stderr);
      const [link] = /https?:\/\/\S+/.exec(made.stdout) ?? [];
      assert.ok(link?.startsWith(`${url}/.bearerd/`), `no link in ${JSON.stringify(made.stdout)}`);
      return link;
    },

    // Signs `alias` in through the pages, without a browser. Answers the last page.
    async signIn(alias, user = alias) {
      return follow(cookieJar(), await this.link(alias), ['', user]);
    },

    // Brings grants that were made elsewhere, without proving them. Of each, `tokens` answers the rest of its row: nothing, or an
    // access token with the end that bearerd shall believe in.
    async importGrants(users, tokens = () => ({})) {
      const grants = await Promise.all(users.map((user) => obtainGrant(provider, user)));
      const rows = users.map((user, index) => ({
        alias: user, provider: 'idp', oid: user, refresh_token: grants[index].refresh_token, scopes: SCOPES, ...tokens(grants[index], user),
      }));
      const file = path.join(directory, 'rows.jsonl');
      await writeFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''), { mode: 0o600 });
      const done = await cli(['accounts', 'import', file, '--no-verify']);
      assert.equal(done.code, 0, done.stderr);
      await rm(file);
    },

    // A request as `alias`, on a connection of its own (unless an agent is given): what a test has to know of its answer.
    async ask(alias, target = '/v1.0/me', options = {}) {
      const from = Date.now();
      const { status, headers, body } = await get(`${url}${target}`, { headers: { authorization: this.basic(alias) }, ...options });
      return {
        status,
        error: headers['bearerd-error'],
        retryAfter: headers['retry-after'],
        signinUrl: headers['bearerd-signin-url'],
        millis: Date.now() - from,
        body: JSON.parse(body),
      };
    },

    // `accounts show`, as JSON.
    async account(alias) {
      const shown = await cli(['accounts', 'show', alias, '--format', 'json']);
      assert.equal(shown.code, 0, shown.stderr);
      return JSON.parse(shown.stdout);
    },
  };
}

// For `importGrants`: the access token of a grant as it is. Nobody knows when it was made.
export const livingToken = ({ access_token: token, expires_in: life }) => (
  { access_token: token, expires_at: Math.floor(Date.now() / 1000) + life });

// Runs the binary to its end.
export function bearerd(args, { binary = BINARY, timeout = 60_000, ...options } = {}) {
  isBuilt(binary);
  return run(binary, args, { timeout, env: cleanEnvironment(options.env), cwd: options.cwd });
}

// Runs a program to its end: exit code, signal, standard output and error.
export async function run(program, args, { timeout = 60_000, env = process.env, cwd } = {}) {
  const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
  const output = collect(child);
  const timer = setTimeout(() => child.kill('SIGKILL'), timeout);
  const { code, signal } = await exited(child).finally(() => clearTimeout(timer));
  return { code, signal, ...output() };
}

// Starts a program that stays. `ready` polls a URL; `stop` asks, then insists.
export function launch(program, args, { cwd, env } = {}) {
  isBuilt(program);
  const child = spawn(program, args, { cwd, env: cleanEnvironment(env), stdio: ['ignore', 'pipe', 'pipe'] });
  const output = collect(child);
  const exit = exited(child);
  const gone = () => child.exitCode !== null || child.signalCode !== null;
  return {
    pid: child.pid,
    output,
    exit,
    gone,
    async ready(url, seconds = 30) {
      const deadline = Date.now() + seconds * 1000;
      while (Date.now() < deadline) {
        if (gone()) assert.fail(`it ended before it was ready:\n${tail(output())}`);
        const answer = await get(url, { seconds: 5 }).catch(() => undefined);
        if (answer?.status === 200) return;
        await sleep(25);
      }
      assert.fail(`not ready at ${url} within ${seconds} s:\n${tail(output())}`);
    },
    // Waits until it ends by itself.
    ends: (what, seconds = 60) => within(seconds, what, exit),
    async kill() {
      child.kill('SIGKILL');
      await exit;
    },
    async stop() {
      if (gone()) return;
      child.kill('SIGTERM');
      const insist = setTimeout(() => child.kill('SIGKILL'), 15_000);
      await exit;
      clearTimeout(insist);
    },
  };
}

// One GET, answered within `seconds` or failed. A connection of its own unless an agent is given.
export function get(url, { headers = {}, agent = false, seconds = 30 } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { agent, headers }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => { body += chunk; });
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
      response.on('error', reject);
    });
    const timer = setTimeout(() => request.destroy(new Error(`no answer within ${seconds} s`)), seconds * 1000);
    request.on('close', () => clearTimeout(timer));
    request.on('error', reject);
  });
}

// What `promise` brings, if it does so within `seconds`.
export async function within(seconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new assert.AssertionError({ message: `not within ${seconds} s: ${what}` })), seconds * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Polls `probe` until it answers something true, at most `seconds`.
export async function eventually(what, seconds, probe, pause = 50) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    if (Date.now() > deadline) assert.fail(`not within ${seconds} s: ${what}`);
    await sleep(pause);
  }
}

// Ports below the range from which the system picks the local ends of connections. Nobody listens on them for a while, so each
// process has a part of the range for itself, and never gives the same port twice.
export async function freePorts(count) {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const first = FIRST_PORT + randomInt(PORTS - count);
    const ports = Array.from({ length: count }, (_, index) => first + index);
    if (ports.some((port) => given.has(port))) continue;
    for (const port of ports) given.add(port);
    const free = await Promise.all(ports.map(isFree));
    if (free.every(Boolean)) return ports;
  }
  return assert.fail('no free ports');
}

const PORTS = 400;
const FIRST_PORT = 20_000 + (process.pid % 25) * PORTS;
const given = new Set();

function isFree(port) {
  return new Promise((resolve) => {
    const probe = net.createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}

// Nothing of the caller's environment configures the binary under test.
function cleanEnvironment(extra) {
  return { PATH: process.env.PATH, HOME: tmpdir(), TZ: 'UTC', ...extra };
}

function isBuilt(binary) {
  assert.ok(existsSync(binary), `${binary} is missing: \`make test\` builds it`);
}

function collect(child) {
  const kept = { stdout: [], stderr: [] };
  for (const stream of Object.keys(kept)) child[stream].on('data', (chunk) => kept[stream].push(chunk));
  return () => ({ stdout: Buffer.concat(kept.stdout).toString(), stderr: Buffer.concat(kept.stderr).toString() });
}

function exited(child) {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal }));
  });
}

const tail = ({ stdout, stderr }) => `${stdout}\n${stderr}`.trim().split('\n').slice(-30).join('\n');
