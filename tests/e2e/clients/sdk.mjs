// An application built on Microsoft's Graph client for JavaScript. Reads all mail page by page, sends a batch, uploads a file by a session,
// downloads it, and sends a mail to a server that throttles. Prints what it got as one line of JSON.
//
// BASE: where it believes Graph to be. KEY: its credential. ACCOUNT: for whom it acts. FILE: what it uploads.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import {
  BatchRequestContent, BatchResponseContent, Client, FileUpload, LargeFileUploadTask, PageIterator, ResponseType,
} from '@microsoft/microsoft-graph-client';

const { BASE, KEY, ACCOUNT, FILE } = process.env;
const FRAGMENT = 320 * 1024;

// To a host that it was told of it sends a token, but over https only; over http it takes every Authorization header away.
const secure = BASE.startsWith('https:');
const client = Client.init({
  baseUrl: BASE,
  defaultVersion: 'v1.0',
  customHosts: new Set(['localhost']),
  authProvider: (done) => done(null, KEY),
  fetchOptions: { headers: secure ? {} : { 'X-Api-Key': KEY, 'Bearerd-Account': ACCOUNT } },
});

console.log(JSON.stringify({
  messages: await mail(),
  batch: await batch(),
  uploaded: await upload('report.bin'),
  downloaded: await download('report.bin'),
  sent: await send(),
  read: await read(),
  missing: await client.api('/me/nothing').get().then(() => 200, (error) => error.statusCode),
}));

async function mail() {
  const messages = [];
  const first = await client.api('/me/messages').top(10).get();
  const pages = new PageIterator(client, first, ({ subject, body }) => messages.push({ subject, text: body.content }));
  await pages.iterate();
  return { messages, link: first['@odata.nextLink'], context: first['@odata.context'] };
}

async function batch() {
  const content = new BatchRequestContent([
    { id: '1', request: new Request(`${BASE}/me`, { method: 'GET' }) },
    { id: '2', request: new Request(`${BASE}/me/messages?$top=2`, { method: 'GET' }), dependsOn: ['1'] },
    { id: '3', request: new Request(`${BASE}/me/nothing`, { method: 'GET' }), dependsOn: ['2'] },
  ]);
  const answer = new BatchResponseContent(await client.api('/$batch').post(await content.getContent()));
  const parts = await Promise.all(['1', '2', '3'].map(async (id) => [id, answer.getResponseById(id)]));
  const [, [, second]] = parts;
  const link = (await second.clone().json())['@odata.nextLink'];
  const { value } = await client.api(link).get();
  return { statuses: parts.map(([, { status }]) => status), link, next: value[0].subject };
}

async function upload(name) {
  const bytes = readFileSync(FILE);
  const session = await LargeFileUploadTask.createUploadSession(client, `/me/drive/root:/${name}:/createUploadSession`, {});
  const task = new LargeFileUploadTask(client, new FileUpload(bytes, name, bytes.length), session, { rangeSize: FRAGMENT });
  const { responseBody } = await task.upload();
  return { size: responseBody.size, url: session.url };
}

async function download(name) {
  const bytes = await client.api(`/me/drive/root:/${name}:/content`).responseType(ResponseType.ARRAYBUFFER).get();
  return createHash('sha256').update(Buffer.from(bytes)).digest('hex');
}

// The first answer is a 429, which it retries by itself: a mail is nothing that a proxy may send twice.
async function send() {
  await client.api('/me/sendMail').post({ message: { subject: 'once' } });
  return true;
}

// The first answer is a 503.
async function read() {
  return (await client.api('/me/folders/inbox').get()).id;
}
