// What the setup scripts install (tests/packages.sh), on a machine whose apt we play: nothing where what comes would not do.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const SCRIPT = fileURLToPath(new URL('../../packages.sh', import.meta.url));

// Runs `commands` after packages.sh; apt's nodejs is of version `candidate`. Answers with what was installed.
function setUp(t, candidate, commands) {
  const directory = mkdtempSync(path.join(tmpdir(), 'bearerd-setup-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const calls = path.join(directory, 'calls');
  writeFileSync(calls, '');
  const program = (name, text) => writeFileSync(path.join(directory, name), `#!/bin/bash\n${text}\n`, { mode: 0o755 });
  program('apt-get', `echo "$*" >>${calls}`);
  program('apt-cache', `printf 'nodejs:\\n  Installed: (none)\\n  Candidate: ${candidate}\\n  Version table:\\n'`);
  program('sudo', '"$@"');
  const { status, stderr } = spawnSync('bash', ['-euo', 'pipefail', '-c', `. ${SCRIPT}; ${commands}`], {
    encoding: 'utf8', env: { ...process.env, PATH: `${directory}:${process.env.PATH}` },
  });
  const installed = readFileSync(calls, 'utf8').split('\n').filter((line) => line.includes('install')).map((line) => line.split(' ').slice(3).join(' '));
  return { status, stderr, installed };
}

test('a Node.js that is too old is said before anything is installed', (t) => {
  for (const candidate of ['18.20.4+dfsg-1~deb12u3', '(none)']) {
    const { status, stderr, installed } = setUp(t, candidate, 'missing=(wrk nodejs npm); install_packages');
    assert.deepEqual([status, installed], [1, []]);
    assert.ok(stderr.includes(candidate) && stderr.includes('20 or newer') && stderr.includes('https://nodejs.org'), stderr);
  }
});

test('what is missing is installed', (t) => {
  const install = 'missing=(wrk nodejs npm); install_packages';
  for (const candidate of ['20.19.2+dfsg-1', '1:22.1.0']) assert.deepEqual(setUp(t, candidate, install), { status: 0, stderr: '', installed: ['wrk nodejs npm'] });
  assert.deepEqual(setUp(t, '18.20.4', 'need no-such-program wrk; install_packages').installed, ['wrk']);
  assert.deepEqual(setUp(t, '18.20.4', 'need bash bash; install_packages').installed, []);
});
