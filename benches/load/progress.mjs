// The line of progress: rewritten each second on a terminal, a new one every ten seconds elsewhere.

export class Progress {
  #open = false;
  #said = 0;

  constructor(out) {
    this.out = out;
  }

  scenario(number, of, title, seconds) {
    Object.assign(this, { title, seconds });
    this.#say(`[${number}/${of}] ${title} ...`, true);
    this.prefix = `[${number}/${of}] ${title}`;
    this.#said = Date.now();
  }

  sample(sample) {
    if (!this.out.isTTY && Date.now() - this.#said < 9_500) return;
    this.#said = Date.now();
    this.#say(`${this.prefix}  ${line(sample, this.seconds)}`, false);
  }

  verdict({ mark, words }) {
    this.#say(`${this.prefix}: ${{ good: 'ok', warn: 'look', bad: 'WRONG' }[mark]}. ${words[0]}`, false);
    this.end();
  }

  end() {
    if (this.#open) this.out.write('\n');
    this.#open = false;
  }

  #say(text, first) {
    if (!this.out.isTTY) {
      this.out.write(`${text}\n`);
      return;
    }
    const columns = this.out.columns ?? 80;
    this.out.write(`${first ? '' : '\r'}\x1b[K${text.slice(0, columns - 1)}`);
    this.#open = true;
  }
}

// What one sample says, the most important first: a narrow terminal cuts the end off.
export function line(sample, seconds) {
  const figure = (value, unit, digits = 0) => (value === null || value === undefined ? null : `${value.toFixed(digits)}${unit}`);
  const p99 = sample.p99 === null ? null : sample.p99 === Infinity ? 'p99 over 60 s' : `p99 ≤ ${sample.p99 * 1000} ms`;
  return [
    `${Math.min(sample.at, 1e6).toFixed(0)}/${seconds} s`,
    figure(sample.requests, ' req/s'),
    figure(sample.errors, ' errors/s'),
    p99,
    figure(sample.refreshes, ' refreshes/s'),
    figure(sample.bearerdCores, ' cores', 2),
    figure(sample.rss === null ? null : sample.rss / 1e6, ' MB'),
    `generator ${figure(sample.generatorCores, ' cores', 2)}`,
  ].filter(Boolean).join('  ');
}
