// Every command of README and docs, as it stands there: each section of a document is a story, its blocks run one after the other in one
// shell, in a directory of their own. A block that can't run here says why, in a comment before it: `<!-- not run: needs a cluster -->`.
//
// Replaced are, alike in commands and files, the ports 8080 to 8083 (others may have them), /etc/bearerd, and what stands for a secret
// (`bk_...`, a refresh token `...`). What the reader's hands do is in ../reader.sh. What can be judged without running is in tests/it/docs.rs.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BINARY, freePorts } from '../harness.mjs';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const E2E = fileURLToPath(new URL('..', import.meta.url));

// What is there before a section begins and is looked at after it: shell, as in the documents. `shows`: what has to be among what is printed.
const TENANT = 'tenant';
const SERVER = "tenant\nbearerd clients new payroll --account '*'\nbearerd serve";
const SIGNED_IN = `${SERVER}\nbearerd login --account alice --link`;
const STORIES = {
  'README.md': {
    'The first answer': { before: 'bearerd sandbox', shows: [/"subject"/] },
    'With a real tenant': { before: TENANT, shows: [/configuration ok/, /"displayName":\s*"Alice/] },
  },
  'docs/migrating.md': {
    'A script with a pasted token': { before: TENANT, shows: [/"displayName":\s*"Alice/] },
    'A script that gets tokens for itself': { before: `${SERVER}\nrefresh_token alice > refresh-token`, shows: [/alice +active/, /"value"/] },
    'oauth2-proxy': { before: SERVER, shows: [/"subject"/] },
    'email-oauth2-proxy': {
      before: `${TENANT}\nPASSWORD=hunter2\nTOKEN=$(refresh_token alice) python3 "$E2E/emailproxy-config.py" "$PASSWORD" > emailproxy.config`,
      after: 'bearerd accounts list',
      shows: [/alice@\S+ +active/, /^\$argon2id\$v=19\$m=32768,t=2,p=1\$/m],
    },
    'MSAL token caches': { before: `${TENANT}\nmsal_cache > token_cache.json`, shows: [/alice\S* +active/] },
  },
  'docs/operations.md': {
    Files: { before: 'export HOME=$PWD' },
    Keys: { before: SERVER, after: 'bearerd keys status' },
    'What would this request meet?': { before: SIGNED_IN, shows: [/"sent":\s*true/] },
    'Admin API': { before: SIGNED_IN, shows: [/"status":\s*"active"/, /"url":\s*"http/, /"name":\s*"payroll"/, /"alias":\s*"carol"/] },
    Reload: { before: `${SIGNED_IN}\nTOKEN=unused`, shows: [/"outcome":\s*"unchanged"/] },
  },
  'docs/sandbox.md': { Faults: {} },
};

const documents = ['README.md', 'CONTRIBUTING.md', ...readdirSync(path.join(ROOT, 'docs'), { recursive: true })
  .filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)].sort();
const counts = { run: 0, left: 0 };

for (const file of documents) {
  const all = blocksOf(file);
  const sections = new Set(all.map(({ section }) => section));
  for (const section of sections) {
    const blocks = all.filter((block) => block.section === section);
    const commands = blocks.filter(({ language, reason }) => language === 'sh' && !reason);
    counts.run += commands.length;
    counts.left += blocks.filter(({ language, reason }) => language === 'sh' && reason).length;
    if (commands.length) test(`${file}: ${section}`, (t) => tell(t, STORIES[file]?.[section], blocks, commands));
  }
  for (const section of Object.keys(STORIES[file] ?? {})) {
    if (!sections.has(section)) test(`${file}: ${section}`, () => assert.fail('there is no such section'));
  }
}
test("docs/operations.md: promtool reads Prometheus's configuration", (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'bearerd-docs-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const { body } = blocksOf('docs/operations.md').find(({ language }) => language === 'yaml');
  writeFileSync(path.join(directory, 'prometheus.yml'), body);
  const promtool = path.join(E2E, '.promtool/usr/bin/promtool');
  execFileSync(promtool, ['check', 'config', '--syntax-only', 'prometheus.yml'], { cwd: directory, timeout: 60_000 });
});
test('commands of the documents', (t) => t.diagnostic(`${counts.run} blocks were run, ${counts.left} say why they can't be`));

// The fenced blocks of a document: their section, language, text, and why they are not run.
function blocksOf(file) {
  const text = readFileSync(path.join(ROOT, file), 'utf8');
  let section = '';
  return [...text.matchAll(/^#{1,2} (.+)$|(?:^<!-- not run: (.+) -->\n)?^```(\w*)\n([\s\S]*?)^```$/gm)].flatMap(
    ([, heading, reason, language, body]) => {
      if (heading) section = heading;
      return heading ? [] : [{ section, reason, language, body }];
    },
  );
}

async function tell(t, story, blocks, commands) {
  assert.ok(story, 'what has to be there before? Add it to STORIES, or say before the block why it is not run');
  const directory = mkdtempSync(path.join(tmpdir(), 'bearerd-docs-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const [port, , , , tenantPort] = await freePorts(8);
  const here = (text) => text.replaceAll(/\b808([0-3])\b/g, (_, last) => `${port + Number(last)}`).replaceAll('/etc/bearerd', directory);
  const configuration = blocksOf('README.md').find(({ language }) => language === 'toml');
  writeFileSync(path.join(directory, 'bearerd.toml'), here(configuration.body));
  // A block whose first line is a comment with a name is that file.
  for (const { body } of blocks) {
    const [, name] = /^# ([\w-]+\.\w+)\b/.exec(body) ?? [];
    if (name) writeFileSync(path.join(directory, name), here(body));
  }
  const typed = commands.map(({ body }) => here(body).replaceAll('bk_...', '$KEY')
    .replaceAll('"refresh_token": "..."', `"refresh_token": "'"$(refresh_token carol)"'"`));
  const script = path.join(directory, 'story.sh');
  writeFileSync(script, [`. "$E2E/reader.sh"`, story.before ?? '', ...typed, story.after ?? ''].join('\n'));
  const { code, said } = await shell(script, directory, { BINARY, E2E, PORT: `${port}`, TENANT_PORT: `${tenantPort}` });
  assert.equal(code, 0, `${said}\n${readFileSync(script, 'utf8')}`);
  for (const shown of story.shows ?? []) assert.match(said, shown);
}

// Runs a script in a process group of its own. When it ends, so does everything that it started, and only then this returns: fd 3 is held by
// all of it.
function shell(script, cwd, env) {
  const child = spawn('bash', [script], {
    cwd, env: { PATH: process.env.PATH, HOME: cwd, TZ: 'UTC', ...env }, detached: true, stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => { said += chunk; });
  child.stdio[3].resume();
  const end = (signal) => { try { process.kill(-child.pid, signal); } catch { /* all of it has ended */ } };
  const late = setTimeout(end, 120_000, 'SIGKILL');
  child.on('exit', () => end('SIGTERM'));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => { clearTimeout(late); resolve({ code, said }); });
  });
}
