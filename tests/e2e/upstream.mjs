// An API that trusts the provider's access tokens and writes down every request: what arrived, as whom, with which body.

import { createHash } from 'node:crypto';
import http from 'node:http';

// Starts the API on 127.0.0.1. `verify(token)` says whose a token is, or null.
export async function startUpstream(verify) {
  const requests = [];
  const server = http.createServer(async (request, response) => {
    const digest = createHash('sha256');
    let length = 0;
    for await (const chunk of request) {
      digest.update(chunk);
      length += chunk.length;
    }
    const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1];
    const holder = await verify(token);
    const record = {
      at: Date.now(),
      method: request.method,
      target: request.url,
      headers: request.headers,
      rawHeaders: request.rawHeaders,
      account: holder?.account ?? null,
      tokenIssued: holder?.issued,
      sha256: digest.digest('hex'),
      length,
      status: holder ? 200 : 401,
    };
    requests.push(record);
    if (!holder) {
      response.writeHead(401, {
        'content-type': 'application/json',
        'www-authenticate': 'Bearer realm="", error="invalid_token"',
      });
      return response.end(JSON.stringify({ error: { code: 'InvalidAuthenticationToken', message: 'The token is not valid.' } }));
    }
    response.writeHead(200, { 'content-type': 'application/json' });
    return response.end(JSON.stringify({
      account: record.account,
      tokenIssued: record.tokenIssued,
      method: record.method,
      target: record.target,
      sha256: record.sha256,
    }));
  });
  server.keepAliveTimeout = 60_000;
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    requests,
    stop: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
  };
}
