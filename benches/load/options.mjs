// What a run is asked to do, from the environment: `make load NAME=value`. Pure; what can't be understood is said, never guessed.

export const HELP = `make load                 all scenarios, on a bearerd and a sandbox of its own
  SECONDS_EACH=20         how long each scenario lasts
  ONLY=fresh,storm        these scenarios only
  RATE=500                requests a second of the scenario fresh
  ACCOUNTS_MANY=10000     accounts of the scenario many
  CONNECTIONS=10000       open connections of the scenario idle

make load URL=https://bearerd.example.com    your own deployment; scenarios: fresh, many, idle; max and large where ONLY names them
  KEY_FILE=key            a file with the client key (or KEY=... in the environment)
  ACCOUNTS=alice,bob      accounts, named in the path; without it: the client's only account
  REQUEST_PATH=/v1.0/me   what is asked for; LARGE_PATH=... for the scenario large
  RATE=20, CONNECTIONS=1000
  ADMIN_URL=http://...    its admin listener: refreshes and retries from /metrics; ADMIN_TOKEN_FILE=token where it has one
  PID=1234                its process, where it runs on this machine: CPU and memory`;

// Throws an Error whose message is for the user.
export function options(environment, { names, forDeployments, forDeploymentsIfNamed }) {
  const text = (name) => environment[name]?.trim() || undefined;
  const number = (name, otherwise, [least, most]) => {
    const value = text(name) === undefined ? otherwise : Number(text(name));
    if (!Number.isFinite(value) || value < least || value > most) throw new Error(`${name} must be a number from ${least} to ${most}`);
    return value;
  };
  const list = (name) => text(name)?.split(',').map((word) => word.trim()).filter(Boolean);
  const address = (name) => {
    if (text(name) === undefined) return undefined;
    const url = URL.canParse(text(name)) ? new URL(text(name)) : null;
    if (!['http:', 'https:'].includes(url?.protocol) || url.pathname !== '/' || url.search || url.username) {
      throw new Error(`${name} must be an origin such as https://bearerd.example.com`);
    }
    return url.origin;
  };
  const path = (name, otherwise) => {
    const value = text(name) ?? otherwise;
    if (value !== undefined && !value.startsWith('/')) throw new Error(`${name} must begin with /`);
    return value;
  };

  const url = address('URL');
  const possible = url ? [...forDeployments, ...forDeploymentsIfNamed] : names;
  const only = list('ONLY');
  for (const name of only ?? []) {
    if (!names.includes(name)) throw new Error(`ONLY: there is no scenario ${JSON.stringify(name)}; there are ${names.join(', ')}`);
    if (!possible.includes(name)) throw new Error(`ONLY: ${name} needs a sandbox to control; with URL there are ${possible.join(', ')}`);
    if (url && name === 'large' && !text('LARGE_PATH')) throw new Error('ONLY: large needs LARGE_PATH, the path of a large file');
  }
  return {
    url,
    scenarios: names.filter((name) => (only ?? (url ? forDeployments : names)).includes(name)),
    seconds: number('SECONDS_EACH', 20, [1, 3600]),
    rate: number('RATE', url ? 20 : 500, [1, 1_000_000]),
    many: number('ACCOUNTS_MANY', 10_000, [10, 99_000]),
    connections: number('CONNECTIONS', url ? 1000 : 10_000, [1, 60_000]),
    accounts: list('ACCOUNTS') ?? [],
    path: path('REQUEST_PATH', '/v1.0/me'),
    largePath: path('LARGE_PATH'),
    key: text('KEY'),
    keyFile: text('KEY_FILE'),
    adminUrl: address('ADMIN_URL'),
    adminTokenFile: text('ADMIN_TOKEN_FILE'),
    pid: text('PID') && number('PID', 0, [1, 2 ** 22]),
  };
}
