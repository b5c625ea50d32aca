/** Which hosts are there, and how are they called? All problems are reported together. */

import type { RedisOptions } from 'bullmq';

/** PEM files. They are read again when they change; replace them by renaming. */
export interface TlsFiles {
  caFile: string;
  /** The backend's own certificate, if the daemons require one (mTLS). */
  certFile?: string;
  keyFile?: string;
}

/** One GPU host. Each has its own daemon, which gets every invalidation. */
export interface HostOptions {
  /** Must not change: Redis keeps the host's jobs under this name, also while the backend is down. */
  name: string;
  /**
   * `10.0.0.5:8443`, or `unix:/path` on the same host. It has to lead to one daemon: behind a load
   * balancer the others would never hear of a change, and nobody could notice.
   */
  address: string;
  /** The name in the daemon's certificate, if it is not the address. */
  serverName?: string;
}

export interface CacheOptions {
  /** Read once: another list needs a new process. */
  hosts: HostOptions[];
  /** The Redis of the outbox. It needs `appendonly yes` and `maxmemory-policy noeviction`. */
  redis: RedisOptions;
  tls?: TlsFiles;
  /** Returns the bearer token. Called before each call, so that a new token is used at once. */
  token?: () => string;
  /** For each attempt. grpc-js has no deadline of its own, and would wait forever. */
  callTimeoutMs?: number;
  warmTimeoutMs?: number;
  /** False in a process that only makes jobs, which another process delivers. */
  deliver?: boolean;
  /** The longest wait between two attempts. */
  maxBackoffMs?: number;
  protoFile?: string;
}

export const CACHE_OPTIONS = Symbol('CACHE_OPTIONS');

export const DEFAULT_CALL_TIMEOUT_MS = 5_000;
export const DEFAULT_WARM_TIMEOUT_MS = 20_000;
export const DEFAULT_MAX_BACKOFF_MS = 60_000;

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const LOCAL = /^(unix:.*|127\.0\.0\.1:\d+|localhost:\d+|\[::1\]:\d+)$/;

/** Throws one error that names all problems. */
export function checkOptions(options: CacheOptions): void {
  const names = options.hosts.map((host) => host.name);
  const problems = [
    ...(names.length === 0 ? ['hosts: at least one'] : []),
    ...names.filter((name) => !NAME.test(name)).map((name) => `hosts: bad name ${name}`),
    ...names.filter((name, at) => names.indexOf(name) < at).map((name) => `hosts: ${name} twice`),
    ...options.hosts
      .filter(({ address }) => /,|^(?!dns:|unix:)\w[\w+.-]*:(?!\d+$)/.test(address))
      .map(({ name, address }) => `hosts: ${name} at ${address} is not one host:port`),
    ...problemsOfCredentials(options),
  ];
  if (problems.length > 0) throw new Error(`cache options: ${problems.join('; ')}`);
}

function problemsOfCredentials({ hosts, tls, token }: CacheOptions): string[] {
  const problems = [];
  if (!tls?.certFile !== !tls?.keyFile) problems.push('tls: certFile and keyFile go together');
  for (const { name, address } of hosts.filter((host) => !LOCAL.test(host.address))) {
    if (!tls) problems.push(`hosts: ${name} at ${address} is beyond loopback and needs tls`);
    else if (!tls.certFile && !token) problems.push(`hosts: ${name} needs a certificate or a token`);
  }
  return problems;
}
