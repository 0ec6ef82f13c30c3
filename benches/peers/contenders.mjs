// The contenders, and how each is told to do the same job: find the user, put that user's bearer in place of the client's credential,
// set Host, forward over kept connections.
//
// The peers are told the user by a header that they drop, and look the bearer up in a static table; bearerd does all that it is for. Each is
// configured to be at its best: no access log but bearerd's, nothing written to disk, connections to the upstream kept for good.

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { connectable } from './client.mjs';
import { envoyConfig } from './envoy.mjs';
import { ENVIRONMENT, PROXY, freePorts, launch } from './machine.mjs';
import { BINARIES, HEADERS, KEY, OUT, USERS, basic, token, user } from './world.mjs';

// Client connections that each has to hold.
export const CONNECTIONS = 10_000;

const PINGORA = path.join(OUT, 'pingora/release/pingora-contender');

const byHeader = (number) => ({ ...HEADERS, Authorization: basic(number), 'x-user': user(number) });
const numbers = Array.from({ length: USERS }, (_, number) => number);

const ALL = {
  bearerd: {
    command: (at) => [path.join(BINARIES, 'bearerd'), 'serve', '--config', at('bearerd.toml')],
    headers: (number) => ({ ...HEADERS, Authorization: basic(number) }),
    configure: configureBearerd,
  },
  nginx: {
    command: (at) => ['nginx', '-p', at('.'), '-c', at('nginx.conf'), '-e', at('nginx-start.log')],
    oneProcess: ['-g', 'master_process off;'],
    headers: byHeader,
    configure(place) {
      writeFileSync(place.at('users'), numbers.map((number) => `${user(number)} "Bearer ${token(number)}";\n`).join(''));
      writeFileSync(place.at('nginx.conf'), nginxConfig(place));
    },
  },
  haproxy: {
    command: (at) => ['haproxy', '-db', '-f', at('haproxy.cfg')],
    headers: byHeader,
    configure(place) {
      writeFileSync(place.at('users'), numbers.map((number) => `${user(number)} Bearer ${token(number)}\n`).join(''));
      writeFileSync(place.at('haproxy.cfg'), haproxyConfig(place));
    },
  },
  envoy: {
    command: (at) => [envoyBinary(), '--concurrency', '1', '--disable-hot-restart', '-l', 'error', '-c', at('envoy.json')],
    headers: byHeader,
    configure: (place) => writeFileSync(place.at('envoy.json'), JSON.stringify(envoyConfig(place))),
  },
  pingora: {
    command: (at, { port, up, upstream, ca }) =>
      [PINGORA, port, upstream.port, upstream.authority, at('users'), ...(up === 'tls' ? [ca] : [])].map(String),
    // On SIGTERM it waits for minutes.
    signal: 'SIGINT',
    headers: byHeader,
    configure: (place) => writeFileSync(place.at('users'), numbers.map((number) => `${user(number)} Bearer ${token(number)}\n`).join('')),
  },
};

export const NAMES = Object.keys(ALL).filter((name) => name !== 'pingora' || process.env.PINGORA === '1');

// What each calls its own version.
export function versions() {
  const said = (program, ...args) => {
    const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', env: ENVIRONMENT });
    return /\d+\.\d+\.\d+/.exec(stdout + stderr)?.[0] ?? 'of unknown version';
  };
  const all = {
    bearerd: () => said(path.join(BINARIES, 'bearerd'), 'version'),
    nginx: () => said('nginx', '-v'),
    haproxy: () => said('haproxy', '-v'),
    envoy: () => said(envoyBinary(), '--version'),
    pingora: () => /^pingora = .*"=([\d.]+)"/m.exec(readFileSync(new URL('pingora/Cargo.toml', import.meta.url), 'utf8'))[1],
  };
  return Object.fromEntries(NAMES.map((name) => [name, all[name]()]));
}

// Configures `name` in a directory of its own. `up`: plain or tls. `start()` starts it.
export async function contender(world, name, up, { workers = 1 } = {}) {
  const kind = ALL[name];
  const directory = path.join(world.directory, `${name}-${up}-${workers}`);
  const at = (file) => path.join(directory, file);
  const [port, adminPort] = await freePorts(2);
  const upstream = { port: world.ports[up], origin: world.origins[up], authority: new URL(world.origins[up]).host };
  if (!existsSync(directory)) mkdirSync(directory);
  const place = { at, directory, port, adminPort, up, upstream, workers, ca: world.certificates.ca };
  kind.configure(place);
  const log = at('log');
  return {
    name, up, port, adminPort, upstream,
    url: (target) => `http://127.0.0.1:${port}${target}`,
    headers: kind.headers,
    // `before`: a program that runs it, such as valgrind.
    async start({ cores = PROXY, before = [], ready = true } = {}) {
      const alone = before.length && kind.oneProcess ? kind.oneProcess : [];
      const process = launch([...before, ...kind.command(at, place), ...alone], { cores, directory, log, signal: kind.signal });
      if (ready) await connectable(process, port);
      return process;
    },
    // An access log would fill the disk.
    forgetLog: () => truncateSync(log),
    readLog: () => readFileSync(log, 'utf8'),
  };
}

// The upstream without a proxy, with the same face.
export function direct(world, up) {
  const { protocol, port } = new URL(world.origins[up]);
  const nothing = { cpu: () => 0, stop: async () => {} };
  return { name: 'direct', url: (target) => `${protocol}//127.0.0.1:${port}${target}`, headers: byHeader, start: async () => nothing, forgetLog() {} };
}

// Users sign in by an import of tokens that live; a provider that doesn't exist is never asked.
function configureBearerd({ at, directory, port, adminPort, up, upstream, workers, ca }) {
  writeFileSync(at('bearerd.toml'), `
[server]
listen = "127.0.0.1:${port}"
public_url = "http://127.0.0.1:${port}"
workers = ${workers}
[server.limits]
connections = ${CONNECTIONS + 1000}
header_timeout = "600s"
[admin]
listen = "127.0.0.1:${adminPort}"
[store]
path = "${at('data')}"
key_file = "${at('data/store.key')}"
[providers.entra]
authority = "http://127.0.0.1:9"
tenant = "contoso.onmicrosoft.com"
client_id = "11111111-2222-3333-4444-555555555555"
[upstreams.graph]
url = "${upstream.origin}"
connect_timeout = "60s"
${up === 'tls' ? `ca_file = "${ca}"` : ''}
[[clients]]
name = "bench"
key_hash = "sha256:${createHash('sha256').update(KEY).digest('hex')}"
accounts = ["user*"]
allow = ["GET /v1.0/me/**", "GET /v1.0/users/*/messages/**", "PUT /v1.0/me/drive/items/*/content", "GET /v1.0/echo", "POST /v1.0/echo"]
deny = ["DELETE /v1.0/**", "POST /v1.0/me/sendMail", "GET /v1.0/me/mailFolders/**"]
`);
  if (existsSync(at('data'))) return;
  const rows = numbers.map((number) => JSON.stringify({
    alias: user(number), provider: 'entra', tid: '11111111-2222-3333-4444-555555555555', oid: String(number),
    refresh_token: `refresh-${number}`, access_token: token(number), expires_at: 4_000_000_000,
  }));
  writeFileSync(at('accounts.jsonl'), `${rows.join('\n')}\n`);
  execFileSync(path.join(BINARIES, 'bearerd'), ['accounts', 'import', '--no-verify', 'accounts.jsonl', '--config', at('bearerd.toml')],
    { cwd: directory, stdio: 'pipe' });
}

function nginxConfig({ at, port, up, upstream, workers, ca }) {
  const root = process.getuid() === 0 ? 'user root;' : '';
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${at(`tmp-${kind}`)};`).join(' ');
  return `${root} daemon off; worker_processes ${workers}; pid ${at('nginx.pid')}; error_log ${at('nginx-error.log')} crit;
events { worker_connections ${CONNECTIONS + 1000}; }
http {
  access_log off; ${temporary}
  keepalive_timeout 600s; keepalive_requests 1000000000;
  client_max_body_size 0; client_body_buffer_size 128k;
  map_hash_max_size 8192; map_hash_bucket_size 128;
  map $http_x_user $bearer { default ""; include ${at('users')}; }
  upstream graph { server 127.0.0.1:${upstream.port}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 3600s; }
  server {
    listen 127.0.0.1:${port} backlog=4096${workers > 1 ? ' reuseport' : ''};
    location / {
      proxy_pass ${up === 'tls' ? 'https' : 'http'}://graph;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host ${upstream.authority};
      proxy_set_header Authorization $bearer;
      proxy_set_header X-User "";
      proxy_ssl_server_name on; proxy_ssl_name localhost;
      proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on; proxy_ssl_trusted_certificate ${ca};
      proxy_request_buffering off; proxy_max_temp_file_size 0;
      proxy_buffer_size 16k; proxy_buffers 8 16k; proxy_busy_buffers_size 32k;
    }
  }
}
`;
}

function haproxyConfig({ at, port, up, upstream, workers, ca }) {
  const tls = up === 'tls' ? `ssl verify required ca-file ${ca} sni str(localhost) verifyhost localhost ssl-min-ver TLSv1.3` : '';
  return `global
  nbthread ${workers}
  maxconn ${CONNECTIONS + 1000}
  no strict-limits
  tune.bufsize 32768
  tune.maxrewrite 8192
defaults
  mode http
  timeout connect 60s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
frontend applications
  bind 127.0.0.1:${port} backlog 4096
  http-request set-header Authorization %[req.hdr(x-user),map_str(${at('users')})]
  http-request del-header x-user
  http-request set-header Host ${upstream.authority}
  default_backend graph
backend graph
  http-reuse always
  server graph 127.0.0.1:${upstream.port} pool-purge-delay 600s ${tls}
`;
}

function envoyBinary() {
  const libraries = path.join(OUT, 'venv/lib');
  return path.join(libraries, readdirSync(libraries)[0], 'site-packages/envoy/_bin/envoy');
}
