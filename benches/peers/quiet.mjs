// What is measured without load: instructions under callgrind, memory of connections that wait, the way from the start to the first answer.

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Connection, ask, whole } from './client.mjs';
import { CONNECTIONS, contender } from './contenders.mjs';
import { AROUND, PROXY } from './machine.mjs';
import { USERS } from './world.mjs';

const execute = promisify(execFile);
const COUNTED = 2000;

// User instructions for a request, under callgrind: every user is seen once, then the counters are put to nothing, then so many requests
// are counted. The figure hardly varies, whatever else the machine does.
export async function instructions(world, name, { up }) {
  const entrant = await contender(world, name, up);
  const file = path.join(world.directory, `callgrind-${name}-${up}`);
  const process = await entrant.start({ cores: [...PROXY, ...AROUND], before: ['valgrind', '--tool=callgrind', `--callgrind-out-file=${file}`] });
  const dump = () => execute('vgdb', [`--pid=${process.pid}`, 'dump'], { timeout: 60_000 });
  try {
    await ask(entrant, USERS + 500);
    await dump();
    await ask(entrant, COUNTED);
    await dump();
  } finally {
    await process.stop(60);
  }
  const [, counted] = /^(?:summary|totals): (\d+)/m.exec(readFileSync(`${file}.2`, 'latin1'));
  return { who: name, instructions: Number(counted) / COUNTED };
}

// Memory before and with `CONNECTIONS` kept client connections, each after one request and some seconds of rest.
export async function memory(world, name, { rest }) {
  const entrant = await contender(world, name, 'tls');
  const process = await entrant.start();
  const connections = [];
  try {
    const first = new Connection(entrant.port);
    connections.push(first);
    await whole(first, entrant, 0);
    await sleep(500);
    const before = process.memory();
    await Promise.all(Array.from({ length: 64 }, async () => {
      while (connections.length < CONNECTIONS) {
        const connection = new Connection(entrant.port);
        connections.push(connection);
        await whole(connection, entrant, connections.length % USERS);
      }
    }));
    await sleep(rest * 1000);
    const after = process.memory();
    const kept = connections.filter((connection) => connection.kept).length;
    if (kept < CONNECTIONS) throw new Error(`${name} closed ${CONNECTIONS - kept} of ${CONNECTIONS} connections`);
    return { who: name, before, after, each: (after - before) / (CONNECTIONS - 1) };
  } finally {
    for (const connection of connections) connection.close();
    await process.stop();
  }
}

// Milliseconds from the start to the first answer by way of TLS.
export async function start(world, name) {
  const entrant = await contender(world, name, 'tls');
  const from = performance.now();
  const process = await entrant.start({ ready: false });
  const connection = new Connection(entrant.port);
  try {
    for (const last = from + 30_000; performance.now() < last && process.alive;) {
      try {
        await whole(connection, entrant, 7);
        return { who: name, millis: performance.now() - from };
      } catch (error) {
        if (error.code !== 'ECONNREFUSED') throw error;
        await sleep(1);
      }
    }
    throw new Error(`${name} did not start:\n${process.lastWords()}`);
  } finally {
    connection.close();
    await process.stop();
  }
}
