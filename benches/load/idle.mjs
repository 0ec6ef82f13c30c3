// Connections that stay open and are silent: each brought one request, and later brings another.

import http from 'node:http';
import https from 'node:https';

const AT_A_TIME = 64;

export class IdleConnections {
  #agents = [];

  constructor({ url, headers }) {
    Object.assign(this, { url, headers, kind: url.startsWith('https:') ? https : http });
  }

  // Opens so many. Answers `{ open, failures }`.
  async open(count, stopped) {
    this.#agents = Array.from({ length: count }, () => new this.kind.Agent({ keepAlive: true, maxSockets: 1, keepAliveMsecs: 60_000 }));
    const outcomes = await this.#each((agent) => this.#ask(agent), stopped);
    return { open: outcomes.filter((outcome) => outcome.status === 200).length, failures: complaints(outcomes) };
  }

  // One more request on each. Answers `{ answered, reused, failures }`: how many came over the connection that had waited.
  async askAgain(stopped) {
    const outcomes = await this.#each((agent) => this.#ask(agent), stopped);
    return {
      answered: outcomes.filter((outcome) => outcome.status === 200).length,
      reused: outcomes.filter((outcome) => outcome.reused).length,
      failures: complaints(outcomes),
    };
  }

  close() {
    this.#agents.forEach((agent) => agent.destroy());
    this.#agents = [];
  }

  async #each(work, stopped) {
    const outcomes = [];
    const left = this.#agents.values();
    await Promise.all(Array.from({ length: AT_A_TIME }, async () => {
      for (const agent of left) {
        if (stopped()) return;
        outcomes.push(await work(agent));
      }
    }));
    return outcomes;
  }

  #ask(agent) {
    return new Promise((resolve) => {
      const request = this.kind.get(this.url, { agent, headers: this.headers, timeout: 30_000 }, (answer) => {
        answer.resume().once('end', () => resolve({ status: answer.statusCode, reused: request.reusedSocket }));
        answer.once('error', (error) => resolve({ error: error.message }));
      });
      request.once('timeout', () => request.destroy(new Error('no answer in 30 s')));
      request.once('error', (error) => {
        // The end of the silent connection and the request crossed: asked for again, on a new one.
        const crossed = request.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(error.code);
        resolve(crossed ? this.#ask(agent) : { error: error.code ?? error.message });
      });
    });
  }
}

const complaints = (outcomes) => {
  const counts = {};
  for (const { status, error } of outcomes) if (status !== 200) counts[error ?? status] = (counts[error ?? status] ?? 0) + 1;
  return counts;
};
