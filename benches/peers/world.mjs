// What all contenders share: a certificate, a thousand users with their tokens, the bodies, and the upstream that sends them.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { connectable } from './client.mjs';
import { AROUND, freePorts, launch } from './machine.mjs';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const OUT = path.join(ROOT, 'target/peers');
// What `cargo install` and the README's first command build.
export const PROFILE = process.env.PROFILE ?? 'release';
export const BINARIES = path.join(ROOT, 'target', PROFILE);

export const USERS = 1000;
export const KEY = 'bk_bench';
export const UPS = ['plain', 'tls'];
export const TARGETS = {
  message: '/v1.0/me/messages/AAMkAGI2?$select=subject,from,receivedDateTime',
  page: '/v1.0/me/messages?$top=100',
  file: '/v1.0/me/drive/items/01BYE5RZ/content',
  echo: '/v1.0/echo',
};
export const FILE_BYTES = 10 << 20;

export const user = (number) => `user${number}`;
export const basic = (number) => `Basic ${Buffer.from(`${user(number)}:${KEY}`).toString('base64')}`;
// What a legacy application sends besides its credential.
export const HEADERS = {
  'User-Agent': 'LegacyMailer/4.2 (.NET CLR 4.8)',
  Accept: 'application/json',
  'client-request-id': '0f8fad5b-d9cb-469f-a165-70867728950e',
  ConsistencyLevel: 'eventual',
  Prefer: 'odata.maxpagesize=50',
};

// 2 KB, as large as Entra ID makes them; of each user another one.
export function token(number) {
  let text = 'eyJ0eXAiOiJKV1QiLCJub25jZSI6Ii';
  for (let part = 0; text.length < 2048; part += 1) text += createHash('sha512').update(`${number}/${part}`).digest('base64url');
  return text.slice(0, 2048);
}

// Starts the upstream in a directory of this run. `origins`: what its links name, plain and within TLS.
export async function build() {
  const directory = path.join(OUT, 'run');
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const ports = Object.fromEntries((await freePorts(UPS.length)).map((port, index) => [UPS[index], port]));
  const origins = { plain: `http://127.0.0.1:${ports.plain}`, tls: `https://localhost:${ports.tls}` };
  const certificates = certify(directory);
  const bodies = Object.fromEntries(UPS.map((up) => [up, bodiesOf(origins[up])]));
  for (const up of UPS) {
    mkdirSync(path.join(directory, up));
    for (const [name, body] of Object.entries(bodies[up])) writeFileSync(path.join(directory, up, name), body);
  }
  const address = (up) => `127.0.0.1:${ports[up]}`;
  const upstream = launch(
    [path.join(BINARIES, 'examples/canned'), address('plain'), address('tls'), certificates.chain, certificates.key, directory],
    { cores: AROUND, directory, log: path.join(directory, 'upstream.log') },
  );
  await connectable(upstream, ports.tls);
  return { directory, ports, origins, certificates, bodies, upstream };
}

// A CA of our own, and by it a leaf for localhost: everybody verifies it.
function certify(directory) {
  const at = (name) => path.join(directory, name);
  const openssl = (...args) => execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  writeFileSync(at('leaf.cnf'), 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n');
  openssl('req', '-x509', ...key, '-days', '2', '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=bench CA',
    '-addext', 'keyUsage=critical,keyCertSign');
  openssl('req', ...key, '-keyout', 'leaf.key', '-out', 'leaf.csr', '-subj', '/CN=localhost');
  openssl('x509', '-req', '-in', 'leaf.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2',
    '-extfile', 'leaf.cnf', '-out', 'leaf.pem');
  return { ca: at('ca.pem'), chain: at('leaf.pem'), key: at('leaf.key') };
}

// As Graph sends them: one message of 1 KB, a page of a hundred in 100 KB with a link for each, a file of 10 MB.
function bodiesOf(origin) {
  const mail = (number) => ({
    '@odata.etag': `W/"CQAAABYAAAAiIsqMbYjsT5e/T7KzowPTAAAYbv${number}"`,
    '@odata.id': `${origin}/v1.0/users/user7@contoso.com/messages/AAMkAGI${number}`,
    subject: `Quarterly review, part ${number}`,
    isRead: number % 2 === 0,
    from: { emailAddress: { name: 'Adele Vance', address: 'adelev@contoso.com' } },
    receivedDateTime: '2026-01-02T03:04:05Z',
    bodyPreview: '',
  });
  const filled = (value, last, bytes) => {
    last.bodyPreview = 'Agenda, figures, questions. '.repeat(bytes);
    const over = Buffer.byteLength(JSON.stringify(value)) - bytes;
    last.bodyPreview = last.bodyPreview.slice(0, -over);
    return Buffer.from(JSON.stringify(value));
  };
  const message = { '@odata.context': `${origin}/v1.0/$metadata#users('user7')/messages(subject,from)/$entity`, ...mail(0) };
  delete message['@odata.id'];
  const page = {
    '@odata.context': `${origin}/v1.0/$metadata#users('user7')/messages`,
    value: Array.from({ length: 100 }, (_, number) => {
      const each = mail(1000 + number);
      each.bodyPreview = 'Agenda, figures, questions. '.repeat(22);
      return each;
    }),
    '@odata.nextLink': `${origin}/v1.0/me/messages?$top=100&$skip=100`,
  };
  const file = Buffer.alloc(FILE_BYTES, createHash('sha512').update('file').digest());
  return { message: filled(message, message, 1024), page: filled(page, page.value[99], 102_400), file };
}
