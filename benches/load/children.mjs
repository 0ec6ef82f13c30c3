// Every process that a run starts, so that each is stopped by its id, whatever happens.

import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

const running = new Set();

// Starts a program in a process group of its own: Ctrl-C reaches us alone, and we stop it in order. `done` settles with its exit code.
export function start(program, args, options = {}) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options, detached: true });
  running.add(child);
  child.done = new Promise((resolve) => {
    child.once('error', (error) => { running.delete(child); child.failure = error; resolve(127); });
    child.once('exit', (code, signal) => { running.delete(child); resolve(code ?? signal); });
  });
  return child;
}

// Runs a program to its end. Answers `{ code, stdout, stderr }`.
export async function run(program, args, options = {}) {
  const child = start(program, args, options);
  const texts = [child.stdout, child.stderr].map(async (stream) => {
    let text = '';
    for await (const chunk of stream) text += chunk;
    return text;
  });
  const [stdout, stderr] = await Promise.all(texts);
  return { code: await child.done, stdout, stderr: child.failure ? String(child.failure) : stderr };
}

// Asks it to end, and ends it when it does not.
export async function stop(child, seconds = 5) {
  if (!running.has(child)) return;
  child.kill('SIGTERM');
  if (await Promise.race([child.done.then(() => true), sleep(seconds * 1000, false, { ref: false })])) return;
  child.kill('SIGKILL');
  await child.done;
}

// The last resort, when the process itself ends.
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
