// Reads what /metrics says, as far as a load test looks at it. Pure.

// The samples of an OpenMetrics text: `[{ name, labels, value }]`.
export function parse(text) {
  const samples = [];
  for (const line of text.split('\n')) {
    const [, name, labels, value] = /^([a-z_:][\w:]*)(?:\{(.*)\})? (\S+)/i.exec(line) ?? [];
    if (name === undefined) continue;
    const pairs = [...(labels ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, text]) => [label, text]);
    samples.push({ name, labels: Object.fromEntries(pairs), value: Number(value) });
  }
  return samples;
}

// What grows, added up: the difference of two of these is what happened between them.
export function counts(samples) {
  const sum = (name, wanted = () => true) =>
    samples.reduce((total, sample) => (sample.name === name && wanted(sample.labels) ? total + sample.value : total), 0);
  const by = (name, label) => {
    const totals = {};
    for (const sample of samples) {
      if (sample.name === name) totals[sample.labels[label]] = (totals[sample.labels[label]] ?? 0) + sample.value;
    }
    return totals;
  };
  const buckets = (name) => samples.filter((sample) => sample.name === `${name}_bucket`)
    .map(({ labels, value }) => ({ upTo: labels.le === '+Inf' ? Infinity : Number(labels.le), count: value }));
  return {
    requests: sum('bearerd_requests_total'),
    statuses: by('bearerd_requests_total', 'status'),
    ownErrors: sum('bearerd_requests_total', ({ origin }) => origin === 'proxy'),
    refreshes: sum('bearerd_refresh_total'),
    refreshOutcomes: by('bearerd_refresh_total', 'outcome'),
    retries: sum('bearerd_retries_total'),
    retryReasons: by('bearerd_retries_total', 'reason'),
    unauthorized: by('bearerd_upstream_401_total', 'outcome'),
    pauses: sum('bearerd_gate_pauses_total'),
    clientConnections: sum('bearerd_connections', ({ side }) => side === 'client'),
    upstreamConnections: sum('bearerd_connections', ({ side }) => side === 'upstream'),
    requestSeconds: sum('bearerd_request_duration_seconds_sum'),
    upstreamSeconds: sum('bearerd_upstream_duration_seconds_sum'),
    requestBuckets: buckets('bearerd_request_duration_seconds'),
  };
}

// The upper bound, in seconds, of the bucket in which this part of what happened between two looks lies. `null`: nothing happened.
export function quantile(before, after, part) {
  const grown = after.map(({ upTo, count }, index) => ({ upTo, count: count - (before[index]?.count ?? 0) }));
  const total = grown.at(-1)?.count ?? 0;
  return total > 0 ? grown.find(({ count }) => count >= part * total).upTo : null;
}
