// Envoy's configuration for the job: a table of the users in which each has a route that overwrites Authorization.

import { CONNECTIONS } from './contenders.mjs';
import { USERS, token, user } from './world.mjs';

const type = (name) => ({ '@type': `type.googleapis.com/envoy.${name}` });

export function envoyConfig({ port, up, upstream, ca }) {
  const routes = Array.from({ length: USERS }, (_, number) => [user(number), {
    action: { name: 'route', typed_config: {
      ...type('config.route.v3.Route'),
      match: { prefix: '/' },
      route: { cluster: 'graph', host_rewrite_literal: upstream.authority, timeout: '0s' },
      request_headers_to_remove: ['x-user'],
      request_headers_to_add: [
        { header: { key: 'authorization', value: `Bearer ${token(number)}` }, append_action: 'OVERWRITE_IF_EXISTS_OR_ADD' },
      ],
    } },
  }]);
  const byUser = {
    input: { name: 'user', typed_config: { ...type('type.matcher.v3.HttpRequestHeaderMatchInput'), header_name: 'x-user' } },
    exact_match_map: { map: Object.fromEntries(routes) },
  };
  const manager = {
    ...type('extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
    stat_prefix: 'applications',
    codec_type: 'HTTP1',
    generate_request_id: false,
    server_header_transformation: 'PASS_THROUGH',
    common_http_protocol_options: { idle_timeout: '3600s' },
    route_config: { virtual_hosts: [{ name: 'graph', domains: ['*'], matcher: { matcher_tree: byUser } }] },
    http_filters: [{ name: 'envoy.filters.http.router', typed_config: {
      ...type('extensions.filters.http.router.v3.Router'), dynamic_stats: false, suppress_envoy_headers: true,
    } }],
  };
  const listener = {
    name: 'applications',
    address: address(port),
    tcp_backlog_size: 4096,
    filter_chains: [{ filters: [{ name: 'envoy.filters.network.http_connection_manager', typed_config: manager }] }],
  };
  const cluster = {
    name: 'graph',
    type: 'STATIC',
    connect_timeout: '60s',
    circuit_breakers: { thresholds: [{ max_connections: CONNECTIONS, max_pending_requests: CONNECTIONS, max_requests: CONNECTIONS }] },
    load_assignment: { cluster_name: 'graph', endpoints: [{ lb_endpoints: [{ endpoint: { address: address(upstream.port) } }] }] },
    ...(up === 'tls' && { transport_socket: { name: 'tls', typed_config: verifiedTls(ca) } }),
  };
  return { static_resources: { listeners: [listener], clusters: [cluster] } };
}

const address = (port) => ({ socket_address: { address: '127.0.0.1', port_value: port } });

const verifiedTls = (ca) => ({
  ...type('extensions.transport_sockets.tls.v3.UpstreamTlsContext'),
  sni: 'localhost',
  common_tls_context: {
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
    validation_context: {
      trusted_ca: { filename: ca },
      match_typed_subject_alt_names: [{ san_type: 'DNS', matcher: { exact: 'localhost' } }],
    },
  },
});
