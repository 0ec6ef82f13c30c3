// Whether a scenario's answers were as they should be, in words; and who set the limit where a rate was not reached. Pure.

// More of a core than this is a full one; the rest is the kernel's and the scheduler's.
const FULL = 0.9;

// `streams`: `{ name, rate, seconds, rows, right, passedOn, tolerated, summary }`; `own`: what the scenario itself found; `used`: what
// `whileSending` says. Answers `{ mark, wrong, words }`: `mark` is good, warn or bad; `wrong` what was not as it should be, with how often.
export function judge({ streams, probed, own = {}, used, cores, interrupted, died, failures = [] }) {
  const wrong = {};
  const found = (what, count) => { if (count > 0) wrong[what] = (wrong[what] ?? 0) + count; };
  for (const stream of streams) {
    const where = streams.length > 1 ? ` (${stream.name})` : '';
    const refused = stream.rows.filter((row) => !stream.right(row));
    const passedOn = stream.passedOn ? refused.filter(stream.passedOn) : [];
    const tolerable = passedOn.length <= (stream.tolerated ?? 0) * stream.rows.length;
    for (const row of tolerable ? refused.filter((row) => !passedOn.includes(row)) : refused) {
      found(row.status === 200 ? `200 that was not complete${where}` : `${row.status}${where}`, 1);
    }
    found(`no answer at all${where}`, stream.summary.missing);
  }
  Object.entries(probed?.wrong ?? {}).forEach(([what, count]) => found(what, count));
  Object.entries(own.wrong ?? {}).forEach(([what, count]) => found(what, count));
  failures.forEach((failure) => found(failure, 1));
  if (died) found('bearerd ended', 1);

  const words = [];
  const total = Object.values(wrong).reduce((sum, count) => sum + count, 0);
  const answered = streams.reduce((sum, stream) => sum + stream.rows.length, 0);
  if (total > 0) words.push(`Not as it should be: ${Object.entries(wrong).map(([what, count]) => `${count} × ${what}`).join(', ')}.`);
  else if (answered === 0) words.push('Nothing was answered, so nothing is known.');
  else words.push(`All ${answered} answers were as they should be.`);
  words.push(...(own.idle ? [own.idle] : own.words ?? []).filter(Boolean));
  const limits = streams.map((stream) => limit(stream, used, cores)).filter(Boolean);
  // Streams of one scenario share what was used, and then what they say.
  words.push(...new Set(limits.map(({ text }) => text)));
  if (interrupted) words.push('It was stopped before its end.');
  const warn = answered === 0 || interrupted || Boolean(own.idle) || limits.some(({ warn: look }) => look);
  return { mark: total > 0 ? 'bad' : warn ? 'warn' : 'good', wrong, words };
}

// Who kept a stream from its rate, or, where it had none, from more.
export function limit(stream, { bearerdCores, sandboxCores, generatorCores, machineBusy: busy }, cores) {
  const used = [['bearerd', bearerdCores], ['the sandbox', sandboxCores], ['the generator', generatorCores]]
    .filter(([, value]) => value !== null).map(([who, value]) => `${who} ${value.toFixed(2)}`).join(', ');
  const full = busy !== null && busy > FULL;
  if (stream.rate === undefined) {
    if (full) {
      return { warn: false, text: `All ${cores} cores were full (cores used: ${used}): bearerd shared them with the rest, and alone would do more; count by its CPU per request.` };
    }
    return { warn: false, text: `Cores used: ${used}, of ${cores}.` };
  }
  const due = stream.rows.reduce((latest, row) => Math.max(latest, row.due), 0) - (stream.from ?? 0);
  const whole = stream.summary.sent !== null && stream.rows.length > 0;
  if (whole && due > stream.seconds * 1.05 + 0.5) {
    return {
      warn: true,
      text: `The generator was the limit: it meant to send ${stream.rate} requests a second and came to ${(stream.rows.length / due).toFixed(0)} (cores used: ${used}, of ${cores}).`,
    };
  }
  const lasted = stream.summary.lasted;
  if (whole && stream.rows.length / lasted < stream.rate * 0.9) {
    return {
      warn: true,
      text: `${stream.rate} requests a second were not reached, ${(stream.rows.length / lasted).toFixed(0)} were answered: `
        + (full ? `all ${cores} cores were full (cores used: ${used}).` : `the cores were not (used: ${used}, of ${cores}), so they waited for something else.`),
    };
  }
  return null;
}
