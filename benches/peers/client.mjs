// One client connection that is kept, for what needs no load: proving, waiting, counting.

import http from 'node:http';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { TARGETS, USERS } from './world.mjs';

const PATIENCE = 60_000;

export class Connection {
  constructor(port) {
    this.port = port;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  }

  // Answers `{ status, headers, body }`.
  ask(target, { method = 'GET', headers = {}, body } = {}) {
    return new Promise((resolve, reject) => {
      const request = http.request({
        host: '127.0.0.1', port: this.port, path: target, method, agent: this.agent, timeout: PATIENCE,
        headers: { ...headers, ...(body && { 'Content-Length': body.length }) },
      });
      request.once('timeout', () => request.destroy(new Error(`no answer to ${method} ${target}`)));
      request.once('error', reject);
      request.once('response', (answer) => {
        const pieces = [];
        answer.on('data', (piece) => pieces.push(piece));
        answer.once('error', reject);
        answer.once('end', () => resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(pieces) }));
      });
      request.end(body);
    });
  }

  // Whether the connection of the last request is still there.
  get kept() {
    return Object.values(this.agent.freeSockets).flat().some((socket) => !socket.destroyed);
  }

  close() {
    this.agent.destroy();
  }
}

// Asks for one message as that user.
export async function whole(connection, contender, number) {
  const { status } = await connection.ask(TARGETS.message, { headers: contender.headers(number) });
  if (status !== 200) throw new Error(`${contender.name} answered ${status}`);
}

// Exactly so many requests on 16 connections, the users in turn.
export async function ask(contender, requests) {
  let next = 0;
  await Promise.all(Array.from({ length: 16 }, async () => {
    const connection = new Connection(contender.port);
    while (next < requests) {
      const number = next;
      next += 1;
      await whole(connection, contender, (number * 7) % USERS);
    }
    connection.close();
  }));
}

// Waits until `port` takes connections.
export async function connectable(process, port, seconds = 60) {
  const last = Date.now() + seconds * 1000;
  while (!(await accepts(port))) {
    if (!process.alive) throw new Error(`${process.name} ended:\n${process.lastWords()}`);
    if (Date.now() > last) throw new Error(`${process.name} does not listen on ${port}:\n${process.lastWords()}`);
    await sleep(20);
  }
}

export function accepts(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const done = (answer) => { socket.destroy(); resolve(answer); };
    socket.once('connect', () => done(true)).once('error', () => done(false));
  });
}
