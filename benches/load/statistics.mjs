// From the generator's rows, one for each answer, to percentiles and to what happened in each second. Pure.

// A row of the generator's csv: seconds since its start at which the request left and was answered, how long that took (from the moment at
// which it was due, where the rate is fixed), the bytes of the body, the status.
export function parseRows(csv, { corrected }) {
  const rows = [];
  const lines = csv.split('\n');
  if (!lines[0]?.startsWith('request-start,DNS,DNS+dialup,Response-delay,request-duration,bytes,status')) {
    throw new Error(`the generator's csv is not what it was: ${JSON.stringify(lines[0])}`);
  }
  for (const line of lines.slice(1)) {
    if (line === '') continue;
    const [start, , , delay, took, bytes, status] = line.split(',').map(Number);
    // Where waiting for its turn counts, only the first byte says when the answer came.
    const end = corrected && delay > 0 ? start + delay : start + took;
    rows.push({ due: corrected ? Math.max(0, end - took) : start, end, took, bytes, status });
  }
  return rows;
}

// Of ascending numbers; the smallest number that at least this part of them does not exceed.
export function percentile(sorted, part) {
  return sorted.length ? sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)] : null;
}

export const PERCENTILES = { p50: 0.5, p90: 0.9, p99: 0.99, p999: 0.999 };

// `{ p50, p90, p99, p999, max }` of numbers in any order; nulls where there are none.
export function distribution(numbers) {
  const sorted = Float64Array.from(numbers).sort();
  const parts = Object.entries(PERCENTILES).map(([name, part]) => [name, percentile(sorted, part)]);
  return Object.fromEntries([...parts, ['max', sorted.length ? sorted[sorted.length - 1] : null]]);
}

// For each second, in which so many answers arrived, by status; and the latencies, in milliseconds, of the requests that were due in it.
// `from`: when the generator started, in seconds of the scenario.
export function perSecond(rows, from = 0) {
  const seconds = [];
  const at = (time) => {
    const index = Math.floor(from + time);
    while (seconds.length <= index) seconds.push({ statuses: {}, took: [] });
    return seconds[index];
  };
  for (const row of rows) {
    const { statuses } = at(row.end);
    statuses[row.status] = (statuses[row.status] ?? 0) + 1;
    at(row.due).took.push(row.took * 1000);
  }
  return seconds.map(({ statuses, took }, second) => ({ second, statuses, latency: distribution(took) }));
}

export function countBy(items, key) {
  const counts = {};
  for (const item of items) counts[key(item)] = (counts[key(item)] ?? 0) + 1;
  return counts;
}

// What one stream of requests came to. `sent`: how many there should have been; what is missing had no answer at all.
export function summary(rows, { sent, seconds }) {
  const last = rows.reduce((latest, row) => Math.max(latest, row.end), 0);
  return {
    sent,
    answered: rows.length,
    missing: sent === null ? 0 : Math.max(0, sent - rows.length),
    statuses: countBy(rows, (row) => row.status),
    bytes: rows.reduce((sum, row) => sum + row.bytes, 0),
    lasted: Math.max(last, seconds ?? 0),
    perSecond: rows.length ? rows.length / Math.max(last, seconds ?? 0) : 0,
    latency: distribution(rows.map((row) => row.took * 1000)),
  };
}

// What was used while requests were sent: means over the samples that lie within that time, over all where none does. Before and after it the
// generator may be busy alone, with the rows of a trial and with its last ones. Null: not known.
export function whileSending(samples, streams) {
  const from = streams.reduce((first, stream) => Math.min(first, stream.from ?? 0), Infinity);
  const until = streams.reduce((last, stream) => stream.rows.reduce((latest, row) => Math.max(latest, row.end), last), 0);
  const within = samples.filter(({ at }, index) => (samples[index - 1]?.at ?? 0) >= from && at <= until);
  const mean = (name) => {
    const known = (within.length ? within : samples).map((sample) => sample[name]).filter((value) => value !== null && value !== undefined);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  };
  return Object.fromEntries(['bearerdCores', 'sandboxCores', 'generatorCores', 'machineBusy'].map((name) => [name, mean(name)]));
}
