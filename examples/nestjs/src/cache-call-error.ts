/** What did the daemon answer if it was not OK? */

import { status as Code, type ServiceError } from '@grpc/grpc-js';

import { verdictOn, type Verdict } from './retry-table';

/** `reason` is stable (docs/errors.md): match on it, not on the text. '' = an error of gRPC itself. */
export class CacheCallError extends Error {
  override readonly name = 'CacheCallError';

  constructor(
    readonly host: string,
    readonly code: Code,
    readonly reason: string,
    readonly details: string,
  ) {
    super(`${host}: ${Code[code]}${reason && ` ${reason}`}: ${details}`);
  }

  /** What may be done about it. */
  get verdict(): Verdict {
    return verdictOn(this.code, this.reason);
  }

  static from(host: string, error: ServiceError): CacheCallError {
    const [reason] = error.metadata?.get('cachesvc-reason') ?? [];
    return new CacheCallError(host, error.code, reason ? String(reason) : '', error.details);
  }
}
