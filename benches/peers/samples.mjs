// Figures of rounds, and what may be said of them: contenders are compared within a round only, and rounds in which the hypervisor took much are
// left out where enough calm ones remain.

const CALM = 0.1;
const ENOUGH = 2;

export const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

// `samples`: each `{ who, round, steal, ...figures }` of one measure and case.
export function summary(samples, figure) {
  const names = [...new Set(samples.map((sample) => sample.who))];
  return Object.fromEntries(names.map((who) => {
    const own = calm(samples.filter((sample) => sample.who === who), (sample) => sample.steal);
    return [who, { value: median(own.map((sample) => sample[figure])), ratios: ratios(samples, figure, who) }];
  }));
}

// Of `who` to `to` in the same round: `{ median, least, most }`, `null` where there is none.
export function ratios(samples, figure, who, to = 'nginx') {
  const pairs = samples.filter((sample) => sample.who === who).flatMap((sample) => {
    const other = samples.find((each) => each.who === to && each.round === sample.round);
    return other ? [{ ratio: sample[figure] / other[figure], steal: Math.max(sample.steal ?? 0, other.steal ?? 0) }] : [];
  });
  if (!pairs.length) return null;
  const values = calm(pairs, (pair) => pair.steal).map((pair) => pair.ratio);
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) };
}

function calm(all, steal) {
  const quiet = all.filter((each) => (steal(each) ?? 0) <= CALM);
  return quiet.length >= ENOUGH ? quiet : all;
}
