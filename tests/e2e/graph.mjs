// A simulated Graph for the stories of real clients: a mailbox in pages, batches, files, faults on demand; with the second origin to which
// downloads and uploads go without a token.
//
// Its links are absolute and name itself; a paging token is taken only exactly as it was given. JSON comes in small chunks, compressed
// where the client can read that. Everything that arrives is written down.

import { createHash } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { gzipSync } from 'node:zlib';
import { sawOnSecondOrigin } from './recorder.mjs';

export const MESSAGES = 25;
const PAGE = 10;
const PIECE = 97;

// Starts both origins on 127.0.0.1. `verify(token)` says whose a token is, or null. `identity`: key and certificate of the second origin,
// which without one is plain HTTP. `secondHost`: how links call it.
export async function startGraph(verify, { identity, secondHost = '127.0.0.1' } = {}) {
  const requests = [];
  const secondRequests = [];
  const faults = [];
  const files = new Map();
  const uploads = new Map();
  const sent = [];

  const server = http.createServer(async (request, response) => {
    const body = await whole(request);
    const holder = await verify(/^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1]);
    const record = { ...written(request, body), account: holder?.account ?? null };
    requests.push(record);
    const answer = holder ? answerTo(record, body) : error(401, 'InvalidAuthenticationToken', {
      'www-authenticate': 'Bearer realm="", error="invalid_token"',
    });
    record.status = answer.status;
    send(response, answer, request.headers['accept-encoding'] ?? '');
  });
  const second = identity ? https.createServer(identity, onSecond) : http.createServer(onSecond);
  for (const one of [server, second]) {
    one.keepAliveTimeout = 60_000;
    await new Promise((resolve) => { one.listen(0, '127.0.0.1', resolve); });
  }
  const origin = `http://127.0.0.1:${server.address().port}`;
  const secondOrigin = `${identity ? 'https' : 'http'}://${secondHost}:${second.address().port}`;

  // `call`: method, target, account; of a request or of a batch's member.
  function answerTo(call, body) {
    const url = new URL(call.target, origin);
    const fault = faults.findIndex(({ method, path }) => method === call.method && path === url.pathname);
    if (fault >= 0) {
      const [{ status, headers }] = faults.splice(fault, 1);
      return error(status, 'TooManyRequests', headers);
    }
    const [, version, ...segments] = url.pathname.split('/').map(decodeURIComponent);
    if (version !== 'v1.0') return error(400, 'BadRequest');
    const route = `${call.method} ${segments.join('/')}`;
    const name = /root:\/([^/]+):/.exec(route)?.[1];
    if (route === 'GET me') return json(200, { id: call.account, displayName: call.account, '@odata.context': `${origin}/v1.0/$metadata#users/$entity` });
    if (route === 'GET me/messages') return page(url);
    if (/^GET me\/folders\/[\w.-]+$/.test(route)) return json(200, { id: segments[2] });
    if (route === 'POST me/sendMail') {
      sent.push(JSON.parse(body));
      return { status: 202, headers: {} };
    }
    if (route === 'POST $batch') return batch(call, JSON.parse(body));
    if (name && route.startsWith('PUT') && route.endsWith('/content')) {
      files.set(name, body);
      return json(201, { id: name, name, size: body.length });
    }
    if (name && route.startsWith('GET') && route.endsWith('/content') && files.has(name)) {
      return { status: 302, headers: { location: `${secondOrigin}/download/${encodeURIComponent(name)}?tempauth=a%2Bb` } };
    }
    if (name && route.startsWith('POST') && route.endsWith('/createUploadSession')) {
      uploads.set(name, Buffer.alloc(0));
      return json(200, { uploadUrl: `${secondOrigin}/up/${encodeURIComponent(name)}?tempauth=a%2Bb`, expirationDateTime: '2099-01-01T00:00:00Z', nextExpectedRanges: ['0-'] });
    }
    return error(404, 'itemNotFound');
  }

  function page(url) {
    const skip = /[?&]\$skiptoken=([^&]*)/.exec(url.search)?.[1];
    const start = Number(/^t%2B(\d+)%2F%3D%3D$/.exec(skip ?? 't%2B0%2F%3D%3D')?.[1] ?? NaN);
    if (Number.isNaN(start)) return error(400, 'BadRequest');
    const end = Math.min(start + Number(url.searchParams.get('$top') ?? PAGE), MESSAGES);
    const kept = url.search.slice(1).split('&').filter((pair) => pair && !pair.startsWith('$skiptoken='));
    const value = Array.from({ length: end - start }, (_, index) => message(start + index));
    const link = `${origin}${url.pathname}?${[...kept, `$skiptoken=t%2B${end}%2F%3D%3D`].join('&')}`;
    return json(200, {
      '@odata.context': `${origin}/v1.0/$metadata#users('me')/messages`,
      ...(end < MESSAGES && { '@odata.nextLink': link }),
      value,
    });
  }

  const message = (number) => ({ id: `m${number}`, subject: `Message ${number}`, body: { content: textOf(origin) } });

  // Answered in reverse order. An absolute URL is none that Graph knows.
  function batch(call, { requests: members }) {
    const statuses = new Map();
    const responses = members.map(({ id, method, url, body, dependsOn = [] }) => {
      const answer = dependsOn.some((other) => statuses.get(other) >= 400) ? error(424, 'FailedDependency')
        : url.includes('://') ? error(404, 'ResourceNotFound') : answerTo(
          { method, target: `/v1.0${url.startsWith('/') ? '' : '/'}${url}`, account: call.account }, JSON.stringify(body),
        );
      statuses.set(id, answer.status);
      return { id, status: answer.status, headers: answer.headers, ...(answer.json && { body: answer.json }) };
    });
    return json(200, { responses: responses.reverse() });
  }

  async function onSecond(request, response) {
    const body = await whole(request);
    const record = written(request, body);
    secondRequests.push(record);
    sawOnSecondOrigin(secondOrigin, record);
    const [, kind, encoded] = request.url.split(/[/?]/);
    const name = decodeURIComponent(encoded ?? '');
    let answer = error(404, 'itemNotFound');
    if (request.headers.authorization) {
      answer = error(401, 'unauthenticated', { 'www-authenticate': 'Bearer realm=""' });
    } else if (request.method === 'GET' && kind === 'download' && files.has(name)) {
      answer = { status: 200, headers: { 'content-type': 'application/octet-stream' }, bytes: files.get(name) };
    } else if (request.method === 'PUT' && kind === 'up' && uploads.has(name)) {
      answer = fragment(name, request.headers['content-range'] ?? '', body);
    }
    send(response, answer, '');
  }

  function fragment(name, range, body) {
    const [first, last, total] = (/^bytes (\d+)-(\d+)\/(\d+)$/.exec(range) ?? []).slice(1).map(Number);
    const before = uploads.get(name);
    if (first !== before.length || last - first + 1 !== body.length) return error(416, 'invalidRange');
    const now = Buffer.concat([before, body]);
    uploads.set(name, now);
    if (now.length < total) return json(202, { expirationDateTime: '2099-01-01T00:00:00Z', nextExpectedRanges: [`${now.length}-`] });
    files.set(name, now);
    return json(201, { id: name, name, size: total });
  }

  return {
    url: origin,
    secondOrigin,
    requests,
    secondRequests,
    files,
    sent,
    // The next request like this gets this status, once; a batch's members count too.
    fail: (method, path, status, headers = {}) => faults.push({ method, path, status, headers }),
    stop: () => Promise.all([server, second].map((one) => new Promise((resolve) => {
      one.close(resolve);
      one.closeAllConnections();
    }))),
  };
}

// What stands in a message: no link, whatever it looks like.
export const textOf = (origin) => `see ${origin}/v1.0/me/messages, or {"@odata.nextLink":"${origin}/v1.0/me/messages?$skip=1"}`;

async function whole(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function written(request, body) {
  const { method, url: target, headers, httpVersion } = request;
  return { method, target, headers, httpVersion, length: body.length, sha256: createHash('sha256').update(body).digest('hex') };
}

function json(status, value) {
  return { status, headers: { 'Content-Type': 'application/json;odata.metadata=minimal' }, json: value };
}

function error(status, code, headers = {}) {
  const answer = json(status, { error: { code, message: code } });
  return { ...answer, headers: { ...answer.headers, ...headers } };
}

function send(response, answer, accepted) {
  const compressed = answer.json && /\bgzip\b/.test(accepted);
  response.writeHead(answer.status, { ...answer.headers, ...(compressed && { 'content-encoding': 'gzip' }) });
  const plain = answer.json ? Buffer.from(JSON.stringify(answer.json)) : answer.bytes ?? Buffer.alloc(0);
  const bytes = compressed ? gzipSync(plain) : plain;
  const piece = answer.json ? PIECE : 1 << 16;
  for (let at = 0; at < bytes.length; at += piece) response.write(bytes.subarray(at, at + piece));
  response.end();
}
