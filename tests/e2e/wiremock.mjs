// WireMock, a server for faults on the wire: what a request meets is written as a stub, and its journal says what came.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePorts, launch } from './harness.mjs';

const JAR = fileURLToPath(new URL('node_modules/wiremock/build/wiremock-standalone-3.13.2.jar', import.meta.url));
const JAVA = '/usr/bin/java';

// Starts it on 127.0.0.1. Ends with the test `t`.
export async function startWiremock(t) {
  const directory = await mkdtemp(path.join(tmpdir(), 'bearerd-wiremock-'));
  const [port] = await freePorts(1);
  const server = launch(JAVA, [
    '-Xmx256m', '-XX:TieredStopAtLevel=1', '-jar', JAR, '--port', `${port}`, '--bind-address', '127.0.0.1', '--root-dir', directory, '--disable-banner',
  ], { cwd: directory });
  t.after(async () => {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  });
  const url = `http://127.0.0.1:${port}`;
  await server.ready(`${url}/__admin/mappings`, 60);
  const admin = async (method, what, body) => {
    const answer = await fetch(`${url}/__admin/${what}`, { method, body: body && JSON.stringify(body) });
    const text = await answer.text();
    assert.ok(answer.ok, `${what}: ${answer.status} ${text}`);
    return text && JSON.parse(text);
  };
  return {
    url,
    // What requests to `target` get, one answer after the other; the last one stays.
    async answers(target, ...responses) {
      const inTurn = responses.map((response, turn) => ({
        request: { urlPath: target },
        response,
        ...(responses.length > 1 && {
          scenarioName: target,
          requiredScenarioState: turn === 0 ? 'Started' : `turn ${turn}`,
          newScenarioState: `turn ${Math.min(turn + 1, responses.length - 1)}`,
        }),
      }));
      for (const stub of inTurn) await admin('POST', 'mappings', stub);
    },
    // The requests that came for `target`, oldest first.
    async requests(target) {
      const found = await admin('POST', 'requests/find', { urlPath: target });
      return found.requests;
    },
  };
}
