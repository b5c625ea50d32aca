/** Does an address lead to one host? gRPC calls one of several, and the others keep old photos. */

import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';

import { status as Code } from '@grpc/grpc-js';

import { CacheCallError } from './cache-call-error';
import type { HostOptions } from './options';

export type Lookup = (name: string) => Promise<{ address: string; family: number }[]>;

export const lookupAll: Lookup = (name) => lookup(name, { all: true });

/** Rejects if the host's name has several addresses of one family; one of each is one host. */
export async function checkOneHost({ name, address }: HostOptions, look: Lookup): Promise<void> {
  const domain = domainOf(address);
  if (!domain || isIP(domain)) return;
  const found = await look(domain).catch(() => []); // the call itself says what is wrong
  for (const family of [4, 6]) {
    const addresses = new Set(found.filter((each) => each.family === family).map((each) => each.address));
    if (addresses.size > 1) {
      const details =
        `${domain} has ${addresses.size} addresses, and only one of them would hear of the ` +
        'change: give each host an entry and an address of its own';
      throw new CacheCallError(name, Code.FAILED_PRECONDITION, 'SEVERAL_HOSTS', details);
    }
  }
}

/** The name in `name:port`, `dns:name:port`, `dns:///name:port`, `[::1]:port`; none of a socket. */
function domainOf(address: string): string | undefined {
  if (address.startsWith('unix:')) return undefined;
  const target = address.replace(/^dns:(?:\/\/[^/]*\/)?/, '');
  return /^\[(.*)\]/.exec(target)?.[1] ?? target.replace(/:\d+$/, '');
}
