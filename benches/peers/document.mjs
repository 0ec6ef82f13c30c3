// Writes figures into the repository's pages: a table between two marker comments. A row that this run did not measure stays as it is.

import { readFileSync, writeFileSync } from 'node:fs';

// `rows`: each `{ cells, measured }`; the first cell names the row. `caption` stands below.
export function writeTable(file, marker, columns, rows, caption) {
  const text = readFileSync(file, 'utf8');
  const [begin, end] = [`<!-- ${marker}: written by make bench-peers UPDATE=1 -->`, `<!-- /${marker} -->`];
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${file} has no place for the table: ${begin} ... ${end}`);
  const before = known(text.slice(from + begin.length, to), columns.length);
  const lines = rows.map(({ cells, measured }) => (measured ? line(cells) : before.get(cells[0]) ?? line(cells)));
  const table = [line(columns.map(({ name }) => name)), line(columns.map(({ right }) => (right ? '--:' : '---'))), ...lines];
  writeFileSync(file, `${text.slice(0, from + begin.length)}\n${table.join('\n')}\n\n${caption}\n${text.slice(to)}`);
}

const line = (cells) => `| ${cells.join(' | ')} |`;

// By their first cells; rows of a table with other columns say nothing about this one.
function known(table, columns) {
  const rows = table.split('\n').filter((each) => each.startsWith('|')).slice(2).map((each) => [each.split('|').slice(1, -1), each]);
  return new Map(rows.filter(([cells]) => cells.length === columns).map(([cells, each]) => [cells[0].trim(), each]));
}
