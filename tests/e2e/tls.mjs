// A CA of our own and certificates of it, made by openssl.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { run } from './harness.mjs';

// Makes `ca.pem`, and `server.key` and `server.pem` for this machine, in `directory`. Answers what a server of Node.js needs.
export async function certificates(directory) {
  const file = (name) => path.join(directory, name);
  await openssl(directory, 'req', '-x509', ...subject('bearerd test CA'), '-keyout', 'ca.key', '-out', 'ca.pem');
  await openssl(directory, 'req', ...subject('localhost'), '-keyout', 'server.key', '-out', 'server.csr');
  await writeFile(file('names'), 'subjectAltName = DNS:localhost, IP:127.0.0.1\n');
  const signing = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names'];
  await openssl(directory, 'x509', '-req', '-in', 'server.csr', ...signing, '-out', 'server.pem');
  return { ca: file('ca.pem'), key: await readFile(file('server.key')), cert: await readFile(file('server.pem')) };
}

export async function openssl(directory, ...command) {
  const made = await run('openssl', command, { cwd: directory, timeout: 30_000 });
  assert.equal(made.code, 0, made.stderr);
  return made.stdout;
}

// Options of `openssl req` for a new key.
export const subject = (name) => ['-subj', `/CN=${name}`, '-days', '2', '-nodes', '-newkey', 'rsa:2048'];
