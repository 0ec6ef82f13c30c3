// What a run puts load on: a simulated tenant and, for each scenario, a new bearerd with a store of its own, on 127.0.0.1 and in a
// temporary directory; or a deployment of the user's. Both look the same to a scenario.

import { randomInt } from 'node:crypto';
import { createReadStream, existsSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { run, start, stop } from './children.mjs';

export const BINARY = process.env.BEARERD_BIN ?? fileURLToPath(new URL('../../target/release/bearerd', import.meta.url));
// Production builds leave the sandbox out; another build can play the tenant for them.
const SANDBOX = process.env.SANDBOX_BIN ?? BINARY;

// The sandbox's users, counted from 0.
export const userName = (index) => ['alice', 'bob', 'carol'][index] ?? `user${String(index + 1).padStart(3, '0')}`;

// The simulated tenant with so many users.
export async function startSandbox(users) {
  const directory = await mkdtemp(path.join(tmpdir(), 'bearerd-load-'));
  const base = await freeBase();
  const child = start(SANDBOX, ['sandbox', '--tenant-only', '--users', String(users), '--port-base', String(base)]);
  const [entra, graph] = [`http://127.0.0.1:${base + 2}`, `http://127.0.0.1:${base + 3}`];
  const said = keep(child);
  // It listens before it has said everything.
  const told = async () => said().includes('url = ') && (await ask(`${graph}/_sandbox/leaks`));
  await until(told, () => `the sandbox does not start: ${said()}`, child);
  const value = (name) => new RegExp(`^ *${name} = "(.*)"`, 'm').exec(said())[1];
  const secret = /secret = "(.*?)"/.exec(said())[1];

  const control = async (request, body = '') => {
    const answer = await fetch(`${entra}/_sandbox/${request}`, { method: 'POST', body });
    if (!answer.ok) throw new Error(`the sandbox refuses ${request}: ${await answer.text()}`);
  };
  return {
    directory,
    pid: child.pid,
    tenant: value('tenant'),
    clientId: value('client_id'),
    secret,
    entra,
    graph,
    fault: (list) => control('fault', list),
    calm: () => control('fault'),
    clear: () => control('clear'),
    revokeAccess: (user) => control(`revoke?user=${user}&what=access`),
    tokenRequests: async () => (await fetch(`${entra}/_sandbox/requests`)).json(),
    // Rows for `accounts import`, of the users from `skip` on.
    grants: async (skip, count) => {
      const text = await (await fetch(`${entra}/_sandbox/grants?skip=${skip}&count=${count}`)).text();
      return text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
    },
    stop: async () => {
      await stop(child);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

// A bearerd of our own, with these rows as its accounts; `limits`: lines of `[server.limits]`.
export async function startBearerd(sandbox, name, rows, limits = 'requests = 8192') {
  const directory = path.join(sandbox.directory, name);
  await mkdir(path.join(directory, 'data'), { recursive: true, mode: 0o700 });
  const base = await freeBase();
  const [url, adminUrl] = [`http://127.0.0.1:${base}`, `http://127.0.0.1:${base + 1}`];
  const config = path.join(directory, 'bearerd.toml');
  const tool = async (...args) => {
    const done = await run(BINARY, args, { cwd: directory });
    if (done.code !== 0) throw new Error(`bearerd ${args.slice(0, 2).join(' ')}: ${done.stderr || done.stdout}`);
    return done.stdout;
  };
  const client = JSON.parse(await tool('clients', 'new', 'load', '--format', 'json'));
  // The limits that stand in the way of a load test are raised, the rest is as it comes.
  await writeFile(config, `
[server]
listen = "127.0.0.1:${base}"
[server.limits]
connections = 65000
${limits}
header_timeout = "10m"
[admin]
listen = "127.0.0.1:${base + 1}"
[store]
path = "data"
key_file = "data/store.key"
[providers.entra]
kind = "entra"
authority = "${sandbox.entra}"
tenant = "${sandbox.tenant}"
client_id = "${sandbox.clientId}"
credentials = [{ secret = "${sandbox.secret}" }]
[upstreams.graph]
url = "${sandbox.graph}"
scopes = ["User.Read", "Mail.ReadWrite", "Mail.Send", "Files.ReadWrite"]
[[clients]]
name = "load"
key_hash = "${client.key_hash}"
accounts = ["*"]
[log]
format = "json"
`, { mode: 0o600 });
  const file = path.join(directory, 'rows.jsonl');
  await writeFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''), { mode: 0o600 });
  await tool('accounts', 'import', file, '--no-verify', '--config', config);
  await rm(file);

  const log = path.join(directory, 'access.log');
  const child = start(BINARY, ['serve', '--config', config], { cwd: directory, stdio: ['ignore', 'ignore', openSync(log, 'a', 0o600)] });
  await until(() => ask(`${adminUrl}/readyz`), () => `bearerd does not start, see ${log}`, child);
  return {
    pid: child.pid,
    url,
    headers: { authorization: `Bearer ${client.key}` },
    target: (account, target) => `${url}/as/${account}${target}`,
    metrics: async () => (await fetch(`${adminUrl}/metrics`, { signal: AbortSignal.timeout(3000) })).text(),
    log: () => readLog(log),
    alive: () => child.exitCode === null && child.signalCode === null,
    stop: async () => {
      await stop(child, 40);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

// The user's own.
export async function deployment(wanted) {
  const secret = async (file) => (file === undefined ? undefined : (await readFile(file, 'utf8')).trim());
  const key = wanted.key ?? (await secret(wanted.keyFile));
  const token = await secret(wanted.adminTokenFile);
  return {
    pid: wanted.pid,
    url: wanted.url,
    headers: key ? { authorization: `Bearer ${key}` } : {},
    target: (account, target) => `${wanted.url}${account === undefined ? '' : `/as/${encodeURIComponent(account)}`}${target}`,
    metrics: async () => {
      if (!wanted.adminUrl) return null;
      const headers = token ? { authorization: `Bearer ${token}` } : {};
      const answer = await fetch(`${wanted.adminUrl}/metrics`, { headers, signal: AbortSignal.timeout(3000) });
      return answer.ok ? answer.text() : null;
    },
    log: async () => null,
    alive: () => true,
    stop: async () => {},
  };
}

// What the access log tells: how the requests ended, and for how many accounts they were.
async function readLog(file) {
  const ends = {};
  const accounts = new Set();
  for await (const line of createInterface({ input: createReadStream(file), crlfDelay: Infinity })) {
    if (!line.includes('bearerd::access')) continue;
    const event = JSON.parse(line);
    const fields = event.fields ?? event;
    const end = fields.error ? `${fields.status} ${fields.error}` : String(fields.status);
    ends[end] = (ends[end] ?? 0) + 1;
    if (fields.account) accounts.add(fields.account);
  }
  return { ends, accounts: accounts.size };
}

const ask = (url) => fetch(url, { signal: AbortSignal.timeout(2000) }).then((answer) => answer.ok);

async function until(check, complaint, child) {
  const end = Date.now() + 30_000;
  while (Date.now() < end && child.exitCode === null && !child.failure) {
    if (await check().catch(() => false)) return;
    await sleep(50);
  }
  throw new Error(complaint());
}

function keep(child) {
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => { text = (text + chunk).slice(-10_000); });
  return () => text;
}

// The first of four ports in a row that are free now, below those that the system gives to connections.
async function freeBase() {
  for (let tries = 0; tries < 50; tries += 1) {
    const base = randomInt(12_000, 30_000);
    const free = await Promise.all([0, 1, 2, 3].map((offset) => isFree(base + offset)));
    if (free.every(Boolean)) return base;
  }
  throw new Error('there are no free ports');
}

function isFree(port) {
  return new Promise((resolve) => {
    const server = net.createServer().once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

export const built = () => existsSync(BINARY);
