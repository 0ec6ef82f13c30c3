// Old and plain HTTP clients behind one function each: `ask(method, url, { media, file })` sends a request as the client does it and answers
// { status, body }. Command-line programs run once for a request; the others are small programs that take requests line by line.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';
import { run, within } from './harness.mjs';

const program = (name) => fileURLToPath(new URL(`clients/${name}`, import.meta.url));
const PYTHON = fileURLToPath(new URL('.venv/bin/python', import.meta.url));
// By which name applications know Graph that are set up with an HTTP proxy.
export const GRAPH_BY_PROXY = 'http://graph.microsoft.com';

// `retries`: throttled, it waits as it is told and tries once more by itself, whatever the method. `proxied`: it believes that it talks to Graph.
export const CLIENTS = [
  { name: 'curl, HTTP/1.1', start: curl('1.1', ['--http1.1', '-L', '--retry', '1']), retries: true },
  { name: 'curl, HTTP/1.0', start: curl('1', ['--http1.0', '-L', '--retry', '1']), retries: true },
  // Its own retry fails, on the connection that it has kept.
  { name: 'curl, HTTP/2 with prior knowledge', start: curl('2', ['--http2-prior-knowledge']) },
  { name: 'curl -x', start: curl('1.1', ['-L', '--retry', '1']), retries: true, proxied: true },
  { name: 'wget', start: wget },
  { name: 'wget with http_proxy', start: wget, proxied: true },
  { name: 'LWP', start: lines('perl', program('worker.pl'), 'lwp') },
  { name: 'HTTP::Tiny', start: lines('perl', program('worker.pl'), 'tiny') },
  { name: 'PHP streams', start: lines('php', program('worker.php')) },
  { name: 'HttpURLConnection', start: lines('java', '-Xmx128m', program('Worker.java'), 'classic') },
  { name: 'java.net.http', start: lines('java', '-Xmx128m', program('Worker.java'), 'modern') },
  { name: 'Python urllib', start: lines(PYTHON, program('worker.py'), 'urllib') },
  { name: 'Python requests', start: lines(PYTHON, program('worker.py'), 'requests'), retries: true },
  { name: 'Python requests with http_proxy', start: lines(PYTHON, program('worker.py'), 'requests'), retries: true, proxied: true },
];

// Starts a client on behalf of `user`. Ends with the test `t`.
export function startClient(t, { start, proxied }, { url, user, key, directory }) {
  const base = proxied ? GRAPH_BY_PROXY : url;
  const env = {
    PATH: process.env.PATH, HOME: directory, BASE: base, CLIENT_USER: user, CLIENT_KEY: key, REALM: 'bearerd',
    // Where downloads come from is no host that a proxy would know; without a proxy these say nothing.
    ...(proxied && { http_proxy: url, no_proxy: 'localhost' }),
  };
  return { base, ...start(t, { env, directory }) };
}

function curl(version, flags) {
  return (t, { env, directory }) => {
    const kept = path.join(directory, 'curl-body');
    const ask = async (method, url, { media, file } = {}) => {
      const ours = url.startsWith(env.BASE);
      const upload = file && (method === 'PUT' ? chunked(version, file) : ['--data-binary', `@${file}`, '-X', method]);
      const command = [
        '-sS', '--max-time', '30', '-o', kept, '-w', '%{http_code} %{http_version} %{redirect_url}',
        ...(ours ? ['-u', `${env.CLIENT_USER}:${env.CLIENT_KEY}`, ...flags] : []),
        ...(upload ? [...upload, '-H', `Content-Type: ${media}`] : ['-X', method]), url,
      ];
      await rm(kept, { force: true });
      const words = command.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
      const done = await run('sh', ['-c', upload?.includes('-') ? `cat '${file}' | curl ${words}` : `curl ${words}`], { env });
      assert.equal(done.code, 0, `${words}: ${done.stderr}`);
      const [status, spoken, redirect] = done.stdout.split(' ');
      // Every version but the last speaks it to the other origin as well.
      if (redirect) return ask('GET', redirect);
      if (ours && method !== 'GET') assert.equal(spoken, version);
      return { status: Number(status), body: existsSync(kept) ? await readFile(kept) : Buffer.alloc(0) };
    };
    return { ask };
  };
}

// From a pipe in chunks, after a 100; HTTP/1.0 has neither.
const chunked = (version, file) => (version === '1' ? ['-T', file] : ['-T', '-', '-H', 'Expect: 100-continue']);

function wget(t, { env, directory }) {
  const kept = path.join(directory, 'wget-body');
  const ask = async (method, url, { media, file } = {}) => {
    const credential = url.startsWith(env.BASE) ? [`--user=${env.CLIENT_USER}`, `--password=${env.CLIENT_KEY}`] : [];
    const body = file ? [`--body-file=${file}`, `--header=Content-Type: ${media}`] : [];
    await rm(kept, { force: true });
    const done = await run('wget', [
      '-S', '-nv', '--no-hsts', '--tries=1', '--timeout=30', '--content-on-error', ...credential, `--method=${method}`, ...body, '-O', kept, url,
    ], { env });
    const statuses = [...done.stderr.matchAll(/^\s*HTTP\/1\.1 (\d+)/gm)];
    assert.ok(statuses.length, `wget ${url}: ${done.stderr}`);
    return { status: Number(statuses.at(-1)[1]), body: await readFile(kept) };
  };
  return { ask };
}

function lines(...command) {
  return (t, { env, directory }) => {
    const [file, ...args] = command;
    const child = spawn(file, args, { env, stdio: ['pipe', 'pipe', 'pipe'] });
    let complaints = '';
    child.stderr.on('data', (chunk) => { complaints += chunk; });
    const ended = new Promise((resolve, reject) => { child.once('error', reject); child.once('close', resolve); });
    t.after(() => {
      child.stdin.end();
      const insist = setTimeout(() => child.kill('SIGKILL'), 10_000);
      return ended.finally(() => clearTimeout(insist));
    });
    const answers = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const kept = path.join(directory, `body-${child.pid}`);
    const ask = async (method, url, { media, file: sent } = {}) => {
      child.stdin.write(`${[method, url, media ?? '-', sent ?? '-', kept].join('\t')}\n`);
      const { value } = await within(60, `${command.at(-1)}: ${method} ${url}`, answers.next());
      assert.match(value ?? '', /^\d{3}$/, `${method} ${url}: ${complaints}`);
      return { status: Number(value), body: await readFile(kept) };
    };
    return { ask };
  };
}
