// The report of a run: one HTML page with plots, and a short table for the terminal. Both are made from what report.json holds.

import { SERIES, colour, svg } from '../common/plots.mjs';
import { badge, escape, figure, page, plots, table } from '../common/page.mjs';

const MARK = { good: 'ok', warn: 'look', bad: 'WRONG' };
const WIDTH = 330;
const HEIGHT = 150;

export async function html(report) {
  const { scenarios } = report;
  const bad = scenarios.filter(({ mark }) => mark === 'bad');
  const answered = scenarios.flatMap(({ streams }) => streams).reduce((sum, stream) => sum + stream.answered, 0);
  const verdict = bad.length
    ? `<p class="verdict bad-text">Answers were wrong in ${bad.length} of ${scenarios.length} scenarios: ${bad.map((one) => `<a href="#${one.name}">${escape(one.title)}</a>`).join(', ')}</p>`
    : `<p class="verdict good-text">${answered.toLocaleString('en')} answers in ${scenarios.length} scenarios, and each was as it should be.</p>`;
  const { machine, versions, settings } = report;
  const lead = `${verdict}
<p class="muted">${escape(versions.bearerd)}, ${escape(versions.generator)}; ${escape(`${machine.cores} cores (${machine.model}), ${(machine.memory / 2 ** 30).toFixed(0)} GiB, Linux ${machine.kernel}`)}.
${escape(settings.url ? 'The deployment and the generator share what lies between them.' : 'bearerd, the simulated Entra ID and Graph and the load generator share these cores.')}
${escape(new Date(report.started).toUTCString())}, ${Math.round(report.seconds)} s${report.interrupted ? '; <strong>stopped before its end</strong>' : ''}.
How to read it: docs/load-testing.md.</p>
${table(
    ['Scenario', '', { name: 'answers/s', number: true }, { name: 'p50 ms', number: true }, { name: 'p99 ms', number: true }, { name: 'wrong', number: true },
      { name: 'bearerd, cores', number: true }, { name: 'memory, MB', number: true }, 'What stands out'],
    scenarios.map((one) => {
      const row = figures(one);
      return [{ html: `<a href="#${one.name}">${escape(one.title)}</a>` }, { html: badge(one.mark) }, row.rate, row.p50, row.p99, row.wrong, row.cores, row.memory,
        facts(one).join('; ')];
    }),
  )}`;
  const sections = [];
  for (const one of scenarios) sections.push({ id: one.name, title: one.title, mark: one.mark, html: await section(one) });
  return page({ title: 'bearerd under load', lead, sections });
}

export function terminal(report) {
  const rows = report.scenarios.map((one) => {
    const row = figures(one);
    return [one.title, MARK[one.mark], row.rate, row.p50, row.p99, row.wrong, row.cores, row.memory, facts(one).slice(0, 2).join('; ')];
  });
  const heads = ['scenario', '', 'answers/s', 'p50 ms', 'p99 ms', 'wrong', 'cores', 'MB', ''];
  const widths = heads.map((head, column) => Math.max(head.length, ...rows.map((row) => String(row[column]).length)));
  const text = (row) => row.map((cell, column) => (column >= 2 && column <= 7 ? String(cell).padStart(widths[column]) : String(cell).padEnd(widths[column]))).join('  ').trimEnd();
  const notes = report.scenarios.filter(({ mark }) => mark !== 'good').map(({ title, mark, words }) => `${MARK[mark]}: ${title}: ${words.join(' ')}`);
  return ['', text(heads), ...rows.map(text), ...(notes.length ? ['', ...notes] : [])].join('\n');
}

// What both tables show of a scenario: of its first stream, which is the one that it is about, and of bearerd.
function figures({ streams, samples, used, wrong }) {
  const [first] = streams;
  const memory = samples.map((sample) => sample.rss).filter((value) => value !== null);
  return {
    rate: first ? short(first.perSecond) : '',
    p50: milliseconds(first?.latency.p50),
    p99: milliseconds(first?.latency.p99),
    wrong: String(Object.values(wrong).reduce((sum, count) => sum + count, 0)),
    cores: used.bearerdCores?.toFixed(2) ?? '',
    memory: memory.length ? short(Math.max(...memory) / 1e6) : '',
  };
}

const facts = (one) => Object.entries(one.facts).filter(([, [value]]) => value !== null && value !== undefined)
  .map(([name, [value, unit]]) => `${name} ${short(value)}${unit && ` ${unit}`}`);
const milliseconds = (value) => (value === null || value === undefined ? '' : short(value));
// Three digits that count.
const short = (value) => (Math.abs(value) >= 100 ? Math.round(value).toLocaleString('en') : Number(value.toPrecision(3)).toString());

async function section(one) {
  const drawn = await Promise.all([throughput(one), latency(one), cpu(one), memory(one), refreshes(one)].filter(Boolean).map((spec) => svg(spec)));
  const wrong = Object.entries(one.wrong);
  return `<p class="muted">${escape(one.about)}</p>
<p${one.mark === 'bad' ? ' class="verdict bad-text"' : ''}>${escape(one.words[0])}</p>
<p>${escape(one.words.slice(1).join(' '))}</p>
${drawn.length ? plots(drawn.map((text) => figure(text))) : ''}
${one.streams.length ? table(
    ['Requests', { name: 'due a second', number: true }, { name: 'answered a second', number: true }, { name: 'answered', number: true }, { name: 'without answer', number: true },
      'by status', ...['p50', 'p90', 'p99', 'p99.9', 'max'].map((name) => ({ name: `${name} ms`, number: true }))],
    one.streams.map((stream) => [
      stream.name, stream.rate === undefined ? `as many as ${stream.connections} connections can` : short(stream.rate), short(stream.perSecond),
      stream.answered.toLocaleString('en'), String(stream.missing),
      Object.entries(stream.statuses).map(([status, count]) => `${status}: ${count.toLocaleString('en')}`).join(', '),
      ...['p50', 'p90', 'p99', 'p999', 'max'].map((name) => milliseconds(stream.latency[name])),
    ]),
  ) : ''}
${one.log ? `<p class="muted">bearerd's access log: ${escape(Object.entries(one.log.ends).map(([end, count]) => `${end}: ${count.toLocaleString('en')}`).join(', '))}.</p>` : ''}
${wrong.length ? table([{ name: 'How often', number: true }, 'What was not as it should be'], wrong.map(([what, count]) => [String(count), what])) : ''}`;
}

const seconds = (last) => ({ field: 'second', type: 'quantitative', title: 'seconds', scale: { domain: [0, Math.max(1, last)], nice: false } });
const last = (one) => Math.max(0, ...one.streams.map(({ series }) => series.length), ...one.samples.map(({ at }) => at));

// A plot of lines over the seconds, with the events of the scenario.
function lines(one, { title, unit, values, log, order, colours = SERIES, area, dash = true }) {
  if (values.length === 0) return null;
  const several = new Set(values.map(({ stream }) => stream)).size > 1;
  const kinds = order ?? [...new Set(values.map(({ kind }) => kind))];
  const y = {
    field: 'value', type: 'quantitative', title: unit,
    scale: log ? { type: 'log', nice: true } : values.some(({ value }) => value > 0) ? { zero: true, nice: true, domainMin: 0 } : { domain: [0, 1] }, axis: log ? { values: decades(values), format: '~g' } : { tickCount: 5 },
    ...(area ? { stack: 'zero' } : {}),
  };
  return {
    title, width: WIDTH, height: HEIGHT,
    layer: [
      {
        data: { values },
        mark: area ? { type: 'area', interpolate: 'step-after', opacity: 0.75 } : { type: 'line', point: values.length < 4 ? { filled: true } : false },
        encoding: {
          x: seconds(last(one)), y,
          color: { field: 'kind', type: 'nominal', sort: kinds, scale: { domain: kinds, range: kinds.map((kind, index) => colours[kind] ?? SERIES[index % SERIES.length]) }, legend: { title: null } },
          ...(several && dash && !area ? { strokeDash: { field: 'stream', type: 'nominal', sort: null, legend: { title: null, orient: 'bottom', columns: 1 } } } : {}),
          ...(area ? { order: { field: 'order' } } : {}),
        },
      },
      ...(one.events.length ? [
        { data: { values: one.events.map(({ at, label }) => ({ second: at, label })) }, mark: { type: 'rule', strokeDash: [3, 3], color: colour('muted') }, encoding: { x: { field: 'second', type: 'quantitative' } } },
        {
          data: { values: one.events.map(({ at, label }, index) => ({ second: at, label, y: 8 + 13 * (index % 2) })) },
          mark: { type: 'text', align: 'left', dx: 3, fontSize: 10, color: colour('text') },
          encoding: { x: { field: 'second', type: 'quantitative' }, y: { field: 'y', type: 'quantitative', scale: null }, text: { field: 'label' } },
        },
      ] : []),
    ],
    ...(one.events.length ? { resolve: { scale: { y: 'independent' } } } : {}),
  };
}

// The powers of ten around the values, and halves of them where there are few.
function decades(values) {
  const [least, most] = [Math.min, Math.max].map((pick) => Math.log10(values.reduce((found, { value }) => pick(found, value), values[0].value)));
  const powers = Array.from({ length: Math.ceil(most) - Math.floor(least) + 1 }, (_, index) => 10 ** (Math.floor(least) + index));
  return powers.length > 3 ? powers : powers.flatMap((power) => [power, 2 * power, 5 * power]);
}

// A status that is not 200 is red, unless it is a refusal that says when to come back.
const STATUS_COLOURS = new Proxy({}, {
  get: (_, status) => (typeof status !== 'string' ? undefined : /^2/.test(status) ? colour('c3') : /^(429|503)$/.test(status) ? colour('warn') : colour('bad')),
});

function throughput(one) {
  const counted = new Map();
  for (const { series } of one.streams) {
    for (const { second, statuses } of series) {
      for (const [status, count] of Object.entries(statuses)) counted.set(`${status} ${second}`, (counted.get(`${status} ${second}`) ?? 0) + count);
    }
  }
  const kinds = [...new Set([...counted.keys()].map((key) => key.split(' ')[0]))].sort();
  const seconds_ = Math.max(0, ...one.streams.map(({ series }) => series.length));
  const values = kinds.flatMap((kind, order) => Array.from({ length: seconds_ + 1 }, (_, second) => (
    { kind, order, second, value: counted.get(`${kind} ${Math.min(second, seconds_ - 1)}`) ?? 0 })));
  return lines(one, { title: 'Throughput, by status', unit: 'answers a second', values, order: kinds, colours: STATUS_COLOURS, area: true });
}

function latency(one) {
  const values = one.streams.flatMap(({ name, series }) => series.flatMap(({ second, latency: known }) => ['p50', 'p99', 'max']
    .filter((kind) => known[kind] > 0).map((kind) => ({ kind, stream: name, second: second + 0.5, value: known[kind] }))));
  return lines(one, {
    title: one.streams.some(({ rate }) => rate === undefined) ? 'Latency' : 'Latency, from when a request was due', unit: 'ms, logarithmic', values, log: true,
    order: ['p50', 'p99', 'max'], colours: { p50: SERIES[0], p99: SERIES[1], max: colour('muted') },
  });
}

function sampled(one, kinds) {
  return one.samples.flatMap((sample) => Object.entries(kinds)
    .filter(([, field]) => sample[field] !== null && sample[field] !== undefined).map(([kind, field]) => ({ kind, second: sample.at, value: sample[field] })));
}

function cpu(one) {
  return lines(one, { title: 'CPU', unit: 'cores', values: sampled(one, { bearerd: 'bearerdCores', generator: 'generatorCores', sandbox: 'sandboxCores' }) });
}

function memory(one) {
  const values = sampled(one, { bearerd: 'rss' }).map((sample) => ({ ...sample, value: sample.value / 1e6 }));
  return lines(one, { title: 'Memory', unit: 'MB, resident', values });
}

function refreshes(one) {
  return lines(one, { title: 'What bearerd did about it', unit: 'a second', values: sampled(one, { refreshes: 'refreshes', retries: 'retries', 'healed 401': 'healed' }) });
}
